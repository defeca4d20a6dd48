"""Reads a disk of a point through QEMU and holds every block against the index."""

from collections.abc import Callable, Iterator

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
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.copying import PIECE, ZERO_STEP, consecutive, zero_fingerprints
from vm_babysitter.ports import BlockIndex, DiskReader, Fingerprint

Sink = Callable[[int, memoryview], None]
"""Takes content that was found right: its offset and the data, zeros left out."""


class Mismatch(Exception):
    """A block is not what was backed up."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the content at byte {offset} is not what was backed up")
        self.offset = offset


class CheckedReading:
    """Reads a whole disk; each block that is right and not zero goes to a sink."""

    def __init__(
        self,
        reader: DiskReader,
        index: BlockIndex,
        fingerprint: Fingerprint,
        sink: Sink,
        cancel: Cancel,
    ) -> None:
        """``sink`` is called from several threads at once."""
        self._reader = reader
        self._index = index
        self._fingerprint = fingerprint
        self._sink = sink
        self._cancel = cancel
        self._zero = zero_fingerprints(fingerprint, reader.size)

    def run(self) -> None:
        """Read all of it.

        Raises:
            Mismatch: at the first wrong block that is met.
            Cancelled, and whatever reader, index and sink raise.
        """
        with self._cancel.interrupting(self._reader.abort):
            self._reader.read(self._work(), self._consume)

    def _work(self) -> Iterator[tuple[Piece, list[bytes]]]:
        for run in block_runs(all_dirty(self._reader.zero_map()), self._reader.size):
            self._cancel.check()
            if run.action is not Action.READ:
                self._check_zeros(run)
                continue
            for piece in pieces(run, self._reader.size, PIECE):
                first, count = piece.offset // BLOCK_SIZE, block_count(piece.length)
                yield piece, self._index.expected(first, count)

    def _check_zeros(self, run: BlockRun) -> None:
        for first in range(run.first, run.end, ZERO_STEP):
            known = self._index.expected(first, min(ZERO_STEP, run.end - first))
            for i, expected in enumerate(known):
                if expected != ZERO_HASH:
                    raise Mismatch((first + i) * BLOCK_SIZE)

    def _consume(self, piece: Piece, expected: list[bytes], data: memoryview) -> None:
        self._cancel.check()
        for i, known in enumerate(expected):
            block = data[i * BLOCK_SIZE : (i + 1) * BLOCK_SIZE]
            wanted = self._zero[len(block)] if known == ZERO_HASH else known
            if self._fingerprint(block) != wanted:
                raise Mismatch(piece.offset + i * BLOCK_SIZE)
        filled = [i for i, known in enumerate(expected) if known != ZERO_HASH]
        for start, end in consecutive(filled):
            offset = start * BLOCK_SIZE
            self._sink(piece.offset + offset, data[offset : end * BLOCK_SIZE])


def content_bytes(index: BlockIndex, size: int) -> int:
    """Return how many bytes of a disk are in blocks that are not zero, whole blocks counted."""
    total, blocks = 0, block_count(size)
    for first in range(0, blocks, ZERO_STEP):
        count = min(ZERO_STEP, blocks - first)
        total += count - index.expected(first, count).count(ZERO_HASH)
    return total * BLOCK_SIZE
