"""The socket of the API: taken over from a daemon that died, never from one that lives."""

import fcntl
import os
import socket
import stat
from pathlib import Path

from vm_babysitter.domain.errors import Busy, InvalidInput
from vm_babysitter.lib.unixhttp import address_of

_FIELD = "--socket"
_OTHERS = 0o077
_BACKLOG = 128
_PATIENCE = 2.0
"""Seconds for a first answer of whoever listens."""


class Listening:
    """A listening socket at a path, and the lock that says that the path is ours.

    The lock is a file beside it. It is let go of by the kernel when its holder dies, however it
    does, and so tells a socket that was left behind from one that serves.
    """

    def __init__(self, path: Path) -> None:
        """Listen. Only the owner of this process may connect.

        Raises:
            Busy: another daemon serves there.
            InvalidInput: the folder, or what lies at the path, is not fit for it.
            OSError: the folder cannot be made or written to.
        """
        self.path = path
        _prepare_folder(path)
        self._lock = _lock(path)
        try:
            self.socket = _listen(path)
            self._identity = _identity(path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Take the socket away, if it still is ours, and let go of the path."""
        if _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        self.socket.close()
        os.close(self._lock)


def _prepare_folder(path: Path) -> None:
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(_FIELD, str(folder), "is not a folder of its own", "Choose another.")
    if found.st_uid != os.geteuid():
        raise InvalidInput(_FIELD, str(folder), "belongs to another user", "Choose another folder.")
    if found.st_mode & stat.S_ISVTX:
        rule = "is a folder that everybody shares"
        raise InvalidInput(_FIELD, str(folder), rule, "Choose a folder that is for this only.")
    ours = {path.name, _lock_of(path).name, _new_of(path).name}
    if stat.S_IMODE(found.st_mode) & _OTHERS and {each.name for each in folder.iterdir()} - ours:
        rule = "is a folder that others can reach into, with other things in it"  # /run, say
        raise InvalidInput(_FIELD, str(folder), rule, "Choose a folder that is for this only.")
    folder.chmod(0o700)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _new_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(_lock_of(path), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Busy(f"the API socket {path}", "another daemon serves there") from error
    return lock


def _listen(path: Path) -> socket.socket:
    """Listen under another name, then take the path at once: there is always one that answers."""
    _make_sure_nobody_serves(path)
    new = _new_of(path)
    new.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(new) as address:
            listening.bind(address)
        new.chmod(0o600)
        listening.listen(_BACKLOG)
        new.replace(path)
    except BaseException:
        listening.close()
        new.unlink(missing_ok=True)
        raise
    return listening


def _make_sure_nobody_serves(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        rule = "is there already and is no socket"
        raise InvalidInput(_FIELD, str(path), rule, "Remove it, or choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying:
        trying.settimeout(_PATIENCE)
        try:
            with address_of(path) as address:
                trying.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:  # too busy to accept, or of another kind: somebody has it
            raise Busy(f"the API socket {path}", f"somebody has it: {error.strerror}") from error
    raise Busy(f"the API socket {path}", "somebody answers there")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
