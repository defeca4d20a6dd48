"""Dirty bitmaps in images of VMs that are off, by ``qemu-img``; see ``ports.OfflineBitmaps``."""

from collections.abc import Callable
from pathlib import Path

from vm_babysitter.adapters.process import run
from vm_babysitter.adapters.qemu import img
from vm_babysitter.adapters.qemu.nodes import as_filename, file_node
from vm_babysitter.domain.errors import Busy

_TIMEOUT = 120.0
"""Seconds: a sleeping hard disk, an image with many tables."""


class QemuOfflineBitmaps:
    """Implements ``ports.OfflineBitmaps``.

    ``qemu-img`` takes QEMU's lock on the image, so it fails where a QEMU has it open, and for
    the moment of the call no other begins.
    """

    def __init__(self, is_written: Callable[[Path], bool]) -> None:
        """``is_written`` tells whether some QEMU has an image open for writing."""
        self._is_written = is_written

    def add(self, path: Path, name: str) -> None:
        """See the port."""
        self._change("--add", path, name)

    def remove(self, path: Path, name: str) -> None:
        """See the port."""
        if name in dict(img.info(path).bitmaps):
            self._change("--remove", path, name)

    def _change(self, what: str, path: Path, name: str) -> None:
        if self._is_written(path):
            raise Busy(f"The disk image {str(path)!r}", "another program has it open")
        image = as_filename({"driver": "qcow2", "file": file_node(path)})
        run(["qemu-img", "bitmap", what, image, name], timeout=_TIMEOUT)
