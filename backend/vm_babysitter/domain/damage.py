"""What a verify has found wrong with a restore point, and remembers. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.chain import Flaw


@dataclass(frozen=True, slots=True)
class DamageNote:
    """What is remembered of one point, until a verify finds it whole."""

    seq: int
    nonce: str
    """Of the point: a note of another one with its number does not count."""
    found: datetime
    """When something was found last."""
    flaws: tuple[Flaw, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verify has come to know about the files of one point."""

    flaws: tuple[Flaw, ...]
    """Evidence of damage."""
    undecided: frozenset[str] = frozenset()
    """Files that could not be checked now, which is no evidence."""
    proven: bool = False
    """Whether the disks were read as well, through all layers, and found right."""


def remembered(old: Collection[Flaw], checked: Checked) -> tuple[Flaw, ...]:
    """Return the flaws to be noted of a point, given those that were noted before.

    An older one stays as long as it is neither found again nor disproved. What only reading through
    all layers had shown is not disproved by the file being what was written.
    """
    again = {flaw.file for flaw in checked.flaws}
    kept = [
        flaw
        for flaw in old
        if flaw.file not in again
        and (flaw.file in checked.undecided or (flaw.content and not checked.proven))
    ]
    return (*checked.flaws, *kept)
