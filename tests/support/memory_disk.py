"""Disks, layers and indexes in memory, byte by byte: the model that copying is held against."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TypeVar, cast

from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.store.index_file import IndexReader
from vm_babysitter.adapters.store.merged_index import MergedIndex
from vm_babysitter.domain.blocks import (
    BLOCK_SIZE,
    ZERO_HASH,
    Flagged,
    Piece,
    block_count,
    block_length,
)
from vm_babysitter.domain.errors import ConnectionLost
from vm_babysitter.ports import WrittenFile

P = TypeVar("P")
_IN_FLIGHT = 3


def flagged(size: int, ranges: Iterable[tuple[int, int]]) -> list[Flagged]:
    """Return a map of a disk in which these byte ranges are flagged; they may overlap."""
    edges = {0, size}
    spans = [(max(0, a), min(b, size)) for a, b in ranges]
    spans = [(a, b) for a, b in spans if a < b]
    edges.update(edge for span in spans for edge in span)
    ordered = sorted(edges)
    return [
        Flagged(a, b, any(start <= a < end for start, end in spans)) for a, b in pairwise(ordered)
    ]


def blocks_of(content: bytes | bytearray) -> list[bytes]:
    """Return the fingerprints of a disk's blocks; ZERO_HASH for those that are zero."""
    cut = [bytes(content[i : i + BLOCK_SIZE]) for i in range(0, len(content), BLOCK_SIZE)]
    return [fingerprint(block) if any(block) else ZERO_HASH for block in cut]


class MemoryReader:
    """Implements ``ports.DiskReader``; reads out of order and spoils the memory it handed out."""

    def __init__(
        self,
        content: bytes | bytearray,
        zeros: Sequence[Flagged] | None = None,
        dirty: Sequence[Flagged] | None = None,
        threads: int = 1,
    ) -> None:
        """Without ``zeros`` nothing is known to be zero, without ``dirty`` there is no bitmap."""
        self._content = bytes(content)
        self._zeros = flagged(self.size, ()) if zeros is None else zeros
        self._dirty = dirty
        self._threads = threads
        self._aborted = False
        self.seen: list[Piece] = []
        """What was read."""

    @property
    def size(self) -> int:
        return len(self._content)

    def zero_map(self) -> Iterator[Flagged]:
        return iter(self._zeros)

    def dirty_map(self) -> Iterator[Flagged]:
        assert self._dirty is not None, "nobody may ask for a bitmap that was not opened"
        return iter(self._dirty)

    def abort(self) -> None:
        self._aborted = True

    def read(
        self, pieces: Iterable[tuple[Piece, P]], consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        def one(work: tuple[Piece, P]) -> None:
            piece, tag = work
            if self._aborted:
                raise ConnectionLost("memory", "it was aborted")
            memory = bytearray(self._content[piece.offset : piece.offset + piece.length])
            assert len(memory) == piece.length > 0
            consume(piece, tag, memoryview(memory))
            memory[:] = b"\xee" * len(memory)

        source = iter(pieces)
        with ThreadPoolExecutor(self._threads) as pool:
            while batch := list(islice(source, _IN_FLIGHT)):
                self.seen += [piece for piece, _ in batch]
                run = map if self._threads == 1 else pool.map
                list(run(one, reversed(batch)))


@dataclass
class MemoryLayer:
    """One image with its index: implements ``ports.ImageWriter`` and ``ports.IndexWriter``."""

    size: int
    blocks: dict[int, bytes | None] = field(default_factory=dict)
    """Data by block; None for a block that is zero whatever lies beneath."""
    entries: dict[int, bytes] = field(default_factory=dict)
    _appended: list[bytes] = field(default_factory=list)
    _last: int = -1

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        cut = [bytes(data[i : i + BLOCK_SIZE]) for i in range(0, len(data), BLOCK_SIZE)]
        assert [fingerprint(block) for block in cut] == list(hashes)
        place = len(self._appended)  # of one thread at a time, as these tests run it
        self._appended += cut
        return place

    def map_data(self, block: int, place: int, count: int) -> None:
        for i in range(count):
            self._map(block + i, self._appended[place + i])

    def map_zero(self, block: int, count: int) -> None:
        for i in range(count):
            self._map(block + i, None)

    def add(self, block: int, fingerprint: bytes) -> None:
        assert block > max(self.entries, default=-1)
        self.entries[block] = fingerprint

    def finish(self) -> WrittenFile:
        return WrittenFile(0, "")

    def discard(self) -> None:
        pass

    def _map(self, block: int, data: bytes | None) -> None:
        assert self._last < block < block_count(self.size)
        assert data is None or len(data) == block_length(block, self.size)
        self._last = block
        self.blocks[block] = data


class MemoryIndexWriter:
    """Implements ``ports.IndexWriter`` on a layer."""

    def __init__(self, layer: MemoryLayer) -> None:
        self._layer = layer

    def add(self, block: int, fingerprint: bytes) -> None:
        self._layer.add(block, fingerprint)

    def finish(self) -> tuple[WrittenFile, int]:
        return WrittenFile(0, ""), len(self._layer.entries)

    def discard(self) -> None:
        pass


class _Entries:
    """What MergedIndex asks of an IndexReader, on a layer in memory."""

    def __init__(self, layer: MemoryLayer) -> None:
        self.size = layer.size
        self._left = sorted(layer.entries.items())

    def next_block(self) -> int | None:
        return self._left[0][0] if self._left else None

    def entries(self, first: int, end: int) -> list[tuple[int, bytes]]:
        found = [entry for entry in self._left if first <= entry[0] < end]
        self._left = [entry for entry in self._left if entry[0] >= end]
        return found


def merged(layers: Sequence[MemoryLayer]) -> MergedIndex:
    """Open the real merged index over layers, the newest first."""
    return MergedIndex([cast(IndexReader, _Entries(layer)) for layer in layers])


def content_of(layers: Sequence[MemoryLayer]) -> bytes:
    """Return what a disk holds, by the rules of backing files; the newest layer first."""
    content = b""
    for layer in reversed(layers):
        changed = bytearray(content[: layer.size].ljust(layer.size, b"\0"))
        for block, data in layer.blocks.items():
            start, length = block * BLOCK_SIZE, block_length(block, layer.size)
            changed[start : start + length] = bytes(length) if data is None else data
        content = bytes(changed)
    return content
