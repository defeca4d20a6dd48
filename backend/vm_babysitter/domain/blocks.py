"""Blocks and extents: what of a disk is read, compared and written.

A *block* is 64 KiB of disk content, the unit of fingerprints and of stored data.
The last block of a disk may be short. An *extent* is a byte range of one kind.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

BLOCK_SIZE = 65536
HASH_SIZE = 16
ZERO_HASH = bytes(HASH_SIZE)
"""Stands for "this block is all zero" wherever a fingerprint is expected."""


class Extent(NamedTuple):
    """A half-open byte range ``[start, end)`` of a disk.

    ``zero``: the range is known to read as zeros without reading it.
    ``dirty``: it may differ from the ancestor point (everything, where no bitmap serves).
    """

    start: int
    end: int
    zero: bool
    dirty: bool


class Flagged(NamedTuple):
    """A half-open byte range with one yes/no property, as one metadata context tells it."""

    start: int
    end: int
    flag: bool


class Piece(NamedTuple):
    """A byte range to read in one request."""

    offset: int
    length: int


class Action(StrEnum):
    """What a backup does with a run of blocks."""

    READ = "read"
    """May have changed: read it and compare it with the parent."""
    ZERO = "zero"
    """May have changed and is known to be zero now: no reading needed."""
    CLEAN_ZERO = "clean-zero"
    """Unchanged by the bitmap, and zero now: the parent must say zero too."""
    CLEAN = "clean"
    """Unchanged by the bitmap."""
    REREAD = "reread"
    """Unchanged by the bitmap, and read to see whether that is true."""


class BlockRun(NamedTuple):
    """Blocks ``first`` to ``end`` (exclusive) and what to do with them."""

    first: int
    end: int
    action: Action


def block_count(size: int) -> int:
    """Return how many blocks a disk of ``size`` bytes has, the short last one included."""
    return -(-size // BLOCK_SIZE)


def block_length(block: int, size: int) -> int:
    """Return the length in bytes of ``block`` on a disk of ``size`` bytes."""
    return min(BLOCK_SIZE, size - block * BLOCK_SIZE)


def merge_maps(zeros: Iterable[Flagged], dirty: Iterable[Flagged]) -> Iterator[Extent]:
    """Merge the allocation map and the dirty map of one disk in a single linear pass.

    Both inputs cover the disk from 0 to its size without gap or overlap, in order.

    Raises:
        ValueError: if the two maps cover different sizes, or one has a gap or an overlap.
    """
    left, right = _seamless(zeros), _seamless(dirty)
    a, b = next(left, None), next(right, None)
    position = 0
    while a is not None and b is not None:
        end = min(a.end, b.end)
        if end > position:
            yield Extent(position, end, a.flag, b.flag)
            position = end
        if a.end <= position:
            a = next(left, None)
        if b is not None and b.end <= position:
            b = next(right, None)
    if a is not None or b is not None:
        raise ValueError("the allocation map and the dirty map cover different sizes")


def _seamless(ranges: Iterable[Flagged]) -> Iterator[Flagged]:
    """Pass ranges on; a gap must not take the flag of a neighbour."""
    position = 0
    for flagged in ranges:
        if flagged.start != position or flagged.end <= position:
            raise ValueError(f"range {flagged.start}-{flagged.end} does not follow {position}")
        position = flagged.end
        yield flagged


def all_dirty(zeros: Iterable[Flagged]) -> Iterator[Extent]:
    """Return the extents of a disk of which everything must be looked at (a scan or a full)."""
    for start, end, zero in zeros:
        yield Extent(start, end, zero, True)


def block_runs(
    extents: Iterable[Extent], size: int, forced: frozenset[int] = frozenset()
) -> Iterator[BlockRun]:
    """Widen extents to whole blocks and say what to do with each run of blocks.

    A block is read when any part of it is dirty, unless all of it is known to be zero.
    Blocks in ``forced`` count as dirty. Neighbouring runs of one action are joined.

    Raises:
        ValueError: if the extents leave a gap, overlap or do not end at ``size``.
    """
    return _joined(_raw_runs(extents, size, forced))


def _action(*, zero: bool, dirty: bool) -> Action:
    if dirty:
        return Action.ZERO if zero else Action.READ
    return Action.CLEAN_ZERO if zero else Action.CLEAN


def _raw_runs(extents: Iterable[Extent], size: int, forced: frozenset[int]) -> Iterator[BlockRun]:
    position = 0
    shared: int | None = None  # a block met by several extents, its flags gathered below
    zero_all = True
    dirty_any = False
    for start, end, zero, dirty in extents:
        if start != position or end <= start:
            raise ValueError(f"extent {start}-{end} does not follow {position}")
        position = end
        first, last = start // BLOCK_SIZE, (end - 1) // BLOCK_SIZE
        if shared is not None:
            zero_all &= zero
            dirty_any |= dirty
            if last == shared and end % BLOCK_SIZE and end < size:
                continue
            yield from _forced(shared, shared + 1, zero=zero_all, dirty=dirty_any, forced=forced)
            first, shared = shared + 1, None
        if end % BLOCK_SIZE and end < size and first <= last:
            shared, zero_all, dirty_any = last, zero, dirty
            last -= 1
        if first <= last:
            yield from _forced(first, last + 1, zero=zero, dirty=dirty, forced=forced)
    if position != size:
        raise ValueError(f"the extents end at {position}, the disk at {size}")


def _forced(
    first: int, end: int, *, zero: bool, dirty: bool, forced: frozenset[int]
) -> Iterator[BlockRun]:
    action = _action(zero=zero, dirty=dirty)
    inside = sorted(b for b in forced if first <= b < end) if forced and not dirty else ()
    for block in inside:
        if block > first:
            yield BlockRun(first, block, action)
        yield BlockRun(block, block + 1, _action(zero=zero, dirty=True))
        first = block + 1
    if first < end:
        yield BlockRun(first, end, action)


def _joined(runs: Iterable[BlockRun]) -> Iterator[BlockRun]:
    held: BlockRun | None = None
    for run in runs:
        if held is not None and held.action is run.action and held.end == run.first:
            held = BlockRun(held.first, run.end, run.action)
        else:
            if held is not None:
                yield held
            held = run
    if held is not None:
        yield held


def pieces(run: BlockRun, size: int, longest: int) -> Iterator[Piece]:
    """Cut a run into pieces of at most ``longest`` bytes (a multiple of the block size)."""
    offset, end = run.first * BLOCK_SIZE, min(run.end * BLOCK_SIZE, size)
    while offset < end:
        length = min(longest, end - offset)
        yield Piece(offset, length)
        offset += length
