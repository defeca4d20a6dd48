"""The clusters of a qcow2 file that is being written: handed out, counted and hashed."""

from array import array
from pathlib import Path
from threading import Lock

from blake3 import blake3

from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.qcow2_format import (
    CLUSTER,
    REFCOUNTS,
    big_endian,
    refcount_clusters,
)
from vm_babysitter.adapters.store.files import NewFile
from vm_babysitter.domain.blocks import HASH_SIZE


class ClusterFile:
    """A new file of clusters, taken from front to end; cluster 0 is the header's.

    A cluster is *complete* when its content is final and its hash known. Those that wait for
    an earlier one are remembered with 16 bytes each. Refcounts are kept for the clusters that
    are not complete and at most 2 GiB of file before them; what is older lies in the file.

    Args:
        path: the file to create; it must not exist.

    Raises:
        StoreFailed: from every method, when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.lock = Lock()
        """Held by who calls ``take``, ``share`` or ``complete``."""
        self.clusters = 1
        """How many there are."""
        self._digest = blake3()
        self._complete = 1  # cluster up to which all are; the header is left aside
        self._waiting: dict[int, bytes] = {}  # hashes of later ones, by the first's number
        self._waiting_bytes = 0
        self._counts = array("H", (1,))  # beginning with the cluster that comes next
        self._counted = 0
        self._count_blocks = array("Q")  # where the refcount blocks of those before lie
        self._file = NewFile(path)

    @property
    def waiting(self) -> int:
        """How many complete clusters wait for the hash of an earlier one."""
        return self._waiting_bytes // HASH_SIZE

    def take(self, count: int, uses: int = 1) -> int:
        """Take clusters at the end, each used so often. Returns the number of the first."""
        place = self.clusters
        self.clusters += count
        self._counts.extend(array("H", (uses,)) * count)
        return place

    def share(self, first: int, last: int) -> None:
        """Count one more use of clusters that are not complete."""
        for cluster in range(first - self._counted, last - self._counted + 1):
            self._counts[cluster] += 1

    def complete(self, place: int, hashes: bytes) -> None:
        """Say that clusters from ``place`` have these hashes and are not used any further."""
        self._hash(place, hashes)
        while self._complete - self._counted >= REFCOUNTS:
            self._put_counts_away()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write at a byte of the file; for any thread, without the lock."""
        self._file.write(offset, data)

    def append(self, data: bytes) -> int:
        """Append clusters; takes the lock. The last one is filled up. Returns their place."""
        padded = data + bytes(-len(data) % CLUSTER)
        hashes = b"".join(fingerprints(padded))
        with self.lock:
            place = self.take(len(padded) // CLUSTER)
            self.complete(place, hashes)
        self.write(place * CLUSTER, padded)
        return place

    def append_counts(self) -> tuple[int, int]:
        """Append what is left of the refcounts, and their table; they count themselves too.

        Nothing can be taken or shared afterwards.

        Returns:
            Place and clusters of the table.
        """
        first = self.clusters
        blocks, table_clusters = refcount_clusters(first, len(self._count_blocks))
        self.take(blocks + table_clusters)
        self._count_blocks.extend(range(first * CLUSTER, (first + blocks) * CLUSTER, CLUSTER))
        counts = big_endian(self._counts).ljust(blocks * CLUSTER, b"\0")
        data = counts + big_endian(self._count_blocks).ljust(table_clusters * CLUSTER, b"\0")
        self._hash(first, b"".join(fingerprints(data)))
        self.write(first * CLUSTER, data)
        return first + blocks, table_clusters

    def finish(self, header: bytes) -> str:
        """Write the header, fsync and close. Returns the digest, as ``digest_file`` does."""
        if self._complete != self.clusters:
            raise ValueError(f"{self.clusters - self._complete} clusters are not complete")
        self.write(0, header)
        self._digest.update(fingerprint(header))
        self._file.sync_and_close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""
        self._file.discard()

    def _hash(self, place: int, hashes: bytes) -> None:
        """Feed the digest, which needs the hashes in the order of the clusters."""
        self._waiting[place] = hashes
        self._waiting_bytes += len(hashes)
        while (following := self._waiting.pop(self._complete, None)) is not None:
            self._waiting_bytes -= len(following)
            self._complete += len(following) // HASH_SIZE
            self._digest.update(following)

    def _put_counts_away(self) -> None:
        """Write the oldest refcount block: its clusters are complete, so it is final."""
        block = big_endian(self._counts[:REFCOUNTS])
        del self._counts[:REFCOUNTS]
        self._counted += REFCOUNTS
        place = self.take(1)
        self._count_blocks.append(place * CLUSTER)
        self._hash(place, fingerprint(block))
        self.write(place * CLUSTER, block)
