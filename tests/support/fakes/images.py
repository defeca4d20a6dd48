"""Image files without QEMU: ``ports.ImageTool``."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.fakes.faults import Faults, faulty
from tests.support.memory_disk import MemoryReader, flagged
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.errors import ImageUnreadable, InvalidInput
from vm_babysitter.ports import ImageInfo

_QCOW2 = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing file: place and length, bits, size


class FakeDiskWriter(Faults):
    """Implements ``ports.DiskWriter``; all it was given is in ``content``.

    The real one has many requests in flight, in no order: what overlaps needs a flush in
    between. This one insists on it.
    """

    def __init__(self, content: bytearray) -> None:
        super().__init__()
        self.content = content
        self._in_flight: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self.content)

    @faulty
    def write(self, offset: int, data: memoryview) -> None:
        self._begin(offset, len(data))
        self.content[offset : offset + len(data)] = data

    @faulty
    def zero(self, offset: int, length: int) -> None:
        self._begin(offset, length)
        self.content[offset : offset + length] = bytes(length)

    @faulty
    def flush(self) -> None:
        self._in_flight.clear()

    def _begin(self, offset: int, length: int) -> None:
        end = offset + length
        assert 0 <= offset < end <= self.size, "a write outside of the disk"
        overlap = any(start < end and offset < stop for start, stop in self._in_flight)
        assert not overlap, "overlapping writes without a flush in between"
        self._in_flight.append((offset, end))


class FakeImageTool(Faults):
    """Implements ``ports.ImageTool`` on real files: raw ones, and qcow2 as we write it.

    ``fail["write"]`` is handed on to every writer opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wrong: dict[str, str] = {}
        """What ``check`` says, by the name of the image's folder."""
        self.lies: dict[int, int] = {}
        """Bytes that a reader gives instead of those that are stored, by offset."""
        self.missing = 0
        """How many bytes at the end a reader does not tell of."""

    @faulty
    def info(self, path: Path) -> ImageInfo:
        content = _read(path)
        if not content.startswith(_QCOW2):
            return ImageInfo(path, "raw", -(-len(content) // 512) * 512, None, None, None)
        _, _, place, length, bits, size = _HEADER.unpack_from(content)
        backing = content[place : place + length].decode() if length else None
        return ImageInfo(
            path=path,
            format="qcow2",
            virtual_size=size,
            backing_file=backing,
            backing_format=None if backing is None else "qcow2",
            cluster_size=1 << bits,
            compat="1.1",
        )

    @faulty
    def create(self, path: Path, format: str, size: int, cluster_size: int | None = None) -> None:
        assert cluster_size in {None, BLOCK_SIZE}
        if path.exists():
            raise InvalidInput("path", str(path), "exists; it is not overwritten")
        _write(path, format, bytes(size))

    @faulty
    def check(self, path: Path) -> str:
        _read(path)
        return self.wrong.get(path.parent.name, "")

    @faulty
    def same_content(
        self,
        left: tuple[Path, str],
        right: tuple[Path, str],
        go_on: Callable[[], None] = lambda: None,
    ) -> bool:
        go_on()
        one, other = (_content([image]) for image in (left, right))
        sizes = {-(-len(content) // 512) * 512 for content in (one, other)}
        return len(sizes) == 1 and one.rstrip(b"\0") == other.rstrip(b"\0")

    @contextmanager
    def open_for_reading(
        self, layers: Sequence[tuple[Path, str]], bitmap: str | None = None
    ) -> Iterator[MemoryReader]:
        self.calls.append("open_for_reading")
        if "open_for_reading" in self.fail:
            raise self.fail["open_for_reading"]
        assert bitmap is None, "images of ours have no bitmaps"
        content = bytearray(_content(layers))
        for offset, byte in self.lies.items():
            content[offset] = byte
        del content[len(content) - self.missing :]
        yield MemoryReader(content, flagged(len(content), _zeros(content)))

    @contextmanager
    def open_for_writing(self, path: Path, format: str) -> Iterator[FakeDiskWriter]:
        self.calls.append("open_for_writing")
        writer = FakeDiskWriter(bytearray(_content([(path, format)])))
        writer.fail.update(self.fail)
        try:
            yield writer
            writer.flush()
        finally:  # what was written is there, whatever came of it
            path.unlink()
            _write(path, format, writer.content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable(str(path), error.strerror or str(error)) from error


def _content(layers: Sequence[tuple[Path, str]]) -> bytes:
    for path, format in layers:
        if format == "qcow2" and not _read(path).startswith(_QCOW2):
            raise ImageUnreadable(str(path), "Image is not in qcow2 format")
    if layers[0][1] == "raw":
        assert len(layers) == 1
        return _read(layers[0][0])
    assert all(format == "qcow2" for _, format in layers)
    return read_layers([path for path, _ in layers])


def _write(path: Path, format: str, content: bytes | bytearray) -> None:
    if format == "raw":
        path.write_bytes(content)
        return
    assert format == "qcow2"
    writer = Qcow2Writer(path, len(content), None, None)
    for block, start in enumerate(range(0, len(content), BLOCK_SIZE)):
        data = content[start : start + BLOCK_SIZE]
        if any(data):
            writer.map_data(block, writer.append(memoryview(data), list(fingerprints(data))), 1)
    writer.finish()


def _zeros(content: bytearray) -> Iterator[tuple[int, int]]:
    """Tell of every other block that is zero, as images know of some zeros only."""
    for start in range(0, len(content), 2 * BLOCK_SIZE):
        if not any(content[start : start + BLOCK_SIZE]):
            yield start, start + BLOCK_SIZE
