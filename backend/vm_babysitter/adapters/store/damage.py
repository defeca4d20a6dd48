"""Notes of damage beside a point's directory: written by a verify, which holds no lock.

Each point has a file of its own, which nobody but a verify writes, and it is believed only if it
carries the point's nonce. So a backup under way, or one that takes the number of a point that is
gone, has nothing to do with it. Of two verifies at once the later one's note counts; should they
be so close that neither is whole, there is none, until the next verify.
"""

from functools import partial
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.domain.chain import Flaw
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.errors import BabysitterError, Damaged, StoreFailed
from vm_babysitter.domain.point import Point
from vm_babysitter.lib.atomicfile import fsync_directory, is_there


def noted_flaws(chain: Path, point: Point) -> tuple[Flaw, ...]:
    """Return what is noted of a point. Raises UnsupportedFormat."""
    try:
        note = documents.read(_file(chain, point), "damage", DamageNote)
    except (Damaged, StoreFailed):  # the next verify finds it again
        return ()
    same = (note.seq, note.nonce) == (point.seq, point.nonce)
    return note.flaws if same else ()


def write_note(chain: Path, point: Point, note: DamageNote) -> None:
    """Note what is wrong with a point, or that nothing is, by removing its note.

    Raises:
        StoreFailed: the store cannot be written to.
    """
    path = _file(chain, point)
    if note.flaws:
        documents.write(path, "damage", note)
    elif failing(path, partial(is_there, path)):
        failing(path, partial(path.unlink, missing_ok=True))
        failing(chain, partial(fsync_directory, chain))  # else a power cut brings it back


def is_evidence(error: BabysitterError) -> bool:
    """Whether a failed reading means that the file is damaged, and not that it is out of reach."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in documents.BAD_MEDIUM


def _file(chain: Path, point: Point) -> Path:
    return chain / layout.damage_file(point.directory)
