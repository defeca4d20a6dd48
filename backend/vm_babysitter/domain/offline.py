"""A VM that is off: how it is told that nobody touches its disks, and that nobody has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

SETTLED_SECONDS = 2
"""What was changed later than this before a look may change again unseen: clocks of file
systems advance in steps of a few milliseconds, on some network file systems of a second."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file system says of an image: another one after every write to it."""

    path: str
    device: int
    inode: int
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since the epoch."""
    changed: int
    """Nanoseconds since the epoch; unlike ``modified`` nobody can set it."""
    telling: bool = True
    """Whether writes show: those to a block device do not, nor those beneath FUSE at once."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """By what one sees again that a VM which is off is as it was."""

    disks: dict[str, tuple[Stamp, ...]]
    """The images of each disk, by target, the active one first."""
    beside: str
    """Digest of its definition and of all else it has beside its disks."""


@dataclass(frozen=True, slots=True)
class Current:
    """Until when the newest point of a chain is known to be what the VM has."""

    seq: int
    nonce: str
    """Of that point."""
    as_of: datetime
    evidence: Evidence


def is_settled(evidence: Evidence, at: datetime) -> bool:
    """Whether any change after this time, when the evidence was seen last, will show in it."""
    limit = (at.timestamp() - SETTLED_SECONDS) * 1e9
    stamps = [stamp for disk in evidence.disks.values() for stamp in disk]
    return all(s.telling and max(s.modified, s.changed) < limit for s in stamps)


def is_same(old: Evidence, paths: Mapping[str, str], new: Evidence) -> bool:
    """Whether a VM that is off is what it was.

    Args:
        old: what was seen then.
        paths: the image of each disk of ``old`` as the VM's definition has it now.
        new: what the files of ``old`` say now.
    """
    actives = {target: stamps[0].path for target, stamps in old.disks.items() if stamps}
    return actives == dict(paths) and old == new


def changed_image(then: Iterable[Stamp], now: Iterable[Stamp]) -> str:
    """Return the path of the first image that was written to meanwhile, empty if none was."""
    return next((old.path for old, new in zip(then, now, strict=True) if old != new), "")
