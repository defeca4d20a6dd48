"""QEMU's image files, read and written through NBD; implements ``ports.ImageTool``."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vm_babysitter.adapters.qemu import img, nbd
from vm_babysitter.adapters.qemu.emulator import PROGRAM, Emulator
from vm_babysitter.adapters.qemu.export import Export, Way
from vm_babysitter.adapters.qemu.nodes import Node, exclusive, shared_chain
from vm_babysitter.adapters.qemu.qemu_nbd import QemuNbd
from vm_babysitter.domain.errors import (
    Busy,
    CommandFailed,
    ImageUnreadable,
    ProgramMissing,
)
from vm_babysitter.ports import DiskReader, DiskWriter, ImageInfo

_WITHOUT = (
    "Install it (Debian: qemu-utils), or put it on the PATH. `restore` works without, and checks "
    "each block that it writes."
)


def find_way() -> Way:
    """Choose how images are exported: ``qemu-nbd`` where it is, else the emulator.

    Raises:
        ProgramMissing: there is neither.
    """
    if shutil.which("qemu-nbd"):
        return QemuNbd()
    if PROGRAM.exists():
        return Emulator()
    raise ProgramMissing("qemu-nbd")


class QemuImageTool:
    """Image files by QEMU's own programs; implements ``ports.ImageTool``."""

    def __init__(self, way: Way | None = None, tuning: nbd.Tuning = nbd.DEFAULT) -> None:
        """Choose how to open images.

        Args:
            way: how images are exported; by default what `find_way` finds when it is needed.
            tuning: how hard to drive its server.
        """
        self._way = way
        self._tuning = tuning

    def require_programs(self) -> None:
        """Raise ProgramMissing if restore points cannot be read with QEMU's programs."""
        if not shutil.which(img.PROGRAM):
            raise ProgramMissing(img.PROGRAM, _WITHOUT)
        if self._way is None:
            find_way()

    def info(self, path: Path) -> ImageInfo:
        """Describe one image, shared with whoever has it open."""
        return img.info(path)

    def create(self, path: Path, format: str, size: int, cluster_size: int | None = None) -> None:
        """Create an empty image of ``size`` bytes; refuses to overwrite."""
        img.create(path, format, size, cluster_size)

    def check(self, path: Path) -> str:
        """Return what is wrong with the metadata of one image, empty if nothing is."""
        return img.check(path)

    def same_content(
        self,
        left: tuple[Path, str],
        right: tuple[Path, str],
        go_on: Callable[[], None] = lambda: None,
    ) -> bool:
        """Compare two images by ``qemu-img compare``, see ``ports.ImageTool``."""
        return img.same_content(left, right, go_on)

    @contextmanager
    def open_for_reading(
        self, layers: Sequence[tuple[Path, str]], bitmap: str | None = None
    ) -> Iterator[DiskReader]:
        """Open a chain of images, the top layer first, see ``ports.ImageTool``."""
        node = shared_chain(layers)
        paths = [path for path, _ in layers]
        if bitmap is not None:
            _check_bitmap(paths[0], bitmap)
        with (
            self._export(paths, node, writable=False, bitmap=bitmap) as export,
            nbd.open_reader(
                export.address,
                export.name,
                bitmap=bitmap,
                tuning=self._tuning,
            ) as reader,
        ):
            yield reader
        for path in paths:
            _spare_page_cache(path)

    @contextmanager
    def open_for_writing(self, path: Path, format: str) -> Iterator[DiskWriter]:
        """Open one image for writing, see ``ports.ImageTool``."""
        with (
            self._export([path], exclusive(path, format), writable=True) as export,
            nbd.open_writer(
                export.address,
                export.name,
                tuning=self._tuning,
            ) as writer,
        ):
            yield writer

    @contextmanager
    def _export(
        self, paths: Sequence[Path], node: Node, *, writable: bool, bitmap: str | None = None
    ) -> Iterator[Export]:
        way = self._way or find_way()
        opened = False
        try:
            with way.export(node, writable=writable, bitmap=bitmap) as export:
                opened = True
                yield export
        except CommandFailed as error:
            if opened:
                raise
            path = _culprit(paths, error.output)
            if img.is_locked(error.output):
                what = f"The disk image {str(path)!r}"
                raise Busy(what, "another program has it open") from error
            raise ImageUnreadable(str(path), img.words(error.output, path)) from error


def _culprit(paths: Sequence[Path], output: str) -> Path:
    """Return the image that QEMU complains of; the top layer, if it does not say."""
    return next((path for path in paths if f"'{path.absolute()}'" in output), paths[0])


def _spare_page_cache(path: Path) -> None:
    """Tell the kernel that what QEMU has read of an image need not stay in memory."""
    with suppress(OSError):  # a hint only
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _check_bitmap(path: Path, bitmap: str) -> None:
    """Check that the image itself has this bitmap: QEMU would take one of a layer below."""
    flags = dict(img.info(path).bitmaps).get(bitmap)
    if flags is None:
        raise ImageUnreadable(str(path), f"it has no bitmap {bitmap!r}")
    if "in-use" in flags:
        raise ImageUnreadable(str(path), f"its bitmap {bitmap!r} was not stored properly")
