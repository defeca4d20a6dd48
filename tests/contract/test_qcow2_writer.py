"""Our qcow2 files, judged by QEMU's own tools."""

import errno
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.failing import fail_at
from tests.support.layers import (
    Disk,
    Layer,
    assert_reads_like,
    content,
    filled,
    write_chain,
    write_layer,
)
from tests.support.memory import peak_memory
from tests.support.qemu_img import assert_clean, assert_same, image_map, info, named, run
from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER, refcount_clusters
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH, block_count, block_length
from vm_babysitter.domain.errors import Damaged, StoreFailed
from vm_babysitter.ports import ImageWriter, WrittenFile

MIB = 1 << 20
TIB = 1 << 40
TABLE = 8192
"""Blocks that one L2 table maps."""


near = [0, 1, 2, 3, 17, 18, TABLE - 1, TABLE, TABLE + 1, 2 * TABLE - 1, 2 * TABLE]
sizes = st.builds(
    lambda blocks, extra: max(0, blocks * BLOCK_SIZE + extra * 512),
    st.sampled_from([0, 1, 2, 5, 19, TABLE, TABLE + 2, 2 * TABLE + 3]),
    st.sampled_from([0, 0, 1, 7, -1]),
)


@st.composite
def layers(draw: st.DrawFn, *, full: bool) -> Layer:
    size = draw(sizes)
    inside = [b for b in near if b < block_count(size)]
    chosen = draw(st.sets(st.sampled_from(inside))) if inside else set()
    salt = draw(st.integers(0, 99))
    blocks: dict[int, bytes | None] = {
        b: None if not full and draw(st.booleans()) else content((salt, b), block_length(b, size))
        for b in sorted(chosen)
    }
    return Layer(size, blocks)


chains = st.builds(
    lambda full, increments: [full, *increments],
    layers(full=True),
    st.lists(layers(full=False), max_size=3),
)


@settings(max_examples=25, deadline=None)
@given(chains)
def test_any_chain_is_clean_and_reads_like_the_disk(chain: list[Layer]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, disk = write_chain(folder, chain)
        assert_reads_like(image, disk, folder)
        for file in folder.glob("*/vda.qcow2"):
            assert_clean(file)


@pytest.mark.parametrize(
    ("size", "blocks"),
    [
        (0, []),
        (512, []),
        (512, [0]),
        (BLOCK_SIZE - 512, [0]),
        (BLOCK_SIZE, [0]),
        (BLOCK_SIZE + 512, [0, 1]),
        (512 * MIB - 512, [0, TABLE - 2, TABLE - 1]),
        (512 * MIB, [TABLE - 1]),
        (512 * MIB + 512, [TABLE - 2, TABLE - 1, TABLE]),
        (4 * TIB, [0, 5, TABLE * 4096 - 1, TABLE * 4096, TABLE * 8192 - 1]),
        (4 * TIB + 512, [TABLE * 8192]),
    ],
)
def test_sizes_around_every_border_are_right(tmp_path: Path, size: int, blocks: list[int]) -> None:
    layer = filled(size, blocks)
    image, disk = write_chain(tmp_path, [layer])
    assert_reads_like(image, disk, tmp_path)
    assert info(image)["virtual-size"] == size


def test_a_chain_converts_to_what_the_disk_held(tmp_path: Path) -> None:
    size = 40 * BLOCK_SIZE + 1024
    chain = [
        filled(size, range(41), "full"),
        Layer(size, {**filled(size, [2, 3, 40], "inc").blocks, 7: None, 8: None}),
        Layer(size, {**filled(size, [8, 30], "inc2").blocks, 2: None, 40: None}),
    ]
    image, disk = write_chain(tmp_path, chain)
    disk.write_raw(tmp_path / "model.raw")
    run("qemu-img", "convert", "-O", "raw", named(image), tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == (tmp_path / "model.raw").read_bytes()


def test_the_map_shows_data_zeros_and_what_lies_beneath(tmp_path: Path) -> None:
    size = 8 * BLOCK_SIZE
    full = filled(size, [0, 1, 2, 3])
    increment = Layer(size, {1: content("new"), 2: None, 5: None})
    image, _disk = write_chain(tmp_path, [full, increment])
    by_block = {
        block: (entry["depth"], entry["data"], entry["zero"])
        for entry in image_map(image)
        for block in range(
            entry["start"] // BLOCK_SIZE, -(-(entry["start"] + entry["length"]) // BLOCK_SIZE)
        )
    }
    beneath, own, zero = (1, True, False), (0, True, False), (0, False, True)
    assert [by_block[b] for b in (0, 1, 2, 3, 5)] == [beneath, own, zero, beneath, zero]
    assert [by_block[b][1:] for b in (4, 6, 7)] == [(False, True)] * 3


def test_qemu_writes_into_our_file_without_damage(tmp_path: Path) -> None:
    """Wrong refcounts or flags would show when QEMU allocates and overwrites."""
    size = 600 * MIB
    layer = Layer(size, {**filled(size, [0, 1, 2, TABLE]).blocks, 5: None})
    image, disk = write_chain(tmp_path, [filled(size, range(8), "below"), layer])
    patched = {0: 0x11, 5: 0x22, 6: 0x33, TABLE: 0x44, TABLE + 9: 0x55}
    for block, pattern in patched.items():
        run("qemu-io", "-c", f"write -P {pattern} {block * BLOCK_SIZE} 64k", named(image))
        disk.blocks[block] = bytes([pattern]) * BLOCK_SIZE
    disk.write_raw(tmp_path / "model.raw")
    run("qemu-img", "check", named(image))
    assert_same(image, tmp_path / "model.raw")


def test_threads_may_append_in_any_order_while_maps_are_written(tmp_path: Path) -> None:
    size, piece = 160 * MIB, 16
    data = {b: content(b, piece * BLOCK_SIZE) for b in range(0, block_count(size), piece)}
    writer: ImageWriter = Qcow2Writer(tmp_path / "vda.qcow2", size, None, None)

    def append(block: int) -> int:
        return writer.append(memoryview(data[block]), list(fingerprints(data[block])))

    ready = {}
    with ThreadPoolExecutor(8) as pool:
        shuffled = random.Random(1).sample(sorted(data), len(data))
        futures = {block: pool.submit(append, block) for block in shuffled}
        for block in sorted(data):
            ready[block] = futures[block].result()
            writer.map_data(block, ready[block], piece)
    written = writer.finish()
    places = sorted(ready.values())
    assert [b - a for a, b in itertools.pairwise(places)] == [piece] * (len(places) - 1)
    assert written.digest == digest_file(tmp_path / "vda.qcow2")
    disk = Disk(
        size,
        {
            b + n: d[n * BLOCK_SIZE : (n + 1) * BLOCK_SIZE]
            for b, d in data.items()
            for n in range(piece)
        },
    )
    assert_reads_like(tmp_path / "vda.qcow2", disk, tmp_path)


@pytest.mark.parametrize(
    "name", ["a b", "quote'\"", "ünïcode ✓", "-n", "c:o,m=m\\a", "%s {x}", "json:{}"]
)
def test_paths_are_only_data(tmp_path: Path, name: str) -> None:
    size = 3 * BLOCK_SIZE
    layers = [filled(size, [0, 2]), filled(size, [1], "inc")]
    image, disk = write_chain(tmp_path / name, layers)
    assert_reads_like(image, disk, tmp_path)
    odd = tmp_path / name / "000002-inc" / f"{name}.qcow2"
    write_layer(odd, filled(size, [1], "x"), f"../{image.parent.name}/{image.name}")
    write_layer(odd.with_name("top"), filled(size, [2], "y"), f"../{odd.parent.name}/{odd.name}")
    disk.change(filled(size, [1], "x"))
    disk.change(filled(size, [2], "y"))
    assert_reads_like(odd.with_name("top"), disk, tmp_path)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    image, _disk = write_chain(tmp_path, [filled(MIB, [0]), filled(MIB, [1])])
    found = info(image)
    assert found["backing-filename"] == "../000000-full/vda.qcow2"
    assert found["backing-filename-format"] == "qcow2"
    assert found["cluster-size"] == CLUSTER
    specific = found["format-specific"]
    assert isinstance(specific, dict)
    assert specific["data"]["compat"] == "1.1"
    assert specific["data"]["refcount-bits"] == 16
    assert image.stat().st_mode & 0o777 == 0o600


def test_a_file_of_more_than_2_gib_counts_every_cluster() -> None:
    """A refcount block ends there; written in RAM, because only metadata is looked at."""
    count = 32768 + 64
    data = memoryview(content("piece", 16 * BLOCK_SIZE))
    hashes = list(fingerprints(data))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name) / "vda.qcow2"
        writer = Qcow2Writer(path, count * BLOCK_SIZE)
        for block in range(0, count, 16):
            writer.map_data(block, writer.append(data, hashes), 16)
        assert writer.finish().size == path.stat().st_size
        assert_clean(path)


@given(st.integers(1, 1 << 34))
def test_refcount_blocks_count_all_clusters_and_none_is_spare(others: int) -> None:
    blocks, table = refcount_clusters(others)
    total = others + blocks + table
    assert (blocks - 1) * 32768 < total <= blocks * 32768
    assert (table - 1) * 8192 < blocks <= table * 8192


@pytest.mark.parametrize("size", [-512, 1, 511, 513, BLOCK_SIZE + 1])
def test_a_size_of_broken_sectors_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 512"):
        Qcow2Writer(tmp_path / "i", size)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    ("backing", "kind"), [("a", None), (None, "qcow2"), ("", "qcow2"), ("a" * 1024, "qcow2")]
)
def test_a_backing_file_without_format_or_with_an_endless_name_is_refused(
    tmp_path: Path, backing: str | None, kind: str | None
) -> None:
    with pytest.raises(ValueError, match="backing file"):
        Qcow2Writer(tmp_path / "i", 512, backing, kind)
    assert not (tmp_path / "i").exists()


def test_an_existing_file_or_link_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("there", "link"):
        with pytest.raises(StoreFailed, match="exists"):
            Qcow2Writer(tmp_path / name, 512)
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Qcow2Writer]:
    """A disk of 9 blocks and a sector; two blocks lie at place 1."""
    writer = Qcow2Writer(tmp_path / "vda.qcow2", 9 * BLOCK_SIZE + 512)
    data = content("two", 2 * BLOCK_SIZE)
    assert writer.append(memoryview(data), list(fingerprints(data))) == 1
    yield writer
    writer.discard()


@pytest.mark.parametrize("block", [-1, 0, 3, 4, 9, 10])
def test_maps_out_of_order_or_beyond_the_disk_are_refused(writer: Qcow2Writer, block: int) -> None:
    writer.map_zero(2, 3)
    with pytest.raises(ValueError, match="do not follow"):
        writer.map_data(block, 1, 2)
    with pytest.raises(ValueError, match="do not follow"):
        writer.map_zero(block, 2)


@pytest.mark.parametrize("place", [0, -1, 2, 3])
def test_places_that_were_not_given_are_refused(writer: Qcow2Writer, place: int) -> None:
    with pytest.raises(ValueError, match="not written"):
        writer.map_data(0, place, 2)


def test_a_run_of_no_blocks_is_refused(writer: Qcow2Writer) -> None:
    with pytest.raises(ValueError, match="do not follow"):
        writer.map_data(0, 1, 0)
    with pytest.raises(ValueError, match="hashes"):
        writer.append(memoryview(b""), [])


@pytest.mark.parametrize(("length", "hashes"), [(BLOCK_SIZE, 2), (BLOCK_SIZE * 2, 1), (1024, 1)])
def test_data_that_does_not_fit_its_hashes_or_the_disk_is_refused(
    writer: Qcow2Writer, length: int, hashes: int
) -> None:
    with pytest.raises(ValueError, match=r"hashes for|not the last"):
        writer.append(memoryview(bytes(length)), [bytes(16)] * hashes)


def test_a_block_that_was_written_must_be_mapped_exactly_once(writer: Qcow2Writer) -> None:
    writer.map_data(0, 1, 1)
    with pytest.raises(ValueError, match="2 blocks were written, 1 mapped"):
        writer.finish()


def test_a_finished_or_discarded_writer_takes_nothing_more(writer: Qcow2Writer) -> None:
    writer.map_data(0, 1, 2)
    writer.finish()
    writer.discard()
    data = content("late")
    with pytest.raises(ValueError, match="closed"):
        writer.append(memoryview(data), [fingerprint(data)])


def test_a_zero_block_that_was_stored_keeps_the_digest_right(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    writer = Qcow2Writer(path, 2 * BLOCK_SIZE)
    data = bytes(BLOCK_SIZE) + content(1)
    place = writer.append(memoryview(data), [ZERO_HASH, fingerprint(content(1))])
    writer.map_data(0, place, 2)
    assert writer.finish().digest == digest_file(path)
    assert_reads_like(path, Disk(2 * BLOCK_SIZE, {1: content(1)}), tmp_path)


def test_every_flipped_byte_and_every_truncation_changes_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    good = write_layer(path, filled(BLOCK_SIZE + 512, [0, 1])).digest
    size = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        for offset in itertools.chain(range(0, size, 199), range(104), range(size - 64, size)):
            byte = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), offset)
            assert digest_file(path) != good
            os.pwrite(file.fileno(), byte, offset)
        assert digest_file(path) == good
        for length in (size - 1, size - CLUSTER, CLUSTER, 1, 0):
            file.truncate(length)
            assert digest_file(path) != good


def test_clusters_that_changed_places_change_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    good = write_layer(path, filled(4 * BLOCK_SIZE, range(4))).digest
    parts = [path.read_bytes()[n : n + CLUSTER] for n in range(0, path.stat().st_size, CLUSTER)]
    for a, b in itertools.combinations(range(len(parts)), 2):
        swapped = [*parts]
        swapped[a], swapped[b] = parts[b], parts[a]
        path.write_bytes(b"".join(swapped))
        assert digest_file(path) != good


def test_the_digest_of_a_missing_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Damaged, match="missing"):
        digest_file(tmp_path / "vda.qcow2")
    with pytest.raises(Damaged, match="it is no file"):
        digest_file(tmp_path)
    fail_at(monkeypatch, "open", tmp_path / "vda.qcow2", errno.EACCES)
    with pytest.raises(StoreFailed, match="Permission"):
        digest_file(tmp_path / "vda.qcow2")


def test_memory_does_not_grow_with_the_map(tmp_path: Path) -> None:
    """1000 L2 tables would be 64 MiB; held are one, the L1 table and a copy of each."""
    path, size, step = tmp_path / "vda.qcow2", 4 * TIB, TABLE * 8
    data = content("same")
    hashes = [fingerprint(data)]

    def write() -> WrittenFile:
        writer = Qcow2Writer(path, size)
        for block in range(5, block_count(size), step):
            writer.map_data(block, writer.append(memoryview(data), hashes), 1)
            writer.map_zero(block + 7, 3)
        return writer.finish()

    peak, written = peak_memory(write)
    assert peak < MIB
    assert written.size > 128 * MIB
    assert written.digest == digest_file(path)
    assert_clean(path)
    path.unlink()
