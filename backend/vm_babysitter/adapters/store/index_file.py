"""The block index: which blocks a restore point holds of a disk, with their fingerprints.

Format 1, all numbers big-endian::

    header    24 bytes   "VMBINDEX", format u32, block size u32, virtual size u64 (bytes)
    entries   20 bytes   block number u32, fingerprint 16 bytes (all zero: the block is zero)
    trailer    8 bytes   number of entries u64

Entries ascend by block number, each number once. The count is at the end so that the digest
of the file (BLAKE3 of all of it) is known as soon as it is written.
"""

import struct
import sys
from array import array
from bisect import bisect_left
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Self

from blake3 import blake3

from vm_babysitter.adapters.store.files import NewFile, StoredFile
from vm_babysitter.domain.blocks import BLOCK_SIZE, HASH_SIZE, block_count
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat
from vm_babysitter.ports import WrittenFile

FORMAT = 1
_MAGIC = b"VMBINDEX"
_HEADER = struct.Struct(">8sIIQ")
_ENTRY = struct.Struct(">I16s")
_TRAILER = struct.Struct(">Q")
_FRAME = _HEADER.size + _TRAILER.size
_NUMBER_SIZE = _ENTRY.size - HASH_SIZE
_WORDS = _ENTRY.size // _NUMBER_SIZE
_MOST_BLOCKS = 1 << 32
_FLUSH = 1 << 20
_CHUNK = 4096
"""Entries that a reader holds: 80 KiB, times up to 150 layers."""
_DIGEST_CHUNK = _ENTRY.size << 16


def index_size(entries: int) -> int:
    """Return the bytes of an index with so many entries."""
    return _FRAME + entries * _ENTRY.size


class IndexWriter:
    """The index of a disk of ``size`` bytes, being written.

    Raises:
        ValueError: if the disk has more blocks than the format can number (256 TiB).
        StoreFailed: from every method, when the file cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._blocks = block_count(size)
        if not 0 <= self._blocks <= _MOST_BLOCKS:
            raise ValueError(f"an index cannot describe a disk of {size} bytes")
        self._digest = blake3()
        self._written = 0
        self._count = 0
        self._next = 0
        self._buffer = bytearray(_HEADER.pack(_MAGIC, FORMAT, BLOCK_SIZE, size))
        self._file = NewFile(path)

    def add(self, block: int, fingerprint: bytes) -> None:
        """Add one block; blocks must ascend.

        Raises:
            ValueError: if ``block`` does not ascend or lies beyond the disk.
        """
        if not self._next <= block < self._blocks or len(fingerprint) != HASH_SIZE:
            raise ValueError(f"block {block} does not follow {self._next - 1} on this disk")
        self._next = block + 1
        self._count += 1
        self._buffer += _ENTRY.pack(block, fingerprint)
        if len(self._buffer) >= _FLUSH:
            self._flush()

    def finish(self) -> tuple[WrittenFile, int]:
        """Complete the file, fsync and close it.

        Returns:
            Its size and digest (BLAKE3 of the whole file), and the number of entries.
        """
        self._buffer += _TRAILER.pack(self._count)
        self._flush()
        self._file.sync_and_close()
        return WrittenFile(self._written, self._digest.hexdigest()), self._count

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""
        self._file.discard()

    def _flush(self) -> None:
        self._file.write(self._written, self._buffer)
        self._digest.update(self._buffer)
        self._written += len(self._buffer)
        self._buffer.clear()


class IndexReader:
    """An index that was checked and is read once from front to end. A context manager.

    The whole file is read against its digest first: an index decides what is *not* stored,
    so nothing of a damaged one may be believed.

    Args:
        path: the index file.
        digest: its digest by the manifest, in lower-case hex.

    Raises:
        Damaged: from every method, if the file is missing or not what was written.
        UnsupportedFormat: if a newer version wrote it.
        StoreFailed: from every method, if it cannot be read.
    """

    size: int
    """Virtual size of the disk in bytes."""
    count: int
    """Number of entries."""

    def __init__(self, path: Path, digest: str) -> None:
        self._file = StoredFile(path)
        self._start = 0  # entry number of the first one held
        self._numbers = array("I")  # the block numbers held
        self._data = b""  # the entries held
        self._cursor = 0  # index of the next one within those held
        self._asked = 0
        try:
            self._check_digest(digest)
            self.size, self.count = self._check_frame()
            self._load(0)
        except BaseException:
            self._file.close()
            raise

    def next_block(self) -> int | None:
        """Return the block of the next entry not yet passed; None at the end."""
        if self._cursor < len(self._numbers):
            return self._numbers[self._cursor]
        return None

    def entries(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """Return the entries of blocks ``first`` to ``end`` (exclusive), and pass them.

        Raises:
            ValueError: if ``first`` lies before the end of an earlier call.
        """
        if first < self._asked:
            raise ValueError(f"block {first} was passed already")
        self._asked = max(first, end)
        self._seek(first)
        found: list[tuple[int, bytes]] = []
        while self._cursor < len(self._numbers) and self._numbers[self._cursor] < end:
            stop = bisect_left(self._numbers, end, self._cursor)
            held = self._data[self._cursor * _ENTRY.size : stop * _ENTRY.size]
            found.extend(_ENTRY.iter_unpack(held))
            self._cursor = stop
            if stop == len(self._numbers):
                self._load(self._start + stop)
        return found

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _check_digest(self, digest: str) -> None:
        found = blake3()
        buffer = memoryview(bytearray(min(_DIGEST_CHUNK, self._file.size)))
        for offset in range(0, self._file.size, _DIGEST_CHUNK):
            part = buffer[: self._file.size - offset]
            self._file.read_into(offset, part)
            found.update(part)
        if found.hexdigest() != digest:
            raise self._damaged("its content does not match its digest")

    def _check_frame(self) -> tuple[int, int]:
        body = self._file.size - _FRAME
        if body < 0:
            raise self._damaged("it is too short for a block index")
        magic, version, block_size, size = _HEADER.unpack(self._file.read(0, _HEADER.size))
        if magic != _MAGIC:
            raise self._damaged("it is not a block index")
        if version > FORMAT:
            raise UnsupportedFormat(str(self._file.path), version, FORMAT)
        if version < FORMAT or block_size != BLOCK_SIZE:
            raise self._damaged(f"it has format {version} and blocks of {block_size} bytes")
        trailer = self._file.read(_HEADER.size + body, _TRAILER.size)
        (count,) = _TRAILER.unpack(trailer)
        if count * _ENTRY.size != body:
            raise self._damaged(f"it has {body} bytes of entries, but counts {count} entries")
        return size, count

    def _seek(self, block: int) -> None:
        """Put the cursor at the first entry of ``block`` or later."""
        while self._numbers and self._numbers[-1] < block:
            self._load(self._find(block, self._start + len(self._numbers)))
        self._cursor = bisect_left(self._numbers, block, self._cursor)

    def _find(self, block: int, low: int) -> int:
        """Return an entry at or shortly before the first one of ``block`` or later.

        Gallops from entry ``low``, all before which are earlier, then halves: a far jump
        costs some reads of 4 bytes, the next chunk just one.
        """
        step = _CHUNK
        while low + step < self.count and self._number_at(low + step) < block:
            low, step = low + step + 1, step * 2
        high = min(low + step, self.count)
        while high - low >= _CHUNK:
            middle = (low + high) // 2
            if self._number_at(middle) < block:
                low = middle + 1
            else:
                high = middle
        return low

    def _number_at(self, entry: int) -> int:
        data = self._file.read(_HEADER.size + entry * _ENTRY.size, _NUMBER_SIZE)
        return int.from_bytes(data, "big")

    def _load(self, start: int) -> None:
        """Hold the entries from number ``start`` on; the cursor is at the first."""
        before = self._numbers[-1] if self._numbers else -1
        count = min(_CHUNK, self.count - start)
        offset = _HEADER.size + start * _ENTRY.size
        self._data = self._file.read(offset, count * _ENTRY.size)
        self._numbers = _block_numbers(self._data)
        self._start, self._cursor = start, 0
        if count and not (
            before < self._numbers[0]
            and self._numbers[-1] < block_count(self.size)
            and all(map(lt, self._numbers, islice(self._numbers, 1, None)))
        ):
            raise self._damaged(f"the entries from {start} on are not in order")

    def _damaged(self, reason: str) -> Damaged:
        return Damaged(str(self._file.path), reason)


def _block_numbers(entries: bytes) -> "array[int]":
    """Pick the block numbers out of entries, without a step of Python for each."""
    numbers = array("I", entries)[::_WORDS]
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
