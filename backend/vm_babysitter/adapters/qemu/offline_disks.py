"""Disks of VMs that are off, read from their images; implements ``ports.OfflineDisks``."""

import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from vm_babysitter.adapters.real_path import RealPath, real_path
from vm_babysitter.domain.errors import ImageUnreadable
from vm_babysitter.domain.offline import Stamp
from vm_babysitter.domain.vm import MOST_LAYERS, Bitmap, Disk, DiskState, Layer
from vm_babysitter.ports import DiskReader, ImageInfo, ImageTool, OfflineDisk


class ImageDisks:
    """Reads what QEMU would open if the VM were started now."""

    def __init__(
        self,
        images: ImageTool,
        is_written: Callable[[Path], bool],
        resolve: Callable[[str], RealPath] = real_path,
    ) -> None:
        """``is_written`` tells whether some QEMU has an image open for writing.

        ``resolve`` says which file a path stands for.
        """
        self._images = images
        self._is_written = is_written
        self._resolve = resolve

    def look(self, disk: Disk) -> OfflineDisk:
        """See the port."""
        path, format = Path(disk.path), disk.declared_format or disk.real_format
        if disk.encrypted:
            raise _needs_qemu(path, "it is encrypted")
        if disk.partial:
            raise _needs_qemu(path, "the VM sees only a part of it")
        name = Path(disk.source)  # links in it are not resolved: QEMU looks beside them
        stamps: list[Stamp] = []
        layers: list[Layer] = []
        used: list[tuple[Path, str]] = []
        snapshots = 0
        while True:
            stamps.append(self._stamp(path))
            info = self._images.info(path)
            if format != info.format:
                info = ImageInfo(path, format, info.virtual_size, None, None, None)
            if info.data_file:  # which changes where the image itself does not
                stamps.append(self._stamp(_data_file(path, info)))
            if not used:
                snapshots = info.internal_snapshots
            used.append((path, format))
            layers.append(Layer(str(path), tuple(_bitmap(*b) for b in info.bitmaps)))
            if info.backing_file is None:
                break
            name, format = _below(path, name, info, len(used))
            path = Path(self._resolve(str(name)).path)
        self._check_beneath(disk, used)
        identity = f"inode:{stamps[0].inode}"
        state = DiskState(disk.target, identity, tuple(layers), snapshots)
        return OfflineDisk(state, tuple(used), tuple(stamps))

    def _check_beneath(self, disk: Disk, used: Sequence[tuple[Path, str]]) -> None:
        """Check that the definition says of the images beneath what the images say.

        Where it says anything, QEMU does not ask the images.
        """
        there = [(str(path), format) for path, format in used[1:]]
        for depth, (place, format) in enumerate(disk.beneath):
            told = [(self._resolve(place).path, format)] if place else []
            if there[depth : depth + 1] != told:
                reason = "the VM's definition names other images beneath it than it does itself"
                raise _needs_qemu(Path(disk.path), reason)

    def stamps(self, paths: Sequence[str]) -> tuple[Stamp, ...]:
        """See the port."""
        return tuple(self._stamp(Path(path)) for path in paths)

    def writer(self, disk: OfflineDisk) -> str:
        """See the port."""
        written = (s.path for s in disk.stamps if self._is_written(Path(s.path)))
        return next(written, "")

    def open(self, disk: OfflineDisk, bitmap: str | None) -> AbstractContextManager[DiskReader]:
        """See the port."""
        return self._images.open_for_reading(disk.images, bitmap)

    def _stamp(self, path: Path) -> Stamp:
        try:
            found = path.stat()
        except OSError as error:
            raise ImageUnreadable(str(path), error.strerror or str(error)) from error
        return Stamp(
            path=str(path),
            device=found.st_dev,
            inode=found.st_ino,
            size=found.st_size,
            modified=found.st_mtime_ns,
            changed=found.st_ctime_ns,
            # Behind FUSE one is told what it remembers, while QEMU writes beneath it.
            telling=stat.S_ISREG(found.st_mode) and self._resolve(str(path)).direct,
        )


def _needs_qemu(path: Path, reason: str) -> ImageUnreadable:
    told = f"{reason}; it can be read only while the VM runs"
    return ImageUnreadable(str(path), told, "Back the VM up while it runs.")


def _below(path: Path, opened: Path, info: ImageInfo, depth: int) -> tuple[Path, str]:
    """Return the name of an image's backing file, as QEMU opens it, and its format.

    ``opened`` is the image as QEMU opens it, which may be a link in another folder.
    """
    name, format = info.backing_file or "", info.backing_format
    if info.format != "qcow2" or not format or "json:" in name or depth >= MOST_LAYERS:
        raise _needs_qemu(path, f"it builds on {name!r} in a way that only QEMU follows")
    found = opened.parent / name
    if not found.exists():
        raise ImageUnreadable(str(path), f"{name!r}, which it builds on, is not there")
    return found, format


def _data_file(path: Path, info: ImageInfo) -> Path:
    found = Path(info.data_file)
    if not found.is_absolute():  # QEMU looks for it where it was started, if it is a file at all
        raise _needs_qemu(path, f"its content lies where only QEMU finds it: {info.data_file!r}")
    return found


def _bitmap(name: str, flags: frozenset[str]) -> Bitmap:
    return Bitmap(name, recording="auto" in flags, inconsistent="in-use" in flags)
