"""Write one disk of a restore point as a qcow2 file.

The file is written from front to end and nothing in it twice: cluster 0 is the header and
comes last; data and L2 tables follow in the order in which they arrive; then L1 table, refcount
blocks and refcount table. One cluster holds one block. Every cluster is used once (refcount 1).

No QEMU takes part, so the data is copied once and its hashes, known anyway, serve the digest
of the file too: it is never read again. The format is QEMU's docs/interop/qcow2.txt, version 3.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from blake3 import blake3

from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.store.files import NewFile, StoredFile
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH, block_count
from vm_babysitter.ports import Passed, WrittenFile

CLUSTER = BLOCK_SIZE
_CLUSTER_BITS = 16
_SECTOR = 512
_TABLE_ENTRIES = CLUSTER // 8
"""Entries of an L2 table: it maps 512 MiB."""
_REFCOUNTS = CLUSTER // 2
"""Entries of a refcount block: it counts 2 GiB of file."""
_COPIED = 1 << 63
"""The entry's cluster has refcount 1: QEMU may write to it in place."""
_READS_ZERO = 1
"""The cluster is zero whatever the backing file holds."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_BACKING_FORMAT = 0xE2792ACA
_LONGEST_BACKING = 1023
_ZERO_CLUSTER = bytes(CLUSTER)
_ZERO_CLUSTER_HASH = fingerprint(_ZERO_CLUSTER)
_READ_SIZE = 16 * CLUSTER


class Qcow2Writer:
    """A qcow2 file of ``size`` bytes (virtual) that is being written; an ImageWriter.

    ``append`` is for any thread in any order, ``map_data`` and ``map_zero`` for one thread
    at a time in ascending order; both may go on side by side. A *place* is a cluster number,
    so blocks appended together lie at consecutive places. Blocks that are never mapped read
    from the backing file, or as zero without one. Memory does not grow with the file: one L2
    table and the L1 table (64 KiB for 4 TiB) are held.

    Args:
        path: the file to create; it must not exist.
        size: bytes, a multiple of 512; 0 is allowed.
        backing: the backing file as it is to be written: relative to this file's folder.
        backing_format: its format; without it QEMU would guess, so it is required.

    Raises:
        ValueError: for arguments that no correct caller passes.
        StoreFailed: from every method, when the file cannot be written.
    """

    def __init__(
        self, path: Path, size: int, backing: str | None = None, backing_format: str | None = None
    ) -> None:
        if size < 0 or size % _SECTOR:
            raise ValueError(f"a virtual size of {size} bytes is not a multiple of {_SECTOR}")
        self._size = size
        self._backing = _encode_backing(backing, backing_format)
        self._blocks = block_count(size)
        self._l1 = array("Q", bytes(8 * max(1, -(-self._blocks // _TABLE_ENTRIES))))
        self._table = array("Q")
        self._table_index: int | None = None
        self._next_block = 0  # nothing below can be mapped any more
        self._mapped = 0
        self._lock = Lock()  # guards the three below
        self._digest = blake3()
        self._clusters = 1  # the header's
        self._appended = 0
        self._file = NewFile(path)

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """Write consecutive blocks to the end of the file; see ImageWriter."""
        count, tail = len(hashes), len(data) % CLUSTER
        if not count or count != -(-len(data) // CLUSTER):
            raise ValueError(f"{count} hashes for {len(data)} bytes")
        if tail and tail != self._size % CLUSTER:
            raise ValueError(f"a block of {tail} bytes is not the last of {self._size} bytes")
        padding = _ZERO_CLUSTER[tail:] if tail else b""
        cluster_hashes = _cluster_hashes(data, hashes, padding)
        with self._lock:
            place = self._allocate(cluster_hashes)
            self._appended += count
        self._file.write(place * CLUSTER, data)
        if padding:
            self._file.write(place * CLUSTER + len(data), padding)
        return place

    def map_data(self, block: int, place: int, count: int) -> None:
        """Say where ``count`` blocks from ``block`` lie; see ImageWriter."""
        if not 1 <= place <= place + count <= self._clusters:
            raise ValueError(f"places {place} to {place + count} were not written")
        for done, slot, length in self._slots(block, count):
            start = _COPIED | (place + done) * CLUSTER
            entries = array("Q", range(start, start + length * CLUSTER, CLUSTER))
            self._table[slot : slot + length] = entries
        self._mapped += count

    def map_zero(self, block: int, count: int) -> None:
        """Say that ``count`` blocks from ``block`` are zero; see ImageWriter."""
        for _done, slot, length in self._slots(block, count):
            self._table[slot : slot + length] = array("Q", (_READS_ZERO,)) * length

    def finish(self) -> WrittenFile:
        """Write the metadata, fsync and close.

        Returns:
            The size of the file and its digest as ``digest_file`` would find it.

        Raises:
            ValueError: if a block was appended and not mapped, or mapped twice.
        """
        self._end_table()
        if self._mapped != self._appended:
            raise ValueError(f"{self._appended} blocks were written, {self._mapped} mapped")
        l1_place = self._append_metadata(_big_endian(self._l1))
        table_place, table_clusters = self._append_refcounts()
        header = self._header(l1_place, table_place, table_clusters)
        self._file.write(0, header)
        self._digest.update(fingerprint(header))
        self._file.sync_and_close()
        return WrittenFile(self._clusters * CLUSTER, self._digest.hexdigest())

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""
        self._file.discard()

    def _allocate(self, cluster_hashes: Sequence[bytes]) -> int:
        """Take clusters at the end and feed the digest, which needs them in this order."""
        place = self._clusters
        self._clusters += len(cluster_hashes)
        self._digest.update(b"".join(cluster_hashes))
        return place

    def _append_metadata(self, data: bytes) -> int:
        """Append a table, filled up to whole clusters. Returns its place."""
        padded = data + bytes(-len(data) % CLUSTER)
        hashes = list(fingerprints(padded))
        with self._lock:
            place = self._allocate(hashes)
        self._file.write(place * CLUSTER, padded)
        return place

    def _slots(self, block: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Cut a run of blocks at the borders of L2 tables, beginning each table in turn.

        Yields:
            How many blocks were passed, the entry in ``_table`` and how many entries.
        """
        if count < 1 or block < self._next_block or block + count > self._blocks:
            raise ValueError(
                f"blocks {block} to {block + count} do not follow {self._next_block}"
                f" or leave the disk of {self._blocks} blocks"
            )
        self._next_block = block + count
        done = 0
        while done < count:
            index, slot = divmod(block + done, _TABLE_ENTRIES)
            length = min(count - done, _TABLE_ENTRIES - slot)
            if index != self._table_index:
                self._end_table()
                self._table_index, self._table = index, array("Q", _ZERO_CLUSTER)
            yield done, slot, length
            done += length

    def _end_table(self) -> None:
        if self._table_index is not None:
            place = self._append_metadata(_big_endian(self._table))
            self._l1[self._table_index] = _COPIED | place * CLUSTER
            self._table_index = None

    def _append_refcounts(self) -> tuple[int, int]:
        """Append refcount blocks and table; they count themselves too.

        Returns:
            Place and clusters of the table.
        """
        first = self._clusters
        blocks, table_clusters = refcount_clusters(first)
        total = first + blocks + table_clusters
        for start in range(0, blocks * _REFCOUNTS, _REFCOUNTS):
            self._append_metadata(b"\0\1" * min(_REFCOUNTS, total - start))
        table = array("Q", range(first * CLUSTER, (first + blocks) * CLUSTER, CLUSTER))
        return self._append_metadata(_big_endian(table)), table_clusters

    def _header(self, l1_place: int, table_place: int, table_clusters: int) -> bytes:
        extensions, name = self._backing
        name_offset = _HEADER.size + len(extensions) if name else 0
        fixed = _HEADER.pack(
            b"QFI\xfb",
            3,
            name_offset,
            len(name),
            _CLUSTER_BITS,
            self._size,
            0,  # not encrypted
            len(self._l1),
            l1_place * CLUSTER,
            table_place * CLUSTER,
            table_clusters,
            0,  # no snapshots
            0,
            0,  # no features: incompatible,
            0,  # compatible,
            0,  # autoclear
            4,  # refcounts of 1 << 4 bits
            _HEADER.size,
        )
        return (fixed + extensions + name).ljust(CLUSTER, b"\0")


def digest_file(path: Path, passed: Passed = lambda _: None) -> str:
    """Compute the digest of a data file by reading it; the page cache is spared.

    The digest is BLAKE3 over the fingerprints of the clusters 1, 2, ... and then 0, because
    the header is known last. The last cluster counts as long as it is.

    Returns:
        64 lower-case hex digits.

    Raises:
        Damaged: if the file is missing or gets shorter meanwhile.
        StoreFailed: if it cannot be read.
    """
    digest, header_hash = blake3(), b""
    buffer = memoryview(bytearray(_READ_SIZE))
    with StoredFile(path) as file:
        for offset in range(0, file.size, _READ_SIZE):
            part = buffer[: min(_READ_SIZE, file.size - offset)]
            file.read_into(offset, part)
            hashes = list(fingerprints(part))
            if offset == 0:
                header_hash = hashes.pop(0)
            digest.update(b"".join(hashes))
            file.forget(offset, len(part))
            passed(len(part))
    digest.update(header_hash)
    return digest.hexdigest()


def _encode_backing(backing: str | None, backing_format: str | None) -> tuple[bytes, bytes]:
    """Return the header extensions and the name of the backing file as stored."""
    end = bytes(8)
    if backing is None and backing_format is None:
        return end, b""
    if not backing or not backing_format:
        raise ValueError("a backing file needs its format, and a format its file")
    name, kind = os.fsencode(backing), backing_format.encode("ascii")
    if len(name) > _LONGEST_BACKING:
        raise ValueError(f"the backing file's name is longer than {_LONGEST_BACKING} bytes")
    padded = kind + bytes(-len(kind) % 8)
    return struct.pack(">II", _BACKING_FORMAT, len(kind)) + padded + end, name


def _cluster_hashes(data: memoryview, hashes: Sequence[bytes], padding: bytes) -> Sequence[bytes]:
    """Turn the fingerprints of blocks into those of the clusters that hold them."""
    if not padding and ZERO_HASH not in hashes:
        return hashes
    found = [_ZERO_CLUSTER_HASH if h == ZERO_HASH else h for h in hashes]
    if padding:
        last = bytes(data[(len(hashes) - 1) * CLUSTER :])
        found[-1] = fingerprint(last + padding)
    return found


def refcount_clusters(others: int) -> tuple[int, int]:
    """Return how many refcount blocks and table clusters ``others`` and they themselves need."""
    blocks = table = 0
    while True:
        total = others + blocks + table
        wanted = -(-total // _REFCOUNTS)
        wanted_table = -(-wanted // _TABLE_ENTRIES)
        if (wanted, wanted_table) == (blocks, table):
            return blocks, table
        blocks, table = wanted, wanted_table


def _big_endian(entries: "array[int]") -> bytes:
    if sys.byteorder == "little":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()
