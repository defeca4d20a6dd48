"""Dirty bitmaps in images of VMs that are off, by ``qemu-img``; see ``ports.OfflineBitmaps``.

``qemu-img`` takes QEMU's lock on the image: it fails where a QEMU has it open, and a QEMU that is
started in the same moment fails or waits for libvirt to try again. The lock is worth something
only if both name the same file, so images behind FUSE are found beneath it or left alone.

For the moment of the call (some hundredths of a second) QEMU marks all bitmaps of the image as
in use, as it does when a VM starts and while it runs. A power cut in that moment makes them
unusable or loses them, which costs the next backup a comparison of the whole disk; content is not
at risk. So ``qemu-img`` goes on to its end even if we are killed, and is not begun where space may
run out: it would lose all bitmaps, and end with success.
"""

from collections.abc import Callable
from pathlib import Path

from vm_babysitter.adapters import image_lock
from vm_babysitter.adapters.process import execute
from vm_babysitter.adapters.qemu import img
from vm_babysitter.adapters.qemu.nodes import as_filename, file_node
from vm_babysitter.adapters.real_path import RealPath, real_path
from vm_babysitter.adapters.room import room
from vm_babysitter.domain.errors import Busy, CommandFailed, ImageRefused, NotEnoughSpace
from vm_babysitter.ports import ImageInfo

_RESERVE = 16 << 20
_FINEST = 4096
"""Bytes of disk for each bit of a bitmap: the least that QEMU takes by itself."""
_OVERHEAD = 4
"""Clusters that storing one bitmap takes beside its content."""

Bitmaps = dict[str, frozenset[str]]


class QemuOfflineBitmaps:
    """Implements ``ports.OfflineBitmaps``."""

    def __init__(
        self,
        is_written: Callable[[Path], bool] = image_lock.is_written,
        resolve: Callable[[str], RealPath] = real_path,
    ) -> None:
        """``is_written`` tells whether a QEMU writes to an image; ``resolve`` finds it."""
        self._is_written = is_written
        self._resolve = resolve

    def add(self, path: Path, name: str) -> None:
        """See the port."""
        found = self._resolve(str(path))
        info = img.info(_direct(found))
        if info.format != "qcow2" or info.compat == "0.10":
            raise ImageRefused(found.path, "only a qcow2 of version 3 can hold bitmaps")
        bitmaps = dict(info.bitmaps)
        if name in bitmaps:
            raise ImageRefused(found.path, f"it has a bitmap {name!r} already")
        self._change("--add", info, name, bitmaps | {name: frozenset({"auto"})})

    def remove(self, path: Path, name: str) -> None:
        """See the port."""
        found = self._resolve(str(path))
        info = img.info(Path(found.path))
        if name not in dict(info.bitmaps):
            return
        _direct(found)
        left = {n: flags for n, flags in info.bitmaps if n != name}
        self._change("--remove", info, name, left)

    def _change(self, what: str, info: ImageInfo, name: str, wanted: Bitmaps) -> None:
        self._check_unused(info.path)
        _check_room(info)
        node = {"driver": "qcow2", "file": file_node(info.path)}
        argv = ["qemu-img", "bitmap", what, "--", as_filename(node), name]
        done = execute(argv, timeout=img.TIMEOUT, finish=True)
        if img.is_locked(done.stderr):
            raise _busy(info.path, "another program has it open")
        # Its exit status does not tell whether the bitmaps were stored. A VM that was started
        # since makes them look as if they were not; then a second look tells.
        stored = _bitmaps(info.path) == wanted
        # Whoever came through FUSE meanwhile saw no lock; then nothing is sure.
        self._check_unused(info.path)
        if done.status != 0 or not (stored or _bitmaps(info.path) == wanted):
            reason = img.words(done.stderr, info.path)
            raise CommandFailed("qemu-img bitmap", done.status, reason)

    def _check_unused(self, path: Path) -> None:
        if self._is_written(path):
            raise _busy(path, "a VM or another program of QEMU writes to it")
        others = image_lock.writers(path)
        if others:
            raise _busy(path, f"{', '.join(map(str, others))} has it open for writing")


def _bitmaps(path: Path) -> Bitmaps:
    return dict(img.info(path).bitmaps)


def _direct(found: RealPath) -> Path:
    """Return the path of an image that can be written to. Raises ImageRefused."""
    if not found.direct:
        reason = "it lies behind a file system in user space (FUSE), where locks do not hold"
        raise ImageRefused(found.path, reason, "Name it by its disk or pool in the VM.")
    return Path(found.path)


def _busy(path: Path, reason: str) -> Busy:
    return Busy(f"The disk image {str(path)!r}", reason)


def _check_room(info: ImageInfo) -> None:
    """Check that all bitmaps of an image can be stored again, as each change of one does."""
    if not info.path.is_file():
        return  # a block device has what it has
    each = info.virtual_size // _FINEST // 8 + _OVERHEAD * (info.cluster_size or 0)
    needed = _RESERVE + (len(info.bitmaps) + 1) * each
    free = room(info.path).free
    if free < needed:
        raise NotEnoughSpace(str(info.path.parent), free, needed)
