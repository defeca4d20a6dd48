"""Working space of running backups: scratch files beside the disks, and job sockets."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vm_babysitter.adapters import attempt_lock
from vm_babysitter.adapters.image_lock import writers
from vm_babysitter.adapters.room import room
from vm_babysitter.adapters.this_host import runs_with
from vm_babysitter.domain.chain import Attempt
from vm_babysitter.domain.errors import ImageUnreadable, ScratchUnfit, StoreFailed
from vm_babysitter.domain.space import Room
from vm_babysitter.lib.atomicfile import fsync_directory

_SOCKET = "nbd.socket"
_NONCE = re.compile(r"[0-9a-f]{6}")
_PROBE = b"vm-babysitter probe\n"
_LISTENERS = Path("/proc/net/unix")
_LISTENS = 0x10000
"""The flag of a socket there that waits for clients."""


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

    @contextmanager
    def hold(self, nonce: str) -> Iterator[None]:
        """See the port."""
        with ExitStack() as stack:
            try:
                stack.enter_context(attempt_lock.held(self._runtime, nonce))
            except OSError as error:
                reason = error.strerror or str(error)
                raise StoreFailed(str(self._runtime), reason) from error
            yield

    def holder(self, nonce: str) -> str:
        """See the port."""
        if not _NONCE.fullmatch(nonce):  # no attempt of ours
            return ""
        try:
            return attempt_lock.holder(self._runtime, nonce)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreFailed(str(self._runtime), reason) from error

    def remove_abandoned(self) -> None:
        """See the port."""
        attempt_lock.remove_abandoned(self._runtime)

    def still_used(self, attempt: Attempt) -> str:
        """See the port."""
        if runs_with("-uuid", attempt.vm_uuid):
            return "a QEMU with its UUID runs"
        if attempt.socket and _is_listened_at(attempt.socket):
            return f"somebody serves the job of a backup of it at {attempt.socket!r}"
        for path in attempt.scratch:
            with suppress(ImageUnreadable):  # it is not there
                if found := writers(Path(path)):
                    return f"{found[0]} has {path!r} open"
        return ""


def _is_listened_at(path: str) -> bool:
    """Whether a process of this host waits for clients at a socket; it is not disturbed."""
    try:
        lines = os.fsdecode(_LISTENERS.read_bytes()).split("\n")[1:]
    except OSError:
        return False
    # Number, references, protocol, flags, type, state, inode, path.
    fields = (line.split(maxsplit=7) for line in lines)
    return any(len(f) == 8 and f[7] == path and int(f[3], 16) & _LISTENS for f in fields)  # noqa: PLR2004


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
