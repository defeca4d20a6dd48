"""How much space a running backup needs, and when it must be given up. Pure.

QEMU keeps what the guest overwrites during a backup in scratch files. Where their file system
is full, QEMU pauses the VM: rather than that, the backup is given up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MIB, _GIB = 1 << 20, 1 << 30
SCRATCH_RESERVE = 2 * _GIB
"""Bytes that scratch files leave free at most; on small file systems it is a fiftieth."""
STORE_RESERVE = 256 * _MIB
"""Bytes that a backup leaves free in the backup folder at most; else a hundredth."""
_LEAST_RESERVE = 16 * _MIB
_MOST_WANTED = 4 * _GIB
_WANTED_SHARE = 20
_SECONDS_LEFT = 10
_IMPATIENT_POLICIES = frozenset({"report", "ignore"})


@dataclass(frozen=True, slots=True)
class Room:
    """A file system as it is at some moment."""

    free: int
    """Bytes that we may still use."""
    total: int
    """Bytes."""
    device: int
    """Tells it from other file systems."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where the scratch file of one disk goes."""

    path: str
    room: Room
    disk_size: int
    """Bytes."""
    cautious: bool
    """Whether the guest would see an error instead of being paused: limits are doubled."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A place that has too little space."""

    path: str
    free: int
    needed: int


def sees_errors(error_policy: str) -> bool:
    """Whether a disk with this policy has the guest see an error where others are paused."""
    return error_policy in _IMPATIENT_POLICIES


def scratch_reserve(total: int, *, cautious: bool) -> int:
    """Return how many bytes scratch files must leave free."""
    reserve = max(_LEAST_RESERVE, min(SCRATCH_RESERVE, total // 50))
    return 2 * reserve if cautious else reserve


def store_reserve(total: int) -> int:
    """Return how many bytes a backup must leave free in its folder."""
    return min(STORE_RESERVE, total // 100)


def store_floor(store: Room, scratch: Iterable[Scratch]) -> int:
    """Return how many bytes a backup leaves free in its folder, which may be on a disk's pool."""
    same = [s for s in scratch if s.room.device == store.device]
    floor = store_reserve(store.total)
    return max([floor, *(scratch_reserve(store.total, cautious=s.cautious) for s in same)])


def find_shortage(places: Iterable[Scratch]) -> Shortage | None:
    """Find a place where a backup should not begin; disks on one file system share its room.

    Wanted is the reserve and a twentieth of the disks, at most 4 GiB.
    """
    by_device: dict[int, list[Scratch]] = {}
    for scratch in places:
        by_device.setdefault(scratch.room.device, []).append(scratch)
    for group in by_device.values():
        cautious = any(s.cautious for s in group)
        share = min(_MOST_WANTED, sum(s.disk_size for s in group) // _WANTED_SHARE)
        room = group[0].room
        needed = scratch_reserve(room.total, cautious=cautious) + (2 * share if cautious else share)
        if room.free < needed:
            return Shortage(group[0].path, room.free, needed)
    return None


@dataclass(frozen=True, slots=True)
class Growth:
    """The scratch files of one file system at some moment."""

    seconds: float
    """Of any clock."""
    used: int
    """Bytes that they take."""


def must_give_up(room: Room, history: Sequence[Growth], *, cautious: bool) -> bool:
    """Whether the space will not last: too little is left, or for ten seconds of this growth.

    ``history`` is of the last seconds, the newest last. Its whole length counts: what a guest
    writes in a moment goes through memory faster than any disk.
    """
    rate = 0.0
    if history and history[-1].seconds > history[0].seconds:
        grown = history[-1].used - history[0].used
        rate = grown / (history[-1].seconds - history[0].seconds)
    seconds = 2 * _SECONDS_LEFT if cautious else _SECONDS_LEFT
    return room.free < max(scratch_reserve(room.total, cautious=cautious), rate * seconds)
