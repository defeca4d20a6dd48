"""Write one disk of a restore point as a qcow2 file.

The file is written from front to end and nothing in it twice: cluster 0 is the header and
comes last; data, L2 tables and refcount blocks follow in the order in which they are
complete; then L1 table, the last refcount blocks and their table.

No QEMU takes part, so the data is copied once and its hashes, known anyway, serve the digest
of the file too: it is never read again. The format is QEMU's docs/interop/qcow2.txt, version 3.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.compression import Compression
from vm_babysitter.adapters.qemu.qcow2_clusters import ClusterFile
from vm_babysitter.adapters.qemu.qcow2_data import BlockData, PackedData, PlainData
from vm_babysitter.adapters.qemu.qcow2_format import (
    CLUSTER,
    COPIED,
    READS_ZERO,
    SECTOR,
    TABLE_ENTRIES,
    ZERO_CLUSTER,
    Tables,
    big_endian,
    encode_backing,
    header,
)
from vm_babysitter.adapters.store.files import StoredFile
from vm_babysitter.domain.blocks import block_count
from vm_babysitter.ports import Passed, WrittenFile

_READ_SIZE = 16 * CLUSTER


class Qcow2Writer:
    """A qcow2 file of ``size`` bytes (virtual) that is being written; an ImageWriter.

    ``append`` is for any thread in any order, ``map_data`` and ``map_zero`` for one thread
    at a time in ascending order; both may go on side by side. Blocks appended together have
    consecutive *places*. Blocks that are never mapped read from the backing file, or as zero
    without one. Memory does not grow with the file but for the L1 table (64 KiB for 4 TiB) and
    that of refcounts (16 KiB for 4 TiB); one L2 table and some refcount blocks are held.

    Args:
        path: the file to create; it must not exist.
        size: bytes, a multiple of 512; 0 is allowed.
        backing: the backing file as it is to be written: relative to this file's folder.
        backing_format: its format; without it QEMU would guess, so it is required.
        compression: how to compress blocks that shrink; None for none.

    Raises:
        ValueError: for arguments that no correct caller passes.
        StoreFailed: from every method, when the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        backing: str | None = None,
        backing_format: str | None = None,
        compression: Compression | None = None,
    ) -> None:
        if size < 0 or size % SECTOR:
            raise ValueError(f"a virtual size of {size} bytes is not a multiple of {SECTOR}")
        self._size = size
        self._backing = encode_backing(backing, backing_format)
        self._compression = compression
        self._blocks = block_count(size)
        self._l1 = array("Q", bytes(8 * max(1, -(-self._blocks // TABLE_ENTRIES))))
        self._table = array("Q")
        self._table_index: int | None = None
        self._next_block = 0  # nothing below can be mapped any more
        self._mapped = 0
        self._file = ClusterFile(path)
        self._data: BlockData = (
            PackedData(self._file, compression) if compression else PlainData(self._file)
        )

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """Write consecutive blocks to the end of the file; see ImageWriter."""
        count, tail = len(hashes), len(data) % CLUSTER
        if not count or count != -(-len(data) // CLUSTER):
            raise ValueError(f"{count} hashes for {len(data)} bytes")
        if tail and tail != self._size % CLUSTER:
            raise ValueError(f"a block of {tail} bytes is not the last of {self._size} bytes")
        return self._data.append(data, hashes)

    def map_data(self, block: int, place: int, count: int) -> None:
        """Say where ``count`` blocks from ``block`` lie; see ImageWriter."""
        self._check_map(block, count)
        entries = self._data.entries(place, count)
        for done, slot, length in self._slots(block, count):
            self._table[slot : slot + length] = entries[done : done + length]
        self._mapped += count

    def map_zero(self, block: int, count: int) -> None:
        """Say that ``count`` blocks from ``block`` are zero; see ImageWriter."""
        self._check_map(block, count)
        for _done, slot, length in self._slots(block, count):
            self._table[slot : slot + length] = array("Q", (READS_ZERO,)) * length

    def finish(self) -> WrittenFile:
        """Write the metadata, fsync and close.

        Returns:
            The size of the file and its digest as ``digest_file`` would find it.

        Raises:
            ValueError: if a block was appended and not mapped, or mapped twice.
        """
        self._data.end()
        self._end_table()
        if self._mapped != self._data.blocks:
            raise ValueError(f"{self._data.blocks} blocks were written, {self._mapped} mapped")
        l1_place = self._file.append(big_endian(self._l1))
        tables = Tables(l1_place, len(self._l1), *self._file.append_counts())
        kind, name = 0, ""
        if self._compression:
            kind, name = self._compression.type, self._compression.name
        digest = self._file.finish(header(self._size, self._backing, kind, tables))
        return WrittenFile(self._file.clusters * CLUSTER, digest, name)

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""
        self._file.discard()

    def _check_map(self, block: int, count: int) -> None:
        if count < 1 or block < self._next_block or block + count > self._blocks:
            raise ValueError(
                f"blocks {block} to {block + count} do not follow {self._next_block}"
                f" or leave the disk of {self._blocks} blocks"
            )

    def _slots(self, block: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Cut a run of blocks at the borders of L2 tables, beginning each table in turn.

        Yields:
            How many blocks were passed, the entry in ``_table`` and how many entries.
        """
        self._next_block = block + count
        done = 0
        while done < count:
            index, slot = divmod(block + done, TABLE_ENTRIES)
            length = min(count - done, TABLE_ENTRIES - slot)
            if index != self._table_index:
                self._end_table()
                self._table_index, self._table = index, array("Q", ZERO_CLUSTER)
            yield done, slot, length
            done += length

    def _end_table(self) -> None:
        if self._table_index is not None:
            place = self._file.append(big_endian(self._table))
            self._l1[self._table_index] = COPIED | place * CLUSTER
            self._table_index = None


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
