"""The block index: what is written is read back, and what is damaged is refused."""

import os
import struct
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_babysitter.adapters.store.files import StoredFile
from vm_babysitter.adapters.store.index_file import IndexReader, IndexWriter
from vm_babysitter.adapters.store.merged_index import MergedIndex
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH, block_count
from vm_babysitter.domain.errors import Damaged, StoreFailed, UnsupportedFormat

Layer = tuple[int, dict[int, bytes]]
"""Virtual size and entries."""


def hash_of(number: int) -> bytes:
    return blake3(str(number).encode()).digest(length=16)


def write_index(path: Path, size: int, entries: dict[int, bytes]) -> str:
    writer = IndexWriter(path, size)
    for block, fingerprint in sorted(entries.items()):
        writer.add(block, fingerprint)
    written, count = writer.finish()
    assert count == len(entries)
    assert written.size == path.stat().st_size
    assert written.digest == blake3(path.read_bytes()).hexdigest()
    return written.digest


def sparse(count: int, gap: int) -> dict[int, bytes]:
    return {n * gap: hash_of(n) for n in range(count)}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "vda.index"
    return path, write_index(
        path, 9 * BLOCK_SIZE + 512, {0: hash_of(0), 3: ZERO_HASH, 9: hash_of(9)}
    )


def test_entries_come_back_as_written(small: tuple[Path, str]) -> None:
    with IndexReader(*small) as reader:
        assert (reader.size, reader.count) == (9 * BLOCK_SIZE + 512, 3)
        assert reader.entries(0, 10) == [(0, hash_of(0)), (3, ZERO_HASH), (9, hash_of(9))]
        assert reader.next_block() is None


def test_the_layout_on_disk_is_the_documented_one(small: tuple[Path, str]) -> None:
    expected = b"VMBINDEX" + struct.pack(">IIQ", 1, 65536, 9 * BLOCK_SIZE + 512)
    expected += struct.pack(">I16sI16sI16s", 0, hash_of(0), 3, bytes(16), 9, hash_of(9))
    assert small[0].read_bytes() == expected + struct.pack(">Q", 3)
    assert small[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, 512, 1 << 42])
def test_an_index_may_be_empty(tmp_path: Path, size: int) -> None:
    path = tmp_path / "i"
    with IndexReader(path, write_index(path, size, {})) as reader:
        assert reader.next_block() is None
        assert reader.entries(0, 1 << 26) == []
        assert MergedIndex([reader]).expected(0, 2) == [ZERO_HASH] * 2


def test_an_existing_file_is_never_overwritten(small: tuple[Path, str]) -> None:
    before = small[0].read_bytes()
    with pytest.raises(StoreFailed, match="exists"):
        IndexWriter(small[0], 512)
    assert small[0].read_bytes() == before


@pytest.mark.parametrize("blocks", [[1, 1], [2, 1], [10], [-1]])
def test_blocks_out_of_order_or_beyond_the_disk_are_refused(
    tmp_path: Path, blocks: list[int]
) -> None:
    writer = IndexWriter(tmp_path / "i", 10 * BLOCK_SIZE)
    for block in blocks[:-1]:
        writer.add(block, hash_of(block))
    with pytest.raises(ValueError, match="does not follow"):
        writer.add(blocks[-1], hash_of(0))
    writer.discard()
    writer.discard()


def test_a_disk_with_more_blocks_than_numbers_is_refused(tmp_path: Path) -> None:
    IndexWriter(tmp_path / "fits", BLOCK_SIZE << 32).discard()
    with pytest.raises(ValueError, match="cannot describe"):
        IndexWriter(tmp_path / "does not", (BLOCK_SIZE << 32) + 512)


def test_every_flipped_byte_and_every_truncation_is_noticed(small: tuple[Path, str]) -> None:
    path, digest = small
    good = path.read_bytes()
    bad = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(len(good))]
    bad += [good[:n] for n in range(len(good))] + [good + b"\0"]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"vda\.index"):
            IndexReader(path, digest)


def test_a_missing_index_is_damage_and_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=r"no such \{index\}.*missing"):
        IndexReader(tmp_path / "no such {index}", "00")


def header(magic: bytes = b"VMBINDEX", version: int = 1, block_size: int = 65536) -> bytes:
    return magic + struct.pack(">IIQ", version, block_size, 10 * BLOCK_SIZE)


def entries(*blocks: int) -> bytes:
    return b"".join(struct.pack(">I16s", b, hash_of(b)) for b in blocks)


def trailer(count: int) -> bytes:
    return struct.pack(">Q", count)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too short"),
        (header() + b"\0" * 7, "too short"),
        (header(magic=b"QFI\xfbINDX") + trailer(0), "not a block index"),
        (header(version=0) + trailer(0), "format 0"),
        (header(block_size=4096) + trailer(0), "4096"),
        (header() + entries(1, 2) + trailer(3), "counts 3"),
        (header() + entries(1, 2) + trailer(1), "counts 1"),
        (header() + entries(1, 2)[:-1] + trailer(2), "counts 2"),
        (header() + entries(2, 1) + trailer(2), "not in order"),
        (header() + entries(1, 1) + trailer(2), "not in order"),
        (header() + entries(1, 10) + trailer(2), "not in order"),
        (header() + entries(11, 9) + trailer(2), "not in order"),
    ],
)
def test_a_wrong_file_is_refused_though_its_digest_matches(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "i"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=reason):
        IndexReader(path, blake3(content).hexdigest())


def test_disorder_between_chunks_is_refused_before_it_is_used(tmp_path: Path) -> None:
    blocks = [*range(4096), 4000, *range(5000, 6000)]
    content = b"VMBINDEX" + struct.pack(">IIQ", 1, 65536, 1 << 40)
    content += entries(*blocks) + trailer(len(blocks))
    path = tmp_path / "i"
    path.write_bytes(content)
    with (
        IndexReader(path, blake3(content).hexdigest()) as reader,
        pytest.raises(Damaged, match="not in order"),
    ):
        reader.entries(0, 1 << 24)


def test_a_newer_format_is_told_apart_from_damage(tmp_path: Path) -> None:
    content = header(version=2) + b"whatever it will hold"
    path = tmp_path / "i"
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat) as caught:
        IndexReader(path, blake3(content).hexdigest())
    assert (caught.value.path, caught.value.found, caught.value.known) == (str(path), 2, 1)


def test_a_file_that_gets_shorter_while_it_is_read_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "i"
    digest = write_index(path, 1 << 40, sparse(20_000, 1))
    with IndexReader(path, digest) as reader:
        os.truncate(path, 1000)
        with pytest.raises(Damaged, match="ends at byte"):
            reader.entries(0, 20_000)


def test_asking_backwards_is_refused(small: tuple[Path, str]) -> None:
    with IndexReader(*small) as reader:
        reader.entries(0, 5)
        with pytest.raises(ValueError, match="passed"):
            reader.entries(4, 9)
    with IndexReader(*small) as reader:
        merged = MergedIndex([reader])
        merged.expected(2, 3)
        with pytest.raises(ValueError, match="passed"):
            merged.expected(4, 1)


@settings(max_examples=30, deadline=None)
@given(
    jumps=st.lists(
        st.tuples(st.sampled_from([0, 1, 50, 4096, 9_000, 70_000]), st.integers(0, 9000)),
        max_size=20,
    ),
    gap=st.sampled_from([1, 3, 7]),
)
def test_jumps_near_and_far_find_the_same_as_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, jumps: list[tuple[int, int]], gap: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"jump{gap}"
    content = sparse(30_000, gap)
    if not path.exists():
        write_index(path, 1 << 40, content)
    position = 0
    with IndexReader(path, blake3(path.read_bytes()).hexdigest()) as reader:
        for skip, length in jumps:
            first = position + skip
            position = first + length
            wanted = [(b, content[b]) for b in range(first, position) if b in content]
            assert reader.entries(first, position) == wanted


def test_a_jump_to_any_place_of_the_search_misses_no_entry(tmp_path: Path) -> None:
    """Probes and middles lie near multiples of 1024 entries: an off-by-one shows there."""
    path, count = tmp_path / "i", 36_000
    content = sparse(count, 2)
    digest = write_index(path, 1 << 40, content)
    targets = [near + d for near in range(4096, count, 1024) for d in range(-4, 5)]
    for target in targets:
        block = 2 * target
        with IndexReader(path, digest) as reader:
            asked = block - target % 2  # the block itself, or the gap before it
            assert reader.entries(asked, block + 1) == [(block, content[block])]
            assert reader.next_block() == block + 2


def test_a_far_jump_reads_little(tmp_path: Path) -> None:
    path, count = tmp_path / "i", 200_000
    digest = write_index(path, 1 << 42, sparse(count, 5))
    with IndexReader(path, digest) as reader:
        before = bytes_read()
        assert reader.entries(5 * (count - 1), 1 << 26) == [(5 * (count - 1), hash_of(count - 1))]
        assert bytes_read() - before < 100_000  # one chunk and some probes, not 4 MB


def bytes_read() -> int:
    """What this thread has asked of the kernel so far."""
    lines = Path("/proc/thread-self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def model(layers: list[Layer], block: int) -> bytes:
    """Walk one block down the layers, newest first, as a read through backing files does."""
    for size, content in layers:
        if block * BLOCK_SIZE >= size:
            return ZERO_HASH
        if block in content:
            return content[block]
    return ZERO_HASH


@st.composite
def chains(draw: st.DrawFn) -> list[Layer]:
    layers: list[Layer] = []
    for _ in range(draw(st.integers(0, 5))):
        size = draw(st.integers(0, 24)) * (BLOCK_SIZE // 2)
        blocks = draw(st.sets(st.integers(0, max(0, block_count(size) - 1))))
        content = {b: draw(hashes) for b in blocks if b < block_count(size)}
        layers.append((size, content))
    return layers


hashes = st.one_of(st.just(ZERO_HASH), st.integers(0, 1 << 30).map(hash_of))


@settings(max_examples=80, deadline=None)
@given(layers=chains(), steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6))))
def test_merged_layers_answer_as_backing_files_do(
    tmp_path_factory: pytest.TempPathFactory,
    layers: list[Layer],
    steps: list[tuple[int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    with ExitStack() as stack:
        readers = []
        for age, (size, content) in enumerate(layers):
            digest = write_index(folder / str(age), size, content)
            readers.append(stack.enter_context(IndexReader(folder / str(age), digest)))
        merged = MergedIndex(readers)
        position = 0
        for skip, count in [*steps, (0, 16)]:
            first = position + skip
            position = first + count
            assert merged.expected(first, count) == [
                model(layers, block) for block in range(first, position)
            ]


def test_a_disk_that_shrank_and_grew_back_is_zero_there(tmp_path: Path) -> None:
    sizes = [8, 4, 8]  # newest first, in blocks
    contents: list[dict[int, bytes]] = [{7: hash_of(7)}, {}, {b: hash_of(b) for b in range(8)}]
    with ExitStack() as stack:
        readers = []
        for name, (size, content) in enumerate(zip(sizes, contents, strict=True)):
            digest = write_index(tmp_path / str(name), size * BLOCK_SIZE, content)
            readers.append(stack.enter_context(IndexReader(tmp_path / str(name), digest)))
        assert MergedIndex(readers).expected(0, 8) == [
            *(hash_of(b) for b in range(4)),
            *[ZERO_HASH] * 3,
            hash_of(7),
        ]


def test_a_long_chain_is_merged_over_many_chunks(tmp_path: Path) -> None:
    layers: list[Layer] = [
        (1 << 34, {b: hash_of(b * age) for b in range(age, 30_000, 3 + 7 * age)})
        for age in range(1, 9)
    ]
    with ExitStack() as stack:
        readers = []
        for age, (size, content) in enumerate(layers):
            digest = write_index(tmp_path / str(age), size, content)
            readers.append(stack.enter_context(IndexReader(tmp_path / str(age), digest)))
        merged = MergedIndex(readers)
        steps = [16] * 1800 + [1200]
        starts = accumulate(steps, initial=0)
        found = [merged.expected(first, n) for first, n in zip(starts, steps, strict=False)]
    assert [h for part in found for h in part] == [model(layers, b) for b in range(30_000)]


def test_closing_twice_is_harmless(small: tuple[Path, str]) -> None:
    file = StoredFile(small[0])
    file.close()
    file.close()
