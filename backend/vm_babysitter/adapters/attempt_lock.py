"""Shows that a process is at an attempt: by a locked file in the runtime folder.

The mark of an attempt lies in the backup folder, and a copy of that folder has it too. So the
mark cannot tell whether somebody is at it; a lock on the host where the job runs can. The kernel
drops it however the process ends, and it has no number that could come again.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "attempt-"
_LONGEST = 32  # bytes


@contextmanager
def held(runtime: Path, nonce: str) -> Iterator[None]:
    """Be at an attempt for the time of the context. Raises OSError."""
    runtime.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = _path(runtime, nonce)
    descriptor = _locked(path)
    try:
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(runtime: Path, nonce: str) -> str:
    """Say who is at an attempt, ``process 4711``; empty if nobody is. Raises OSError."""
    try:
        descriptor = os.open(_path(runtime, nonce), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.read(descriptor, _LONGEST).decode(errors="replace")
        return f"process {number}" if number.isdecimal() else "another process"
    finally:
        os.close(descriptor)
    return ""


def remove_abandoned(runtime: Path) -> None:
    """Remove the files of those that were killed; what fails is tried again by the next."""
    for path in runtime.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _path(runtime: Path, nonce: str) -> Path:
    return runtime / f"{_PREFIX}{nonce}"


def _locked(path: Path) -> int:
    """Return a new file, open and locked."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # who looks whether it is abandoned is quick
            # Whoever took it for abandoned before it was locked has removed it.
            if os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
