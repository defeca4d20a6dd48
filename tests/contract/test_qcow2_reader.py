"""Images of restore points, read without QEMU: what comes is what QEMU reads."""

import contextlib
import errno
import random
import struct
import tempfile
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.test_qcow2_writer import chains
from tests.support.failing import fail_at
from tests.support.layers import Disk, Layer, content, filled, shrinking, write_chain, write_layer
from tests.support.memory import peak_memory
from tests.support.qemu_img import named, run
from vm_babysitter.adapters.qemu.compression import Compression, Zlib, Zstd, expand
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.adapters.qemu.qcow2_reader import ChainReader
from vm_babysitter.domain.blocks import BLOCK_SIZE, Piece, block_count, block_length
from vm_babysitter.domain.errors import ConnectionLost, ImageUnreadable, StoreFailed

MIB = 1 << 20
TIB = 1 << 40
TABLE = 8192
COMPRESSIONS = (None, Zstd(), Zlib())


def images(newest: Path) -> list[Path]:
    """The images of a chain, the newest first."""
    return sorted(newest.parent.parent.glob("*/vda.qcow2"), reverse=True)


def content_of(reader: ChainReader, longest: int = MIB, start: int = 0) -> dict[int, bytes]:
    """Read what is not known to be zero; return the blocks that are not."""
    found: dict[int, bytes] = {}
    lock = threading.Lock()

    def pieces() -> list[tuple[Piece, None]]:
        cut = []
        for begin, end, zero in reader.zero_map():
            at = max(begin, start)
            while not zero and at < end:
                cut.append((Piece(at, min(longest, end - at)), None))
                at += cut[-1][0].length
        return cut

    def take(piece: Piece, _: None, data: memoryview) -> None:
        assert len(data) == piece.length
        for at in range(0, piece.length, BLOCK_SIZE):
            block = bytes(data[at : at + BLOCK_SIZE])
            with lock:
                if any(block):
                    found[(piece.offset + at) // BLOCK_SIZE] = block

    reader.read(pieces(), take)
    return found


def expected(disk: Disk) -> dict[int, bytes]:
    return {
        block: data.ljust(block_length(block, disk.size), b"\0")
        for block, data in disk.blocks.items()
        if any(data)
    }


def assert_map_covers(reader: ChainReader, filled_blocks: set[int]) -> None:
    """The map is seamless, and calls no block zero that is not."""
    ranges = list(reader.zero_map())
    assert all(a.end == b.start for a, b in pairwise(ranges))
    assert all(a.flag != b.flag or a.end % (TABLE * BLOCK_SIZE) == 0 for a, b in pairwise(ranges))
    assert [r.start for r in ranges[:1]] == ([0] if reader.size else [])
    assert [r.end for r in ranges[-1:]] == ([reader.size] if reader.size else [])
    for start, end, zero in ranges:
        if zero:
            assert not filled_blocks & set(range(start // BLOCK_SIZE, -(-end // BLOCK_SIZE)))


@settings(max_examples=40, deadline=None)
@given(
    chains,
    st.lists(st.sampled_from(COMPRESSIONS), min_size=4, max_size=4),
    st.sampled_from([BLOCK_SIZE, 3 * BLOCK_SIZE, MIB]),
)
def test_any_chain_reads_like_the_disk(
    chain: list[Layer], compressions: Sequence[Compression | None], longest: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        newest, disk = write_chain(Path(name), chain, compressions[: len(chain)])
        with ChainReader(images(newest)) as reader:
            assert reader.size == disk.size
            wanted = expected(disk)
            assert content_of(reader, longest) == wanted
            assert_map_covers(reader, set(wanted))


def test_it_reads_what_qemu_reads(tmp_path: Path) -> None:
    chance = random.Random(7)
    size = (TABLE + 40) * BLOCK_SIZE + 1536
    near = [*range(30), *range(TABLE - 20, TABLE + 41)]

    def layer(seed: int) -> Layer:
        blocks: dict[int, bytes | None] = {}
        for block in chance.sample(near, 45):
            data = shrinking(
                (seed, block), chance.choice([0, 100, 70000]), block_length(block, size)
            )
            blocks[block] = None if seed and chance.random() < 0.3 else data
        return Layer(size, dict(sorted(blocks.items())))

    compressions = [Zstd(), None, Zlib(), Zstd(), None]
    newest, _ = write_chain(tmp_path, [layer(n) for n in range(5)], compressions)
    run("qemu-img", "convert", "-O", "raw", named(newest), tmp_path / "qemu.raw")
    with ChainReader(images(newest)) as reader:
        found = content_of(reader)
    with (tmp_path / "qemu.raw").open("rb") as raw:
        for block in near:
            raw.seek(block * BLOCK_SIZE)
            data = raw.read(block_length(block, size))
            assert found.pop(block, bytes(len(data))) == data
    assert found == {}


def test_its_map_is_as_good_as_qemus(tmp_path: Path) -> None:
    size = 60 * BLOCK_SIZE
    chain = [filled(size, [*range(20), 40]), Layer(size, {3: None, 40: None, 50: content("x")})]
    newest, disk = write_chain(tmp_path, chain)
    paths = images(newest)
    with (
        ChainReader(paths) as ours,
        QemuImageTool().open_for_reading([(path, "qcow2") for path in paths]) as qemus,
    ):
        assert list(ours.zero_map()) == list(qemus.zero_map())
        assert expected(disk).keys() == {*range(3), *range(4, 20), 50}


@pytest.mark.parametrize("middle", [1, BLOCK_SIZE + 512, 3 * BLOCK_SIZE])
def test_what_a_smaller_image_cut_off_is_zero_to_the_byte(tmp_path: Path, middle: int) -> None:
    middle = -(-middle // 512) * 512
    size = 5 * BLOCK_SIZE
    full = filled(size, range(5))
    newest, _ = write_chain(tmp_path, [full, Layer(middle, {}), Layer(size, {})])
    with ChainReader(images(newest)) as reader:
        found = content_of(reader)
    for block in range(block_count(size)):
        data = full.blocks[block]
        assert data is not None
        left = max(0, min(BLOCK_SIZE, middle - block * BLOCK_SIZE))
        wanted = data[:left].ljust(BLOCK_SIZE, b"\0")
        assert found.get(block, bytes(BLOCK_SIZE)) == wanted


def test_a_disk_of_4_tib_that_is_nearly_empty_is_read_at_once(tmp_path: Path) -> None:
    layer = filled(4 * TIB, [0, TABLE * 4096, TABLE * 8192 - 1])
    newest, disk = write_chain(tmp_path, [layer])
    with ChainReader([newest]) as reader:
        assert content_of(reader) == expected(disk)


def test_pieces_may_begin_anywhere_and_cross_tables(tmp_path: Path) -> None:
    size = (TABLE + 8) * BLOCK_SIZE
    newest, disk = write_chain(tmp_path, [filled(size, range(TABLE - 8, TABLE + 8))])
    with ChainReader([newest]) as reader:
        assert content_of(reader, start=(TABLE - 5) * BLOCK_SIZE) == {
            block: data for block, data in expected(disk).items() if block >= TABLE - 5
        }


# -- what is not as it should be ------------------------------------------------------------


def damaged(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, b"\0"),
        (4, struct.pack(">I", 2)),
        (20, struct.pack(">I", 12)),
        (32, struct.pack(">I", 1)),
        (60, struct.pack(">I", 1)),
        (72, struct.pack(">Q", 1)),  # dirty
        (72, struct.pack(">Q", 4)),  # an external data file
        (40, struct.pack(">Q", 1 << 40)),  # L1 beyond the end
        (40, struct.pack(">Q", 1 << 63)),
        (36, struct.pack(">I", 1 << 31)),  # an L1 that would fill the memory
        (36, struct.pack(">I", 1 << 20)),
    ],
)
def test_a_header_of_another_kind_of_image_is_refused(
    tmp_path: Path, offset: int, data: bytes
) -> None:
    path = tmp_path / "vda.qcow2"
    write_layer(path, filled(3 * BLOCK_SIZE, [0, 1]))
    damaged(path, offset, data)
    with pytest.raises(ImageUnreadable) as caught:
        ChainReader([path])
    assert caught.value.path == str(path)


@pytest.mark.parametrize("size", [0, 10, 100, 65535])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "vda.qcow2"
    write_layer(path, filled(3 * BLOCK_SIZE, [0, 1]))
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(ImageUnreadable):
        ChainReader([path])


def test_a_missing_image_is_told_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    write_layer(path, filled(BLOCK_SIZE, [0]))
    with pytest.raises(ImageUnreadable, match="missing"):
        ChainReader([path, tmp_path / "gone.qcow2"])


def test_data_that_lies_beyond_the_end_of_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    write_layer(path, filled(40 * BLOCK_SIZE, range(40)))
    with ChainReader([path]) as reader:
        with path.open("r+b") as file:
            file.truncate(70 * 1024)
        with pytest.raises(ImageUnreadable):
            content_of(reader)


@pytest.mark.parametrize("compression", [Zstd(), Zlib()], ids=lambda c: c.name)
def test_compressed_data_that_is_damaged_is_an_error_or_other_data(
    tmp_path: Path, compression: Compression
) -> None:
    path = tmp_path / "vda.qcow2"
    layer = Layer(BLOCK_SIZE, {0: shrinking("x", 3000)})
    write_layer(path, layer, compression=compression)
    damaged(path, BLOCK_SIZE, b"\xff" * 64)
    with ChainReader([path]) as reader, pytest.raises(ImageUnreadable, match="damaged"):
        content_of(reader)


@pytest.mark.parametrize("bit", range(16 * 8))
def test_any_bit_of_the_tables_places_that_flips_is_found_without_much_memory(
    tmp_path: Path, bit: int
) -> None:
    path = tmp_path / "vda.qcow2"
    layer = filled(3 * BLOCK_SIZE, [0, 1])
    write_layer(path, layer)
    with path.open("r+b") as file:
        file.seek(32 + bit // 8)
        (byte,) = file.read(1)
        file.seek(32 + bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))

    def read() -> None:
        with contextlib.suppress(ImageUnreadable), ChainReader([path]) as reader:
            content_of(reader)  # whether it is the right one the fingerprints tell

    peak, _ = peak_memory(read)
    assert peak < 16 * MIB


def test_compressed_data_that_would_fill_the_memory_is_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    assert len(bomb) < BLOCK_SIZE
    with pytest.raises(ValueError, match="tells of another length"):  # before it is expanded
        expand(Zstd.type, bomb, BLOCK_SIZE)


def test_a_host_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vda.qcow2"
    fail_at(monkeypatch, "open", path, errno.ESTALE)
    with pytest.raises(StoreFailed):
        ChainReader([path])


def test_a_folder_in_the_place_of_an_image_is_none(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="it is no file"):
        ChainReader([tmp_path])


def test_compression_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="type 7"):
        expand(7, b"x", BLOCK_SIZE)


def test_reading_stops_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "vda.qcow2"
    write_layer(path, filled(40 * BLOCK_SIZE, range(40)))
    with ChainReader([path]) as reader:
        reader.abort()
        with pytest.raises(ConnectionLost):
            content_of(reader)
