"""Copies one disk of a backup: the bitmap says what to read, the index what to write."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vm_babysitter.domain.blocks import (
    BLOCK_SIZE,
    ZERO_HASH,
    Action,
    BlockRun,
    Flagged,
    Piece,
    all_dirty,
    block_count,
    block_length,
    block_runs,
    merge_maps,
    pieces,
)
from vm_babysitter.engine.ordering import InOrder
from vm_babysitter.engine.pace import Pace
from vm_babysitter.ports import BlockIndex, DiskReader, Fingerprint, ImageWriter, IndexWriter

PIECE = 1 << 20
"""Bytes read in one request."""
ZERO_STEP = 1 << 14
"""Blocks of a zero run that are compared with the index at a time."""
_READ = frozenset({Action.READ, Action.REREAD})


class Contradiction(Exception):
    """The bitmap calls a range unchanged that is not what it was in the parent."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"contradiction at byte {offset}")
        self.offset = offset


class EmptyIndex:
    """The index of no parent: every block counts as zero."""

    def touched(self, first: int, count: int) -> list[int]:
        """See ``ports.BlockIndex``."""
        return []

    def expected(self, first: int, count: int) -> list[bytes]:
        """See ``ports.BlockIndex``."""
        return [ZERO_HASH] * count


@dataclass(frozen=True, slots=True)
class Copied:
    """What copying a disk came to."""

    read_bytes: int
    written_bytes: int
    zeroed_bytes: int
    reread_until: int = 0
    """The end of the last block that was read only to see whether it is unchanged."""


class _Work(NamedTuple):
    """A piece in flight: its number in order, and the parent's fingerprints of its blocks."""

    number: int
    expected: list[bytes]
    unchanged: bool
    """Whether it must be what the parent has."""


class _Change(NamedTuple):
    """Blocks that differ from the parent: where their data lies (None: they are zero now)."""

    block: int
    place: int | None
    hashes: list[bytes]


def runs_to_copy(
    reader: DiskReader,
    *,
    tracked: bool,
    parent_size: int | None,
    touched: Iterable[Flagged] | None = None,
) -> Iterator[BlockRun]:
    """Stream what to do with each run of blocks; may be called again for another pass.

    Args:
        reader: the disk.
        tracked: whether its dirty map says what may have changed.
        parent_size: bytes of this disk in the parent, None without one.
        touched: where the bitmap is that of an ancestor of the parent, which blocks the
            points since then changed. Where the bitmap has recorded all along it has these
            too; in an image that was put back to an earlier state it has not.
    """
    zeros = reader.zero_map()
    if tracked:
        dirty = _dirty_beyond(
            reader.dirty_map(), reader.size if parent_size is None else parent_size
        )
        if touched is not None:
            dirty = either(dirty, touched)
        extents = merge_maps(zeros, dirty)
    else:
        extents = all_dirty(zeros)
    return block_runs(extents, reader.size, _cut_blocks(reader.size, parent_size))


def either(left: Iterable[Flagged], right: Iterable[Flagged]) -> Iterator[Flagged]:
    """Merge two maps of one disk: a range is flagged where one of them says so."""
    for start, end, one, other in merge_maps(left, right):
        yield Flagged(start, end, one or other)


def touched_map(index: BlockIndex, size: int) -> Iterator[Flagged]:
    """Stream which blocks of a disk have an entry in an index; covers 0 to ``size``."""
    position, blocks = 0, block_count(size)
    for first in range(0, blocks, ZERO_STEP):
        for start, end in consecutive(index.touched(first, min(ZERO_STEP, blocks - first))):
            if start * BLOCK_SIZE > position:
                yield Flagged(position, start * BLOCK_SIZE, False)
            position = min(end * BLOCK_SIZE, size)
            yield Flagged(start * BLOCK_SIZE, position, True)
    if position < size:
        yield Flagged(position, size, False)


def _dirty_beyond(dirty: Iterable[Flagged], limit: int) -> Iterator[Flagged]:
    """Count all that lies beyond ``limit``, the size the parent had, as changed."""
    for start, end, flag in dirty:
        if flag or end <= limit:
            yield Flagged(start, end, flag)
            continue
        if start < limit:
            yield Flagged(start, limit, False)
        yield Flagged(max(start, limit), end, True)


def _cut_blocks(size: int, parent_size: int | None) -> frozenset[int]:
    """Return the blocks whose length differs from the parent's because the disk was resized."""
    if parent_size is None or parent_size == size:
        return frozenset()
    ends = {end // BLOCK_SIZE for end in (size, parent_size) if end % BLOCK_SIZE}
    return frozenset(block for block in ends if block < block_count(size))


def bytes_to_read(runs: Iterable[BlockRun], size: int) -> int:
    """Return how many bytes the runs make the copier read."""
    last = block_count(size) - 1
    total = 0
    for first, end, action in runs:
        if action in _READ:
            total += (end - first) * BLOCK_SIZE
            if end - 1 == last:
                total += block_length(last, size) - BLOCK_SIZE
    return total


def zero_fingerprints(fingerprint: Fingerprint, size: int) -> dict[int, bytes]:
    """Return the fingerprint of a zero block for each length that blocks of a disk have."""
    lengths = {BLOCK_SIZE, size % BLOCK_SIZE} - {0}
    return {length: fingerprint(memoryview(bytes(length))) for length in lengths}


@dataclass(frozen=True, slots=True)
class NewLayer:
    """One disk of the point being made: its image and its block index."""

    image: ImageWriter
    index: IndexWriter


class DiskCopier:
    """Copies one disk into a restore point."""

    def __init__(
        self,
        reader: DiskReader,
        parent: BlockIndex,
        layer: NewLayer,
        fingerprint: Fingerprint,
        progress: Callable[[int], None],
        pace: Pace,
    ) -> None:
        """``progress`` is told how many more bytes were read; it is called from threads."""
        self._reader = reader
        self._parent = parent
        self._image = layer.image
        self._index = layer.index
        self._fingerprint = fingerprint
        self._progress = progress
        self._cancel = pace.cancel
        self._pace = pace
        self._in_order: InOrder[list[_Change]] = InOrder(self._record)
        self._lock = threading.Lock()
        self._read_bytes = 0
        self._written_bytes = 0
        self._zeroed_blocks = 0
        self._reread_until = 0
        self._zero = zero_fingerprints(fingerprint, reader.size)

    def copy(self, runs: Iterable[BlockRun]) -> Copied:
        """Read what the runs say and store what differs from the parent.

        Raises:
            Contradiction: the bitmap is proven wrong.
            Cancelled, StoreFailed, TransferFailed, ConnectionLost, Damaged.
        """
        with self._cancel.interrupting(self._reader.abort):
            self._reader.read(self._work(runs), self._consume)
        self._in_order.end()
        zeroed = self._zeroed_blocks * BLOCK_SIZE
        return Copied(self._read_bytes, self._written_bytes, zeroed, self._reread_until)

    def _work(self, runs: Iterable[BlockRun]) -> Iterator[tuple[Piece, _Work]]:
        """Turn runs into numbered pieces to read; zero runs are settled on the way."""
        number = 0
        for run in runs:
            self._cancel.check()
            if run.action in _READ:
                unchanged = run.action is Action.REREAD
                for piece in pieces(run, self._reader.size, PIECE):
                    first, count = piece.offset // BLOCK_SIZE, block_count(piece.length)
                    yield piece, _Work(number, self._parent.expected(first, count), unchanged)
                    number += 1
                if unchanged:
                    self._reread_until = run.end
            elif run.action is not Action.CLEAN:
                for change in self._settle_zeros(run):
                    self._in_order.put(number, [change])
                    number += 1

    def _settle_zeros(self, run: BlockRun) -> Iterator[_Change]:
        """Find the blocks of a zero run that were not zero in the parent."""
        for first in range(run.first, run.end, ZERO_STEP):
            count = min(ZERO_STEP, run.end - first)
            expected = self._parent.expected(first, count)
            if expected.count(ZERO_HASH) == count:
                continue
            changed = [first + i for i, known in enumerate(expected) if known != ZERO_HASH]
            if run.action is Action.CLEAN_ZERO:
                raise Contradiction(changed[0] * BLOCK_SIZE)
            yield from (
                _Change(start, None, [ZERO_HASH] * (end - start))
                for start, end in consecutive(changed)
            )

    def _consume(self, piece: Piece, work: _Work, data: memoryview) -> None:
        self._pace.take(piece.length)
        first = piece.offset // BLOCK_SIZE
        hashes = [self._hash(data[i : i + BLOCK_SIZE]) for i in range(0, len(data), BLOCK_SIZE)]
        changes: list[_Change] = []
        pairs = zip(hashes, work.expected, strict=True)
        changed = [i for i, (new, old) in enumerate(pairs) if new != old]
        if changed and work.unchanged:
            raise Contradiction((first + changed[0]) * BLOCK_SIZE)
        for start, end in consecutive(changed, lambda i: hashes[i] == ZERO_HASH):
            place = None
            if hashes[start] != ZERO_HASH:
                part = data[start * BLOCK_SIZE : end * BLOCK_SIZE]
                place = self._image.append(part, hashes[start:end])
                with self._lock:
                    self._written_bytes += len(part)
            changes.append(_Change(first + start, place, hashes[start:end]))
        self._in_order.put(work.number, changes)
        with self._lock:
            self._read_bytes += piece.length
        self._progress(piece.length)

    def _hash(self, block: memoryview) -> bytes:
        found = self._fingerprint(block)
        return ZERO_HASH if found == self._zero[len(block)] else found

    def _record(self, changes: list[_Change]) -> None:
        for block, place, hashes in changes:
            if place is None:
                self._image.map_zero(block, len(hashes))
                self._zeroed_blocks += len(hashes)
            else:
                self._image.map_data(block, place, len(hashes))
            for i, known in enumerate(hashes):
                self._index.add(block + i, known)


def consecutive(
    numbers: list[int], kind: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[int, int]]:
    """Join ascending numbers of one kind into half-open ranges."""
    start = end = -1
    for number in numbers:
        if number == end and kind(number) == kind(start):
            end += 1
            continue
        if end > start:
            yield start, end
        start, end = number, number + 1
    if end > start:
        yield start, end
