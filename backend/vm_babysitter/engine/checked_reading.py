"""Reads a disk of a point and holds every block against the index."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vm_babysitter.domain.blocks import (
    BLOCK_SIZE,
    ZERO_HASH,
    Action,
    BlockRun,
    Piece,
    all_dirty,
    block_count,
    block_runs,
    pieces,
)
from vm_babysitter.engine.copying import PIECE, ZERO_STEP, consecutive, zero_fingerprints
from vm_babysitter.engine.tools import ReadTools
from vm_babysitter.ports import BlockIndex, DiskReader


class Part(NamedTuple):
    """Consecutive blocks that were found right and are not zero."""

    block: int
    """The number of the first."""
    data: memoryview
    """Reused as soon as the sink returns."""
    hashes: list[bytes]


Sink = Callable[[int, list[Part]], None]
"""Takes what is right of a piece; pieces are numbered from 0 on, in the order of the disk."""


class _Work(NamedTuple):
    number: int
    expected: list[bytes]


class Mismatch(Exception):
    """A block is not what was backed up."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the content at byte {offset} is not what was backed up")
        self.offset = offset


class CheckedReading:
    """Reads a whole disk; each block that is right and not zero goes to a sink."""

    def __init__(self, reader: DiskReader, index: BlockIndex, sink: Sink, tools: ReadTools) -> None:
        """``sink`` is called from several threads at once, in any order of pieces."""
        self._reader = reader
        self._index = index
        self._fingerprint = tools.fingerprint
        self._sink = sink
        self._cancel = tools.cancel
        self._pace = tools.pace
        self._zero = zero_fingerprints(tools.fingerprint, reader.size)

    def run(self) -> None:
        """Read all of it.

        Raises:
            Mismatch: at the first wrong block that is met.
            Cancelled, and whatever reader, index and sink raise.
        """
        with self._cancel.interrupting(self._reader.abort):
            self._reader.read(self._work(), self._consume)

    def _work(self) -> Iterator[tuple[Piece, _Work]]:
        number = 0
        for run in block_runs(all_dirty(self._reader.zero_map()), self._reader.size):
            self._cancel.check()
            if run.action is not Action.READ:
                self._check_zeros(run)
                continue
            for piece in pieces(run, self._reader.size, PIECE):
                first, count = piece.offset // BLOCK_SIZE, block_count(piece.length)
                yield piece, _Work(number, self._index.expected(first, count))
                number += 1

    def _check_zeros(self, run: BlockRun) -> None:
        for first in range(run.first, run.end, ZERO_STEP):
            known = self._index.expected(first, min(ZERO_STEP, run.end - first))
            for i, expected in enumerate(known):
                if expected != ZERO_HASH:
                    raise Mismatch((first + i) * BLOCK_SIZE)

    def _consume(self, piece: Piece, work: _Work, data: memoryview) -> None:
        self._pace.take(piece.length)
        expected = work.expected
        for i, known in enumerate(expected):
            block = data[i * BLOCK_SIZE : (i + 1) * BLOCK_SIZE]
            wanted = self._zero[len(block)] if known == ZERO_HASH else known
            if self._fingerprint(block) != wanted:
                raise Mismatch(piece.offset + i * BLOCK_SIZE)
        filled = [i for i, known in enumerate(expected) if known != ZERO_HASH]
        first = piece.offset // BLOCK_SIZE
        parts = [
            Part(first + start, data[start * BLOCK_SIZE : end * BLOCK_SIZE], expected[start:end])
            for start, end in consecutive(filled)
        ]
        self._sink(work.number, parts)


def content_bytes(index: BlockIndex, size: int) -> int:
    """Return how many bytes of a disk are in blocks that are not zero, whole blocks counted."""
    total, blocks = 0, block_count(size)
    for first in range(0, blocks, ZERO_STEP):
        count = min(ZERO_STEP, blocks - first)
        total += count - index.expected(first, count).count(ZERO_HASH)
    return total * BLOCK_SIZE
