"""What restores and verifications need of an image tool: the fake and QEMU alike."""

import os
from pathlib import Path

import pytest

from tests.support.fakes.images import FakeImageTool
from tests.support.layers import Layer, filled, write_layer
from tests.support.nbd_reading import Collected, pieces
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.errors import Cancelled, ImageUnreadable, InvalidInput
from vm_babysitter.ports import DiskReader, ImageTool

SIZE = 5 * BLOCK_SIZE + 512


def content(reader: DiskReader) -> bytes:
    """Read a whole disk."""
    collected = Collected(reader.size)
    reader.read(pieces(reader.size, 2 * BLOCK_SIZE), collected)
    return bytes(collected.data)


def read(tool: ImageTool, *layers: Path, format: str = "qcow2") -> bytes:
    """Read a chain of images, checking what it knows of zeros."""
    with tool.open_for_reading([(path, format) for path in layers]) as reader:
        found = content(reader)
        ranges = list(reader.zero_map())
    assert [r.start for r in ranges] == [0, *(r.end for r in ranges[:-1])]
    assert ranges[-1].end == len(found)
    assert not any(any(found[start:end]) for start, end, zero in ranges if zero)
    return found


def _cancel() -> None:
    raise Cancelled


class ImageToolContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def tool(self) -> ImageTool:
        raise NotImplementedError

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        """A place for an image; not there yet."""
        folder = tmp_path / "-an 'image': \"x\", ü"
        folder.mkdir()
        return folder / "json:{vda"

    @pytest.mark.parametrize("format", ["qcow2", "raw"])
    def test_new_image_is_zero_and_of_its_format_and_size(
        self, tool: ImageTool, image: Path, format: str
    ) -> None:
        tool.create(image, format, SIZE)
        info = tool.info(image)
        assert (info.path, info.format, info.virtual_size) == (image, format, SIZE)
        assert (info.backing_file, info.bitmaps) == (None, ())
        assert read(tool, image, format=format) == bytes(SIZE)
        assert tool.check(image) == ""

    @pytest.mark.parametrize("format", ["qcow2", "raw"])
    def test_what_was_written_is_read_back(self, tool: ImageTool, image: Path, format: str) -> None:
        tool.create(image, format, SIZE)
        wanted = bytearray(os.urandom(SIZE))
        with tool.open_for_writing(image, format) as writer:
            assert writer.size == SIZE
            for offset in range(0, SIZE, BLOCK_SIZE):
                writer.write(offset, memoryview(wanted)[offset : offset + BLOCK_SIZE])
            writer.flush()  # requests that overlap have no order without it
            writer.zero(BLOCK_SIZE, 2 * BLOCK_SIZE)
        wanted[BLOCK_SIZE : 3 * BLOCK_SIZE] = bytes(2 * BLOCK_SIZE)
        assert read(tool, image, format=format) == wanted
        with tool.open_for_writing(image, format) as writer:
            writer.write(512, memoryview(b"more".ljust(512)))
        wanted[512:1024] = b"more".ljust(512)
        assert read(tool, image, format=format) == wanted
        assert tool.check(image) == ""

    def test_layers_read_as_one_disk_and_links_in_the_files_do_not_matter(
        self, tool: ImageTool, image: Path
    ) -> None:
        below, top = image.with_name("below"), image.with_name("top")
        full, change = filled(SIZE, [0, 1, 3, 5], "full"), filled(SIZE, [1, 5], "change")
        write_layer(below, full)
        write_layer(top, change, backing="../nowhere/at all.qcow2")
        assert tool.info(top).backing_file == "../nowhere/at all.qcow2"
        wanted = bytearray(SIZE)
        for layer in (full, change):
            for block, data in layer.blocks.items():
                assert data is not None
                wanted[block * BLOCK_SIZE : block * BLOCK_SIZE + len(data)] = data
        before = below.read_bytes(), top.read_bytes()
        assert read(tool, top, below) == wanted
        assert read(tool, top)[:BLOCK_SIZE] == bytes(BLOCK_SIZE)
        assert (below.read_bytes(), top.read_bytes()) == before

    def test_existing_file_is_never_overwritten(self, tool: ImageTool, image: Path) -> None:
        image.write_bytes(b"mine")
        for format in ("qcow2", "raw"):
            with pytest.raises(InvalidInput, match="exists"):
                tool.create(image, format, SIZE)
        assert image.read_bytes() == b"mine"

    def test_missing_image_and_what_is_none_are_unreadable_by_name(
        self, tool: ImageTool, image: Path
    ) -> None:
        for ask in (tool.info, tool.check, lambda path: read(tool, path)):
            with pytest.raises(ImageUnreadable) as caught:
                ask(image)
            assert (caught.value.path, caught.value.reason) == (
                str(image),
                "No such file or directory",
            )
        image.write_bytes(b"no image\n" * 1000)
        with pytest.raises(ImageUnreadable, match="not in qcow2 format"):
            read(tool, image)
        assert tool.info(image).format == "raw"

    def test_images_are_the_same_if_size_and_content_are_whatever_the_format(
        self, tool: ImageTool, image: Path
    ) -> None:
        raw, other = image.with_name("raw"), image.with_name("-other, raw")
        content = bytes(BLOCK_SIZE) + os.urandom(BLOCK_SIZE) + bytes(2 * BLOCK_SIZE)
        write_layer(image, Layer(len(content), {1: content[BLOCK_SIZE : 2 * BLOCK_SIZE]}))
        raw.write_bytes(content)
        assert tool.same_content((raw, "raw"), (image, "qcow2"))
        for wrong in (content[:-1] + b"x", content + bytes(512), content[:-512]):
            other.write_bytes(wrong)
            assert not tool.same_content((other, "raw"), (image, "qcow2"))
        with pytest.raises(Cancelled):
            tool.same_content((raw, "raw"), (image, "qcow2"), _cancel)
        for pair in (((raw, "raw"), (image / "no", "qcow2")), ((raw / "no", "raw"), (raw, "raw"))):
            with pytest.raises(ImageUnreadable):
                tool.same_content(*pair)

    def test_error_while_writing_is_raised_as_it_is(self, tool: ImageTool, image: Path) -> None:
        tool.create(image, "raw", SIZE)
        with pytest.raises(Cancelled), tool.open_for_writing(image, "raw"):
            raise Cancelled


class TestFakeImageTool(ImageToolContract):
    @pytest.fixture
    def tool(self) -> ImageTool:
        return FakeImageTool()


class TestQemuImageTool(ImageToolContract):
    @pytest.fixture
    def tool(self) -> ImageTool:
        return QemuImageTool()
