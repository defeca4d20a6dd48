"""How compressed blocks are packed into clusters, whatever they shrink to.

A make-believe compression keeps as many bytes of a block as its first four tell, so every
length is met; the file is read by the format's specification, without QEMU.
"""

import struct
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.layers import content
from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.qcow2_clusters import ClusterFile
from vm_babysitter.adapters.qemu.qcow2_data import WORTH_IT, PackedData
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER, COPIED, REFCOUNTS
from vm_babysitter.adapters.qemu.qcow2_writer import digest_file

_COMPRESSED = 1 << 62


class Keep:
    """Implements Compression."""

    name = "keep"
    type = 1

    def compress(self, cluster: memoryview) -> bytes:
        """Keep the beginning."""
        (length,) = struct.unpack_from(">I", cluster)
        return bytes(cluster[:length])


def block(seed: int, length: int) -> bytes:
    """Return a block that shrinks to this length."""
    return struct.pack(">I", length) + content(seed)[4:]


class Packed:
    """A file in which blocks are packed, and what should be where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = ClusterFile(path)
        self.data = PackedData(self.file, Keep())
        self.blocks: list[bytes] = []
        self.tables = 0

    def append(self, lengths: Sequence[int]) -> None:
        """Append blocks at once."""
        new = [block(len(self.blocks) + n, length) for n, length in enumerate(lengths)]
        joined = b"".join(new)
        place = self.data.append(memoryview(joined), list(fingerprints(joined)))
        assert place == len(self.blocks)
        self.blocks += new

    def table(self) -> None:
        """Append a cluster of something else."""
        self.file.append(b"table")
        self.tables += 1

    def check(self) -> None:
        """End the file; everything is where its entry says, and counted as often as used."""
        self.data.end()
        uses = dict.fromkeys([0], 1)
        others = self.file.clusters
        entries = self.data.entries(0, len(self.blocks))
        (place, _clusters) = self.file.append_counts()
        assert self.file.finish(bytes(CLUSTER)) == digest_file(self.path)
        image = self.path.read_bytes()
        assert len(image) == self.file.clusters * CLUSTER
        ranges: list[tuple[int, int]] = []
        for data, entry in zip(self.blocks, entries, strict=True):
            start, end, stored = _extent(data, entry)
            assert image[start : start + len(stored)] == stored
            ranges.append((start, start + len(stored)))
            for cluster in range(start // CLUSTER, (end - 1) // CLUSTER + 1):
                uses[cluster] = uses.get(cluster, 0) + 1
        ranges.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
        (counts,) = struct.unpack_from(">Q", image, place * CLUSTER)
        found = struct.unpack_from(f">{self.file.clusters}H", image, counts)
        unnamed = [n for n in range(others) if n not in uses]
        assert len(unnamed) == self.tables
        assert [found[n] for n in range(others) if n in uses] == [uses[n] for n in sorted(uses)]
        assert {found[n] for n in (*unnamed, *range(others, self.file.clusters))} <= {1}


def _extent(data: bytes, entry: int) -> tuple[int, int, bytes]:
    """Return where an entry says that data lies, the last sector counted, and what is there."""
    (length,) = struct.unpack_from(">I", data)
    if entry & COPIED:
        assert length > WORTH_IT
        start = entry - COPIED
        assert start % CLUSTER == 0
        return start, start + CLUSTER, data
    assert length <= WORTH_IT
    assert entry & _COMPRESSED
    start, more = entry & (1 << 54) - 1, entry >> 54 & 0xFF
    end = (start // 512 + 1 + more) * 512
    assert 0 <= end - (start + length) < 512
    return start, end, data[:length]


lengths = st.one_of(
    st.sampled_from([4, 508, 511, 512, 513, 32768, WORTH_IT - 1, WORTH_IT, WORTH_IT + 1, CLUSTER]),
    st.integers(4, CLUSTER),
)
steps = st.lists(st.one_of(st.just([]), st.lists(lengths, min_size=1, max_size=6)), max_size=12)


@given(steps)
@example([[32768], [32768], [32768]])
@example([[32768], [32768], [], [4]])
@example([[60000], [], [6000, 512, 5024]])
@example([[60000, CLUSTER], [6000, 512, CLUSTER, 5024, 20]])
def test_blocks_lie_where_their_entries_say_and_clusters_count_them(
    pieces: list[list[int]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        packed = Packed(Path(name) / "file")
        for piece in pieces:
            if piece:
                packed.append(piece)
            else:
                packed.table()
        packed.check()


def test_a_cluster_that_is_full_to_the_last_byte_is_written_at_once(tmp_path: Path) -> None:
    packed = Packed(tmp_path / "file")
    packed.append([32768, 32768])
    assert packed.path.stat().st_size == 2 * CLUSTER
    packed.append([32768])
    assert packed.path.stat().st_size == 2 * CLUSTER
    packed.check()


def test_little_that_shrinks_between_much_that_does_not_keeps_few_digests_waiting(
    tmp_path: Path,
) -> None:
    packed = Packed(tmp_path / "file")
    packed.append([100])
    for _ in range(67):
        packed.append([CLUSTER] * 16)
        assert packed.file.waiting <= 1024
    assert packed.file.waiting < 100, "the open cluster was closed"
    packed.append([100])
    packed.check()


def test_blocks_among_others_that_do_not_shrink_waste_little(tmp_path: Path) -> None:
    packed = Packed(tmp_path / "file")
    for _ in range(60):
        packed.append([20000, CLUSTER] * 8)
    stored = 60 * 8 * (20000 + CLUSTER)
    assert packed.file.clusters * CLUSTER < stored * 1.03
    packed.check()


def test_refcounts_that_are_put_away_are_final(tmp_path: Path) -> None:
    """Around the end of the first refcount block, clusters are used ever more often."""
    file = ClusterFile(tmp_path / "file")
    file.complete(file.take(REFCOUNTS - 8), bytes(16 * (REFCOUNTS - 8)))
    first = file.take(16, uses=0)
    for cluster in range(16):
        for _ in range(cluster + 2):
            file.share(first + cluster, first + cluster)
        file.complete(first + cluster, bytes(16))
    table, _clusters = file.append_counts()
    file.finish(bytes(CLUSTER))
    image = (tmp_path / "file").read_bytes()
    found: list[int] = []
    for (place,) in struct.iter_unpack(">Q", image[table * CLUSTER : table * CLUSTER + 16]):
        found += struct.unpack_from(f">{REFCOUNTS}H", image, place)
    assert found[first : first + 16] == list(range(2, 18))
    assert set(found[:first] + found[first + 16 : file.clusters]) == {1}
    assert not any(found[file.clusters :])
