"""Working space of running backups: scratch files beside the disks, and job sockets."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from vm_babysitter.adapters.room import room
from vm_babysitter.domain.errors import ScratchUnfit, StoreFailed
from vm_babysitter.domain.space import Room
from vm_babysitter.lib.atomicfile import fsync_directory

_SOCKET = "nbd.socket"
_NONCE = re.compile(r"[0-9a-f]{6}")
_PROBE = b"vm-babysitter probe\n"


class Workspace:
    """Implements ``ports.ScratchPlaces``."""

    def __init__(self, runtime: Path, fallback: Path) -> None:
        """Use ``runtime`` for sockets and ``fallback`` for scratch that has no folder.

        Block devices have no folder to put scratch beside them.
        """
        self._runtime = runtime
        self._fallback = fallback.absolute()  # QEMU has a working directory of its own

    def scratch_path(self, disk_path: str, nonce: str, target: str) -> str:
        """See the port."""
        path = Path(disk_path)
        folder = path.parent if path.is_file() else self._fallback
        return str(folder / f".vmb-{nonce}-{target}.scratch")

    def probe(self, path: str) -> str:
        """See the port."""
        trial = Path(f"{path}.probe")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(trial, flags, 0o600)
            try:
                os.write(descriptor, _PROBE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                trial.unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def room(self, path: str) -> Room:
        """See the port."""
        folder = Path(path).parent
        try:
            return room(folder)
        except OSError as error:
            raise ScratchUnfit(str(folder), error.strerror or str(error)) from error

    def used(self, path: str) -> int:
        """See the port."""
        try:
            # Not the blocks taken: XFS takes them in leaps ahead, ZFS tells of them late.
            return Path(path).lstat().st_size
        except OSError:
            return 0

    def socket_path(self, nonce: str) -> str:
        """See the port."""
        return str(self._runtime / f"job-{nonce}" / _SOCKET)

    def _is_ours(self, file: Path, nonce: str) -> bool:
        """Whether an attempt with this nonce can have made a file of this name."""
        if not _NONCE.fullmatch(nonce):
            return False
        if file.parent.parent == self._runtime:
            return file.parent.name == f"job-{nonce}" and file.name == _SOCKET
        return file.name.startswith(f".vmb-{nonce}-") and file.name.endswith(".scratch")

    def remove(self, path: str, nonce: str) -> None:
        """See the port."""
        file = Path(path)
        if not self._is_ours(file, nonce):  # the document that names it was tampered with
            return
        try:
            for name in (file, Path(f"{path}.probe")):
                if _is_plain(name):
                    name.unlink()
            if file.name == _SOCKET and file.parent.is_dir():
                file.parent.rmdir()
            elif file.name != _SOCKET and file.parent.is_dir():
                _keep_removed(file.parent)
        except OSError as error:
            raise StoreFailed(path, error.strerror or str(error)) from error


def _keep_removed(folder: Path) -> None:
    """Have removed names stay so after a power cut: then nothing tells of them any more."""
    with suppress(OSError):  # some network file systems have no such thing
        fsync_directory(folder)


def _is_plain(path: Path) -> bool:
    """Whether this is a regular file or a socket, no link to one."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
