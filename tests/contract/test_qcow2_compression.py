"""Our compressed qcow2 files, judged by QEMU's own tools."""

import itertools
import json
import random
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.layers import (
    Disk,
    Layer,
    assert_reads_like,
    content,
    filled,
    shrinking,
    write_chain,
    write_layer,
)
from tests.support.memory import peak_memory
from tests.support.qemu_img import assert_clean, assert_same, info, named, run
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.compression import Compression, Zlib, Zstd
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH, block_count, block_length
from vm_babysitter.ports import WrittenFile

MIB = 1 << 20
TIB = 1 << 40
TABLE = 8192
"""Blocks that one L2 table maps."""
WAYS = pytest.mark.parametrize("way", [Zstd, Zlib])
Way = Callable[[], Compression]


def compressed_clusters(path: Path) -> int:
    """Return how many clusters QEMU finds compressed."""
    report = json.loads(run("qemu-img", "check", "--output=json", named(path)))
    return int(report.get("compressed-clusters", 0))


def mixed(size: int, blocks: list[int], seed: int = 0) -> Layer:
    """Return a layer whose blocks shrink to all lengths there are, or not at all."""
    chance = random.Random(seed)
    return Layer(
        size,
        {
            b: shrinking(
                (seed, b), chance.choice([0, 1, 5000, 33000, 65536]), block_length(b, size)
            )
            for b in blocks
        },
    )


near = [0, 1, 2, 3, 17, 18, TABLE - 1, TABLE, TABLE + 1, 2 * TABLE - 1, 2 * TABLE]
sizes = st.builds(
    lambda blocks, extra: max(0, blocks * BLOCK_SIZE + extra * 512),
    st.sampled_from([1, 2, 5, 19, TABLE, TABLE + 2, 2 * TABLE + 3]),
    st.sampled_from([0, 0, 1, 7, -1]),
)


@st.composite
def layers(draw: st.DrawFn, *, full: bool) -> Layer:
    size = draw(sizes)
    inside = [b for b in near if b < block_count(size)]
    chosen = draw(st.sets(st.sampled_from(inside)))
    salt = draw(st.integers(0, 99))
    blocks: dict[int, bytes | None] = {}
    for block in sorted(chosen):
        incompressible = draw(st.integers(0, BLOCK_SIZE))
        data = shrinking((salt, block), incompressible, block_length(block, size))
        blocks[block] = None if not full and draw(st.booleans()) else data
    return Layer(size, blocks)


chains = st.builds(
    lambda full, increments: [full, *increments],
    layers(full=True),
    st.lists(layers(full=False), max_size=3),
)
ways = st.lists(st.sampled_from([None, Zstd(), Zlib()]), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None)
@given(chains, ways)
def test_any_chain_of_any_compressions_is_clean_and_reads_like_the_disk(
    chain: list[Layer], compressions: list[Compression | None]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, disk = write_chain(folder, chain, compressions[: len(chain)])
        assert_reads_like(image, disk, folder)
        for file in folder.glob("*/vda.qcow2"):
            assert_clean(file)


@WAYS
@pytest.mark.parametrize(
    ("size", "blocks"),
    [
        (0, []),
        (512, [0]),
        (BLOCK_SIZE - 512, [0]),
        (BLOCK_SIZE, [0]),
        (BLOCK_SIZE + 512, [0, 1]),
        (512 * MIB - 512, [0, TABLE - 2, TABLE - 1]),
        (512 * MIB + 512, [TABLE - 2, TABLE - 1, TABLE]),
        (4 * TIB, [0, 5, TABLE * 4096 - 1, TABLE * 4096, TABLE * 8192 - 1]),
        (4 * TIB + 512, [TABLE * 8192]),
    ],
)
def test_sizes_around_every_border_are_right(
    tmp_path: Path, way: Way, size: int, blocks: list[int]
) -> None:
    layer = Layer(size, {b: shrinking(b, 9000, block_length(b, size)) for b in blocks})
    image, disk = write_chain(tmp_path, [layer], [way()])
    assert compressed_clusters(image) == len(blocks)
    assert_reads_like(image, disk, tmp_path)
    assert info(image)["virtual-size"] == size


@WAYS
def test_blocks_of_every_compressed_length_are_packed_right(tmp_path: Path, way: Way) -> None:
    """Borders of sectors and clusters are met, begun and crossed by hundreds of blocks."""
    size = 700 * BLOCK_SIZE + 512
    chances = random.Random(4)
    blocks = {
        b: shrinking(b, chances.randrange(63000), block_length(b, size))
        for b in range(block_count(size))
    }
    image, disk = write_chain(tmp_path, [Layer(size, dict(blocks))], [way()])
    assert 600 < compressed_clusters(image) < 701
    assert_reads_like(image, disk, tmp_path)
    run("qemu-img", "convert", "-O", "raw", named(image), tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == (tmp_path / "model.raw").read_bytes()
    assert read_layers([image]) == (tmp_path / "model.raw").read_bytes()


@WAYS
def test_threads_may_append_in_any_order_while_maps_are_written(tmp_path: Path, way: Way) -> None:
    size, piece = 96 * MIB, 16
    whole = {
        first: b"".join(
            d or b"" for d in mixed(size, list(range(first, first + piece)), first).blocks.values()
        )
        for first in range(0, block_count(size), piece)
    }
    writer = Qcow2Writer(tmp_path / "vda.qcow2", size, compression=way())

    def append(block: int) -> int:
        return writer.append(memoryview(whole[block]), list(fingerprints(whole[block])))

    with ThreadPoolExecutor(8) as pool:
        shuffled = random.Random(1).sample(sorted(whole), len(whole))
        futures = {block: pool.submit(append, block) for block in shuffled}
        for block in sorted(whole):
            writer.map_data(block, futures[block].result(), piece)
    written = writer.finish()
    assert written.digest == digest_file(tmp_path / "vda.qcow2")
    blocks = {
        first + n: data[n * BLOCK_SIZE : (n + 1) * BLOCK_SIZE]
        for first, data in whole.items()
        for n in range(piece)
    }
    assert_reads_like(tmp_path / "vda.qcow2", Disk(size, blocks), tmp_path)
    assert 700 < compressed_clusters(tmp_path / "vda.qcow2") < len(blocks)


@WAYS
def test_data_that_does_not_shrink_is_stored_as_without_compression(
    tmp_path: Path, way: Way
) -> None:
    layer = filled(40 * BLOCK_SIZE + 512, range(40))
    write_layer(tmp_path / "plain", layer)
    write_layer(tmp_path / "packed", layer, compression=way())
    plain, packed = ((tmp_path / name).read_bytes() for name in ("plain", "packed"))
    assert plain[CLUSTER:] == packed[CLUSTER:]


@WAYS
def test_a_block_is_compressed_if_that_saves_a_sixteenth(tmp_path: Path, way: Way) -> None:
    image = tmp_path / "vda.qcow2"
    for chance, compressed in [(60500, 1), (62500, 0)]:
        write_layer(image, Layer(BLOCK_SIZE, {0: shrinking(1, chance)}), compression=way())
        assert compressed_clusters(image) == compressed
        image.unlink()


@WAYS
def test_what_only_shrinks_is_packed_without_gaps(tmp_path: Path, way: Way) -> None:
    size, blocks = 40 * MIB, range(640)
    layer = Layer(size, {b: shrinking(b, 20000) for b in blocks})
    written = write_layer(tmp_path / "vda.qcow2", layer, compression=way())
    shrunk = sum(len(way().compress(memoryview(data or b""))) for data in layer.blocks.values())
    assert written.size < shrunk + 7 * CLUSTER


def test_the_file_says_how_it_is_compressed(tmp_path: Path) -> None:
    layer = mixed(MIB, [0, 1, 2, 3])
    below = [layer, mixed(MIB, [1, 5], 1)]
    cases: list[tuple[Compression, int, int]] = [(Zstd(), 112, 8), (Zlib(), 104, 0)]
    for way, length, feature in cases:
        image, _disk = write_chain(tmp_path / way.name, below, [way, way])
        found = info(image)
        assert found["backing-filename"] == "../000000-full/vda.qcow2"
        assert found["backing-filename-format"] == "qcow2"
        specific = found["format-specific"]
        assert isinstance(specific, dict)
        assert specific["data"]["compression-type"] == way.name
        header = image.read_bytes()[:112]
        assert struct.unpack_from(">Q", header, 72) == (feature,)
        assert struct.unpack_from(">I", header, 100) == (length,)
        assert image.stat().st_mode & 0o777 == 0o600


@WAYS
def test_qemu_writes_into_our_file_without_damage(tmp_path: Path, way: Way) -> None:
    """Wrong refcounts or flags would show when QEMU frees, allocates and overwrites."""
    size = 600 * MIB
    layer = Layer(size, {**mixed(size, [*range(12), TABLE], 3).blocks, 13: None})
    image, disk = write_chain(tmp_path, [filled(size, range(16), "below"), layer], [None, way()])
    patched = {0: 0x11, 1: 0x12, 2: 0x13, 7: 0x14, 13: 0x22, 14: 0x33, TABLE: 0x44, TABLE + 9: 0x55}
    for block, pattern in patched.items():
        run("qemu-io", "-c", f"write -P {pattern} {block * BLOCK_SIZE} 64k", named(image))
        disk.blocks[block] = bytes([pattern]) * BLOCK_SIZE
    disk.write_raw(tmp_path / "model.raw")
    report = json.loads(run("qemu-img", "check", "--output=json", named(image)))
    assert not report.keys() & {"corruptions", "leaks"}
    assert_same(image, tmp_path / "model.raw")


def test_a_file_of_more_than_2_gib_counts_every_cluster() -> None:
    """A refcount block ends there; written in RAM, because only metadata is looked at."""
    count = 32768 + 2048
    data = content("piece", 15 * BLOCK_SIZE) + shrinking(1, 30000)
    hashes = list(fingerprints(data))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name) / "vda.qcow2"
        writer = Qcow2Writer(path, count * BLOCK_SIZE, compression=Zstd())
        for block in range(0, count, 16):
            writer.map_data(block, writer.append(memoryview(data), hashes), 16)
        written = writer.finish()
        assert written.size == path.stat().st_size > 2048 * MIB
        assert written.digest == digest_file(path)
        assert_clean(path)


def test_a_zero_block_that_was_stored_keeps_the_digest_right(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    writer = Qcow2Writer(path, 2 * BLOCK_SIZE, compression=Zstd())
    data = bytes(BLOCK_SIZE) + content(1)
    place = writer.append(memoryview(data), [ZERO_HASH, fingerprint(content(1))])
    writer.map_data(0, place, 2)
    assert writer.finish().digest == digest_file(path)
    assert_reads_like(path, Disk(2 * BLOCK_SIZE, {1: content(1)}), tmp_path)


def test_a_block_that_was_written_must_be_mapped_exactly_once(tmp_path: Path) -> None:
    writer = Qcow2Writer(tmp_path / "vda.qcow2", 9 * BLOCK_SIZE, compression=Zstd())
    data = shrinking(1, 9) + content(2)
    assert writer.append(memoryview(data), list(fingerprints(data))) == 0
    for place in (-1, 1, 2):
        with pytest.raises(ValueError, match="not written"):
            writer.map_data(0, place, 2)
    writer.map_data(0, 0, 1)
    with pytest.raises(ValueError, match="not written"):
        writer.map_data(1, 0, 2)
    with pytest.raises(ValueError, match="2 blocks were written, 1 mapped"):
        writer.finish()
    writer.discard()
    with pytest.raises(ValueError, match="closed"):
        writer.append(memoryview(content(3)), [fingerprint(content(3))])


def test_every_flipped_byte_and_every_truncation_changes_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    layer = Layer(2 * BLOCK_SIZE, {0: shrinking(0, 9000), 1: shrinking(1, 9000)})
    good = write_layer(path, layer, compression=Zstd()).digest
    whole = path.read_bytes()
    for offset in itertools.chain(range(0, len(whole), 997), range(112)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert digest_file(path) != good
    for length in (len(whole) - 1, len(whole) - CLUSTER, CLUSTER, 0):
        path.write_bytes(whole[:length])
        assert digest_file(path) != good


def test_memory_does_not_grow_with_the_map(tmp_path: Path) -> None:
    """Of 4 TiB, a block here and there; what does not shrink in between keeps digests waiting."""
    path, size, step = tmp_path / "vda.qcow2", 4 * TIB, TABLE * 8
    data = memoryview(shrinking("same", 30) + content("same"))
    hashes = list(fingerprints(data))
    writer = Qcow2Writer(path, size, compression=Zstd())
    writer.map_data(0, writer.append(data, hashes), 2)  # makes zstd's own working space

    def write() -> WrittenFile:
        for block in range(5, block_count(size) - 1, step):
            writer.map_data(block, writer.append(data, hashes), 2)
            writer.map_zero(block + 7, 3)
        return writer.finish()

    peak, written = peak_memory(write)
    assert peak < 1.5 * MIB
    assert written.digest == digest_file(path)
    assert_clean(path)
    path.unlink()
