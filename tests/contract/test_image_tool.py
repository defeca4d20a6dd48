"""Image files, read and written both ways: by qemu-nbd and by the emulator."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.nbd_server import alive
from tests.support.qemu_img import image_map, named, run
from vm_babysitter.adapters.qemu.emulator import PROGRAM, Emulator
from vm_babysitter.adapters.qemu.export import Way
from vm_babysitter.adapters.qemu.open_image import QemuImageTool, find_way
from vm_babysitter.adapters.qemu.qemu_nbd import QemuNbd
from vm_babysitter.domain.blocks import Piece
from vm_babysitter.domain.errors import (
    Busy,
    Cancelled,
    CommandFailed,
    ImageUnreadable,
    InvalidInput,
    ProgramMissing,
)
from vm_babysitter.ports import DiskReader, DiskWriter

MIB = 1 << 20
CLUSTER = 65536

WAYS: dict[str, type[QemuNbd] | type[Emulator]] = {"qemu-nbd": QemuNbd, "emulator": Emulator}


@pytest.fixture(params=WAYS.keys())
def tool(request: pytest.FixtureRequest) -> QemuImageTool:
    return QemuImageTool(WAYS[request.param]())


@pytest.fixture(scope="module")
def odd() -> Iterator[Path]:
    """A folder whose name means something to everybody who is careless."""
    with tempfile.TemporaryDirectory(prefix="vmb-test-") as name:
        folder = Path(name) / '-a "b" , c:d é %s\'{}'
        folder.mkdir()
        yield folder


@pytest.fixture
def folder(odd: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=odd) as name:
        yield Path(name)


def content(reader: DiskReader) -> bytes:
    """Read everything, zeros included."""
    found = bytearray(b"\xee" * reader.size)

    def consume(piece: Piece, _: None, data: memoryview) -> None:
        found[piece.offset : piece.offset + piece.length] = data

    offsets = range(0, reader.size, MIB)
    reader.read(((Piece(o, min(MIB, reader.size - o)), None) for o in offsets), consume)
    return bytes(found)


def marked(reader: DiskReader) -> list[tuple[int, int]]:
    """The dirty ranges, neighbours joined."""
    found: list[tuple[int, int]] = []
    for start, end, flag in reader.dirty_map():
        if flag and found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        elif flag:
            found.append((start, end))
    return found


# -- reading and writing -------------------------------------------------------------------


@pytest.mark.parametrize("size", [512, 3 * MIB + 512, 5 * MIB - 1024])
@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_what_was_written_is_read_back(
    tool: QemuImageTool, folder: Path, format: str, size: int
) -> None:
    image = folder / f"-i:,.{format}"
    tool.create(image, format, size)
    wanted = os.urandom(size)
    with tool.open_for_writing(image, format) as writer:
        assert writer.size == size
        for offset in range(0, size, 100 * 512):
            writer.write(offset, memoryview(wanted)[offset : offset + 100 * 512])
    with tool.open_for_reading([(image, format)]) as reader:
        assert reader.size == size
        assert content(reader) == wanted
    reference = folder / "reference"
    reference.write_bytes(wanted)
    run("qemu-img", "compare", named(image, format), named(reference, "raw"))
    assert tool.check(image) == ""


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_zero_makes_holes(tool: QemuImageTool, folder: Path, format: str) -> None:
    image = folder / "a"
    tool.create(image, format, 16 * MIB)
    with tool.open_for_writing(image, format) as writer:
        writer.write(0, memoryview(b"\x77" * (16 * MIB)))
        writer.flush()
        full = image.stat().st_blocks
        writer.zero(MIB, 14 * MIB)
    assert full * 512 >= 16 * MIB
    assert image.stat().st_blocks * 512 < 3 * MIB
    with tool.open_for_reading([(image, format)]) as reader:
        assert content(reader) == b"\x77" * MIB + bytes(14 * MIB) + b"\x77" * MIB
        zeros = [(start, end) for start, end, zero in reader.zero_map() if zero]
    assert zeros == [(MIB, 15 * MIB)]


def test_zeros_that_are_written_stay_data(tool: QemuImageTool, folder: Path) -> None:
    """Whoever wants a hole says so: nothing looks at the data to find out."""
    image = folder / "a"
    tool.create(image, "qcow2", MIB)
    with tool.open_for_writing(image, "qcow2") as writer:
        writer.write(0, memoryview(bytes(CLUSTER)))
    assert image_map(image)[0]["data"]


def test_what_is_written_is_in_the_file_after_a_flush(tool: QemuImageTool, folder: Path) -> None:
    image = folder / "a.raw"
    tool.create(image, "raw", MIB)
    with tool.open_for_writing(image, "raw") as writer:
        writer.write(512, memoryview(b"\x11" * 512))
        writer.flush()
        assert image.read_bytes()[512:1024] == b"\x11" * 512


def test_a_failed_write_session_raises_its_own_error(tool: QemuImageTool, folder: Path) -> None:
    image = folder / "a.raw"
    tool.create(image, "raw", MIB)
    with pytest.raises(Cancelled), tool.open_for_writing(image, "raw"):
        raise Cancelled


# -- chains --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep(odd: Path) -> list[Path]:
    """60 layers that do not know each other; layer n has one cluster of n at its place."""
    layers = []
    for number in range(60):
        layer = odd / f"layer {number}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", layer, "8M")
        run("qemu-io", "-c", f"write -P {number + 1} {number * CLUSTER} 64k", named(layer))
        run("qemu-io", "-c", f"write -P {number + 1} 6M 64k", named(layer))
        layers.append(layer)
    return layers


def test_a_chain_of_60_layers_reads_as_one_disk(tool: QemuImageTool, deep: list[Path]) -> None:
    before = [layer.stat().st_mtime_ns for layer in deep]
    chain = [(layer, "qcow2") for layer in reversed(deep)]
    with tool.open_for_reading(chain) as reader:
        data = content(reader)
        covered = [(start, end) for start, end, zero in reader.zero_map() if not zero]
    own = b"".join(bytes([number + 1]) * CLUSTER for number in range(60))
    top = bytes([60]) * CLUSTER
    assert data == own + bytes(6 * MIB - len(own)) + top + bytes(2 * MIB - CLUSTER)
    assert covered == [(0, len(own)), (6 * MIB, 6 * MIB + CLUSTER)]
    assert [layer.stat().st_mtime_ns for layer in deep] == before


def test_a_raw_image_may_be_the_lowest_layer(tool: QemuImageTool, folder: Path) -> None:
    base, top = folder / "base", folder / "top"
    base.write_bytes(b"\x33" * MIB)
    tool.create(top, "qcow2", MIB)
    with tool.open_for_writing(top, "qcow2") as writer:
        writer.write(CLUSTER, memoryview(b"\x44" * CLUSTER))
    with tool.open_for_reading([(top, "qcow2"), (base, "raw")]) as reader:
        data = content(reader)
    assert data == b"\x33" * CLUSTER + b"\x44" * CLUSTER + b"\x33" * (MIB - 2 * CLUSTER)


def test_backing_links_in_the_files_are_not_followed(tool: QemuImageTool, folder: Path) -> None:
    base, top = folder / "base.raw", folder / "top.qcow2"
    base.write_bytes(b"\x33" * MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", top)
    with tool.open_for_reading([(top, "qcow2")]) as reader:
        assert content(reader) == bytes(MIB)


# -- bitmaps -------------------------------------------------------------------------------


@pytest.fixture
def tracked(folder: Path) -> Path:
    """An image with an enabled bitmap ``-b`` that has seen two writes."""
    image = folder / "tracked.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    run("qemu-io", "-c", "write -P 1 0 8M", named(image))
    run("qemu-img", "bitmap", "--add", image, "--", "-b")
    run("qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -P 3 5M 130k", named(image))
    return image


def test_a_bitmap_tells_what_was_written_since(tool: QemuImageTool, tracked: Path) -> None:
    before = tracked.read_bytes()
    with tool.open_for_reading([(tracked, "qcow2")], bitmap="-b") as reader:
        assert marked(reader) == [(MIB, MIB + CLUSTER), (5 * MIB, 5 * MIB + 3 * CLUSTER)]
        assert content(reader)[MIB] == 2
    assert tracked.read_bytes() == before
    assert tool.info(tracked).bitmaps == (("-b", frozenset({"auto"})),)


def test_a_bitmap_of_a_lower_layer_is_not_taken(
    tool: QemuImageTool, tracked: Path, folder: Path
) -> None:
    top = folder / "top"
    tool.create(top, "qcow2", 8 * MIB)
    chain = [(top, "qcow2"), (tracked, "qcow2")]
    with pytest.raises(ImageUnreadable, match="no bitmap '-b'"):
        refused(tool.open_for_reading(chain, bitmap="-b"))


def test_a_bitmap_that_was_not_stored_is_refused(tool: QemuImageTool, tracked: Path) -> None:
    """As after a power cut: the image is copied while it is open for writing."""
    torn = tracked.with_name("torn")
    with tool.open_for_writing(tracked, "qcow2") as writer:
        writer.write(0, memoryview(bytes(512)))
        writer.flush()
        torn.write_bytes(tracked.read_bytes())
    with pytest.raises(ImageUnreadable, match="not stored properly"):
        refused(tool.open_for_reading([(torn, "qcow2")], bitmap="-b"))


# -- refusals ------------------------------------------------------------------------------


def refused(
    opening: AbstractContextManager[DiskReader] | AbstractContextManager[DiskWriter],
) -> None:
    with opening:
        pytest.fail("it was opened")


def test_a_missing_image_is_named(tool: QemuImageTool, folder: Path) -> None:
    path = folder / "none"
    attempts: list[Callable[[], object]] = [
        lambda: tool.info(path),
        lambda: tool.check(path),
        lambda: refused(tool.open_for_reading([(path, "qcow2")])),
        lambda: refused(tool.open_for_writing(path, "qcow2")),
    ]
    for attempt in attempts:
        with pytest.raises(ImageUnreadable) as caught:
            attempt()
        assert caught.value.path == str(path)
        assert caught.value.reason == "No such file or directory"


def test_the_layer_that_is_missing_is_named(tool: QemuImageTool, deep: list[Path]) -> None:
    missing = deep[0].with_name("none")
    chain = [(path, "qcow2") for path in (*deep[:5], missing, *deep[5:10])]
    with pytest.raises(ImageUnreadable, match="No such file") as caught:
        refused(tool.open_for_reading(chain))
    assert caught.value.path == str(missing)


def test_what_is_no_image_is_refused(tool: QemuImageTool, folder: Path) -> None:
    path = folder / "text"
    path.write_text("no image\n" * 1000)
    attempts: list[Callable[[], object]] = [
        lambda: refused(tool.open_for_reading([(path, "qcow2")])),
        lambda: refused(tool.open_for_writing(path, "qcow2")),
    ]
    for attempt in attempts:
        with pytest.raises(ImageUnreadable) as caught:
            attempt()
        assert caught.value.reason == "Image is not in qcow2 format"
    with pytest.raises(ImageUnreadable, match="regular file"):
        tool.info(folder)


def test_an_image_that_somebody_writes_is_read_but_not_written(
    tool: QemuImageTool, folder: Path
) -> None:
    image = folder / "a"
    tool.create(image, "qcow2", MIB)
    with tool.open_for_writing(image, "qcow2") as writer:
        writer.write(0, memoryview(b"\x11" * 512))
        writer.flush()
        with pytest.raises(Busy, match="another program has it open"):
            refused(tool.open_for_writing(image, "qcow2"))
        with tool.open_for_reading([(image, "qcow2")]) as reader:
            assert content(reader)[:512] == b"\x11" * 512
        assert tool.info(image).virtual_size == MIB


def test_a_reader_keeps_nobody_from_writing(tool: QemuImageTool, folder: Path) -> None:
    image = folder / "a"
    tool.create(image, "qcow2", MIB)
    with tool.open_for_reading([(image, "qcow2")]), tool.open_for_writing(image, "qcow2"):
        pass


def test_chains_that_make_no_sense_are_refused(tool: QemuImageTool, folder: Path) -> None:
    with pytest.raises(ValueError, match="below"):
        refused(tool.open_for_reading([(folder / "a", "raw"), (folder / "b", "raw")]))
    with pytest.raises(ValueError, match="without layers"):
        refused(tool.open_for_reading([]))


# -- qemu-img ------------------------------------------------------------------------------


def test_info_tells_format_links_and_bitmaps(folder: Path, tracked: Path) -> None:
    tool, top = QemuImageTool(), folder / "top.img"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "tracked.qcow2",
        "-F", "qcow2", top, "9M")  # fmt: skip
    run("qemu-img", "bitmap", "--add", "--disable", top, "x y")
    info = tool.info(top)
    assert (info.path, info.format, info.virtual_size) == (top, "qcow2", 9 * MIB)
    assert (info.backing_file, info.backing_format) == ("tracked.qcow2", "qcow2")
    assert (info.cluster_size, info.compat) == (4096, "1.1")
    assert info.bitmaps == (("x y", frozenset()),)
    tracked.unlink()
    assert tool.info(top) == info, "the backing file is left aside"


def test_info_tells_what_an_image_takes_where_all_its_content_is_in_it(
    folder: Path, tracked: Path
) -> None:
    tool, sparse, top = QemuImageTool(), folder / "sparse.raw", folder / "top.img"
    with sparse.open("wb") as file:
        file.truncate(64 * MIB)
        file.write(b"x" * MIB)
        file.flush()
        os.fsync(file.fileno())
    assert tool.info(sparse).allocated == MIB
    assert tool.info(tracked).allocated == tracked.stat().st_blocks * 512
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", tracked, "-F", "qcow2", top)
    assert tool.info(top).allocated is None
    elsewhere = str(folder / "its data.raw").replace(",", ",,")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
        f"data_file={elsewhere},data_file_raw=on", folder / "a.qcow2", "1M")  # fmt: skip
    assert tool.info(folder / "a.qcow2").allocated is None
    assert tool.info(folder / "a.qcow2").data_file == str(folder / "its data.raw")
    assert tool.info(top).data_file == ""


def test_of_a_block_device_all_counts(folder: Path) -> None:
    image = folder / "disk.raw"
    image.write_bytes(bytes(MIB))
    device = run("losetup", "--find", "--show", image).strip()
    try:
        assert QemuImageTool().info(Path(device)).allocated == MIB
    finally:
        run("losetup", "--detach", device)


def test_the_format_comes_from_the_content(folder: Path) -> None:
    tool, image = QemuImageTool(), folder / "a.qcow2"
    image.write_bytes(bytes(1000))
    info = tool.info(image)
    assert (info.format, info.virtual_size, info.backing_file) == ("raw", 1024, None)
    assert (info.compat, info.bitmaps, info.cluster_size) == ("", (), None)


def test_create_makes_what_was_asked_and_never_overwrites(folder: Path) -> None:
    tool, image = QemuImageTool(), folder / "json:{a"
    tool.create(image, "qcow2", 5 * MIB + 512, cluster_size=4096)
    info = tool.info(image)
    assert (info.virtual_size, info.cluster_size) == (5 * MIB + 512, 4096)
    before = image.read_bytes()
    with pytest.raises(InvalidInput, match="exists"):
        tool.create(image, "qcow2", MIB)
    assert image.read_bytes() == before


def test_a_failed_create_leaves_nothing(folder: Path) -> None:
    with pytest.raises(CommandFailed):
        QemuImageTool().create(folder / "a", "qcow2", MIB, cluster_size=3)
    with pytest.raises(CommandFailed, match="nonsense"):
        QemuImageTool().create(folder / "a", "nonsense", MIB)
    assert list(folder.iterdir()) == []


def test_check_tells_what_is_wrong(folder: Path) -> None:
    tool, image = QemuImageTool(), folder / "a"
    tool.create(image, "qcow2", MIB)
    with tool.open_for_writing(image, "qcow2") as writer:
        writer.write(0, memoryview(b"\x11" * CLUSTER))
    assert tool.check(image) == ""
    with image.open("r+b") as file:  # the first entry of the first refcount block: the header's
        file.seek(2 * CLUSTER)
        file.write(b"\0\0")
    assert "refcount=0" in tool.check(image)
    (folder / "raw").write_bytes(bytes(512))
    assert tool.check(folder / "raw") == ""


# -- the ways ------------------------------------------------------------------------------


def test_qemu_nbd_is_the_first_choice_and_the_emulator_the_second(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    assert isinstance(find_way(), QemuNbd)
    monkeypatch.setenv("PATH", str(folder))
    assert isinstance(find_way(), Emulator)
    assert PROGRAM.exists()


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "a").write_bytes(bytes(512))
    monkeypatch.setenv("PATH", str(folder))
    ways: list[Way] = [QemuNbd(), Emulator(folder / "none")]
    for way in ways:
        with pytest.raises(ProgramMissing):
            refused(QemuImageTool(way).open_for_reading([(folder / "a", "raw")]))


def test_a_server_and_its_sockets_are_private_and_gone_in_the_end(
    tool: QemuImageTool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, place = folder / "a", folder.parent.parent / "t"
    place.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    image.write_bytes(bytes(512))
    with tool.open_for_reading([(image, "raw")]):
        (directory,) = place.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        names = {path.suffix for path in directory.iterdir() if path.is_socket()}
        assert names == {".socket"}
        servers = [int(p.name) for p in Path("/proc").iterdir() if _mentions(p, str(directory))]
        assert servers
        assert all(alive(server) for server in servers)
    assert not any(alive(server) for server in servers)
    assert list(place.iterdir()) == []


def _mentions(process: Path, text: str) -> bool:
    try:
        return process.name.isdigit() and text.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
