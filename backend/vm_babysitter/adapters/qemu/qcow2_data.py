"""The disk's blocks in a qcow2 file: each in a cluster of its own, or compressed and packed."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.compression import Compression
from vm_babysitter.adapters.qemu.qcow2_clusters import ClusterFile
from vm_babysitter.adapters.qemu.qcow2_format import (
    CLUSTER,
    COPIED,
    ZERO_CLUSTER,
    compressed_entry,
)
from vm_babysitter.domain.blocks import ZERO_HASH

WORTH_IT = CLUSTER - CLUSTER // 16
"""A block that does not shrink to this many bytes is stored as it is."""
MOST_WAITING = 1024
"""Complete clusters that may wait for the one being packed: then it is closed half full."""
_ZERO_CLUSTER_HASH = fingerprint(ZERO_CLUSTER)


class BlockData(Protocol):
    """Where the blocks of an image go. ``append`` is for any thread."""

    blocks: int
    """How many there are."""

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """Write blocks, the last one possibly short. Returns the place of the first."""

    def entries(self, place: int, count: int) -> "array[int]":
        """Return the L2 entries of blocks from ``place``. Raises ValueError."""

    def end(self) -> None:
        """Write what is held back; no block comes any more."""


class PlainData:
    """Each block in a cluster of its own; a place is its number."""

    def __init__(self, file: ClusterFile) -> None:
        self.blocks = 0
        self._file = file

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """See BlockData."""
        tail = len(data) % CLUSTER
        padding = ZERO_CLUSTER[tail:] if tail else b""
        joined = b"".join(_cluster_hashes(data, hashes, padding))
        with self._file.lock:
            place = self._file.take(len(hashes))
            self._file.complete(place, joined)
            self.blocks += len(hashes)
        self._file.write(place * CLUSTER, data)
        if padding:
            self._file.write(place * CLUSTER + len(data), padding)
        return place

    def entries(self, place: int, count: int) -> "array[int]":
        """See BlockData."""
        if not 1 <= place <= place + count <= self._file.clusters:
            raise ValueError(f"places {place} to {place + count} were not written")
        start = COPIED | place * CLUSTER
        return array("Q", range(start, start + count * CLUSTER, CLUSTER))

    def end(self) -> None:
        """See BlockData."""


class PackedData:
    """Blocks that shrink lie back to back, the others in clusters of their own.

    A place is a block's number in the order of appending. What is known of it is forgotten
    when its entry was asked for.
    """

    def __init__(self, file: ClusterFile, compression: Compression) -> None:
        self.blocks = 0
        self._file = file
        self._compression = compression
        self._packer = _Packer(file)
        self._entries: dict[int, int] = {}

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """See BlockData. Compresses in the calling thread."""
        tail = len(data) % CLUSTER
        padding = ZERO_CLUSTER[tail:] if tail else b""
        hashes = _cluster_hashes(data, hashes, padding)
        if padding:
            data = memoryview(bytes(data) + padding)
        packed: dict[int, bytes] = {}
        plain: list[int] = []
        for number in range(len(hashes)):
            block = self._compression.compress(data[number * CLUSTER : (number + 1) * CLUSTER])
            if len(block) <= WORTH_IT:
                packed[number] = block
            else:
                plain.append(number)
        with self._file.lock:
            place = self.blocks
            self.blocks += len(hashes)
            entries = zip(packed, self._packer.add(list(packed.values())), strict=True)
            self._entries.update((place + number, entry) for number, entry in entries)
            start = self._take(place, plain, hashes) * CLUSTER
            ready = self._packer.ready()
        self._write(ready)
        for offset, piece in _cut(data, plain, start):
            self._file.write(offset, piece)
        return place

    def entries(self, place: int, count: int) -> "array[int]":
        """See BlockData."""
        wanted = range(place, place + count)
        with self._file.lock:
            if any(number not in self._entries for number in wanted):
                raise ValueError(f"places {place} to {place + count} were not written")
            return array("Q", [self._entries.pop(number) for number in wanted])

    def end(self) -> None:
        """See BlockData."""
        with self._file.lock:
            self._packer.close()
            ready = self._packer.ready()
        self._write(ready)

    def _write(self, ready: Iterable[tuple[int, bytes]]) -> None:
        for offset, piece in ready:
            self._file.write(offset, piece)

    def _take(self, place: int, plain: Sequence[int], hashes: Sequence[bytes]) -> int:
        """Take clusters for the blocks that do not shrink; returns the first's number."""
        first = self._file.take(len(plain))
        if plain:
            self._file.complete(first, b"".join(hashes[number] for number in plain))
        for cluster, number in enumerate(plain, first):
            self._entries[place + number] = COPIED | cluster * CLUSTER
        if self._file.waiting > MOST_WAITING:
            self._packer.close()
        return first


class _Packer:
    """Lays compressed blocks back to back in clusters that lie one behind the other.

    The last cluster is held in memory until it is full. It can only be gone beyond while it is
    the last of the file; else what does not fit goes to new clusters at the end of the file,
    and the rest of this one stays zero. To be used under the file's lock.
    """

    def __init__(self, file: ClusterFile) -> None:
        self._file = file
        self._open = bytearray()  # from the beginning of a cluster
        self._start = self._end = 0  # bytes of the file: of that, and of the clusters taken
        self._ready: list[tuple[int, bytes]] = []

    def add(self, items: Sequence[bytes]) -> list[int]:
        """Find a place for each; returns their L2 entries."""
        missing = sum(map(len, items)) - self._room
        if missing > 0 and self._end == self._file.clusters * CLUSTER:
            self._grow(missing)
        entries, late = [0] * len(items), []
        for number, item in enumerate(items):
            if len(item) <= self._room:
                entries[number] = self._put(item)
            else:
                late.append(number)
        if late:
            self.close()
            self._start = self._end = self._file.clusters * CLUSTER
            self._grow(sum(len(items[number]) for number in late))
            for number in late:
                entries[number] = self._put(items[number])
        self._settle()
        return entries

    def close(self) -> None:
        """Leave the rest of the open cluster zero and go on elsewhere."""
        self._open += bytes(-len(self._open) % CLUSTER)
        self._settle()
        self._start = self._end = 0

    def ready(self) -> list[tuple[int, bytes]]:
        """Return what is to be written now: offsets and data of whole clusters."""
        ready, self._ready = self._ready, []
        return ready

    @property
    def _room(self) -> int:
        return self._end - self._start - len(self._open)

    def _grow(self, missing: int) -> None:
        clusters = -(-missing // CLUSTER)
        self._file.take(clusters, uses=0)
        self._end += clusters * CLUSTER

    def _put(self, item: bytes) -> int:
        start = self._start + len(self._open)
        self._open += item
        self._file.share(start // CLUSTER, (start + len(item) - 1) // CLUSTER)
        return compressed_entry(start, len(item))

    def _settle(self) -> None:
        """Hand out the clusters that are full."""
        full = len(self._open) // CLUSTER * CLUSTER
        if full:
            data = bytes(self._open[:full])
            del self._open[:full]
            self._ready.append((self._start, data))
            self._file.complete(self._start // CLUSTER, b"".join(fingerprints(data)))
            self._start += full


def _cut(data: memoryview, numbers: Sequence[int], start: int) -> Iterator[tuple[int, memoryview]]:
    """Yield these blocks, neighbours as one piece, with offsets of the file from ``start``."""
    first = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            piece = data[numbers[first] * CLUSTER : (numbers[end - 1] + 1) * CLUSTER]
            yield start + first * CLUSTER, piece
            first = end


def _cluster_hashes(data: memoryview, hashes: Sequence[bytes], padding: bytes) -> Sequence[bytes]:
    """Turn the fingerprints of blocks into those of the clusters that hold them."""
    if not padding and ZERO_HASH not in hashes:
        return hashes
    found = [_ZERO_CLUSTER_HASH if h == ZERO_HASH else h for h in hashes]
    if padding:
        last = bytes(data[(len(hashes) - 1) * CLUSTER :])
        found[-1] = fingerprint(last + padding)
    return found
