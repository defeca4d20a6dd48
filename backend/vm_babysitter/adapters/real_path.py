"""Which file a path stands for, where a file system in user space (FUSE) lies in between.

Unraid shows the files of all its disks and pools together under ``/mnt/user``. QEMU there opens
them beneath, at ``/mnt/<disk or pool>``. Locks do not pass between the two, and what is written
through one while the other has the file open is lost. So we go where QEMU goes: the attribute
``system.LOCATION`` of a file in a share names its disk or pool.
"""

import ctypes
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _FORCE_SYNC, _STATX_SIZE = -100, 0x2000, 0x200
_STATX_LENGTH, _SIZE_AT = 256, slice(40, 48)
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class RealPath:
    """Where a file is."""

    path: str
    """Absolute, without links."""
    direct: bool
    """Whether this is the file itself; behind FUSE its locks and writes would not meet QEMU's."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How files in shares are found beneath: ``<root>/<rest>`` is ``<base>/<location>/<rest>``."""

    attribute: str
    """The extended attribute that tells the location, one component of a path."""
    base: Path
    roots: tuple[Path, ...]


UNRAID = Shares("system.LOCATION", Path("/mnt"), (Path("/mnt/user"), Path("/mnt/user0")))


def real_path(path: str, shares: Shares = UNRAID) -> RealPath:
    """Say where a file or block device really is. It need not exist; its folder is asked then.

    Never fails: what cannot be found out is not ``direct``. Cheap: two looks at the file and one
    at the list of mounts; the attribute is read only behind FUSE.
    """
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links; whoever opens it says so
        return RealPath(path, direct=False)
    try:
        if not _behind_fuse(resolved):
            return RealPath(str(resolved), direct=True)
        beneath = _beneath(resolved, shares)
    except OSError:  # it went away, or the file system fails
        beneath = None
    if beneath is None:
        return RealPath(str(resolved), direct=False)
    return RealPath(str(beneath), direct=True)


def fuse_devices(mountinfo: str) -> frozenset[int]:
    """Return the device numbers (``st_dev``) of the file systems in user space.

    ``mountinfo`` is the text of ``/proc/self/mountinfo``. A number is surer than the folder's
    name beside it, which may hold anything, and which later mounts may hide.
    """
    found = set()
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        kind = after.split(" ")[0]
        if kind in {"fuse", "fuseblk"} or kind.startswith("fuse."):
            major, _, minor = before.split(" ")[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _behind_fuse(path: Path) -> bool:
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return _nearest(path)[1] in fuse_devices(mounts)


def _nearest(path: Path) -> tuple[Path, int]:
    """Return the path, or the nearest folder above it that is there, and its device number."""
    for candidate in (path, *path.parents):
        try:
            return candidate, candidate.stat().st_dev
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise FileNotFoundError(path)


def _beneath(path: Path, shares: Shares) -> Path | None:
    """Return the file that this one in a share is; None if that is not sure."""
    rest = next((path.relative_to(r) for r in shares.roots if path.is_relative_to(r)), None)
    there = _nearest(path)[0]
    if rest is None or there not in {path, path.parent}:
        return None
    value = os.getxattr(there, shares.attribute).rstrip(b"\0")
    location = os.fsdecode(value)
    if location in {"", ".", ".."} or "/" in location:
        return None
    found = (shares.base / location / rest).resolve()
    if _behind_fuse(found):
        return None
    if not _alike(there, found if there == path else found.parent):
        return None
    return found


def _alike(one: Path, other: Path) -> bool:
    """Whether both may be one file: of the same kind, and of the same size if it has one."""
    kinds = [stat.S_IFMT(path.stat().st_mode) for path in (one, other)]
    if kinds[0] != kinds[1]:
        return False
    # The image of a VM that runs may grow between two looks at it, though not always.
    return not stat.S_ISREG(kinds[0]) or any(_size(one) == _size(other) for _ in range(_LOOKS))


def _size(path: Path) -> int:
    """Return the size that a file has now; plain ``stat`` tells what FUSE remembers of it."""
    found = ctypes.create_string_buffer(_STATX_LENGTH)
    failed = _libc.statx(_AT_FDCWD, os.fsencode(path), _FORCE_SYNC, _STATX_SIZE, found)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int.from_bytes(found.raw[_SIZE_AT], sys.byteorder)
