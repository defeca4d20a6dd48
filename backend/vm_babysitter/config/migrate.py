"""Settings of older versions become those of this one, step by step."""

from collections.abc import Callable, Sequence
from copy import deepcopy

from vm_babysitter.domain.errors import Damaged, UnsupportedFormat

Document = dict[str, object]
Step = Callable[[Document], Document]
"""Makes a document of version N one of N+1; it need not touch ``version``."""

STEPS: tuple[Step, ...] = ()
"""The first makes version 2 of version 1, and so on: one line for each."""
VERSION = len(STEPS) + 1
"""Of the settings that this program reads and writes."""


def migrate(document: Document, path: str, steps: Sequence[Step] = STEPS) -> Document:
    """Return a document as the newest version has it; what is given stays as it is.

    Args:
        document: what the file says.
        path: of the file, for errors.
        steps: for tests.

    Raises:
        UnsupportedFormat: a newer version of this program wrote it.
        Damaged: it does not say which version it has.
    """
    found, newest = document.get("version"), len(steps) + 1
    if type(found) is not int or found < 1:
        way_out = 'Settings begin with {"version": 1. Is this another file?'
        raise Damaged(path, "it does not say which version of settings it holds", way_out)
    if found > newest:
        raise UnsupportedFormat(path, found, newest)
    document = deepcopy(document)
    for number, step in enumerate(steps[found - 1 :], found):
        document = {**step(document), "version": number + 1}
    return document
