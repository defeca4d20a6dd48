"""Who has an image open, asked without a lock that would keep anybody from it; and such a lock.

QEMU tells others what it does to an image by locks on single bytes of the file: byte 100 + n says
"I use permission n", byte 200 + n "nobody else may". Asking which locks there are takes none, so
a VM that is started at that moment does not notice. Locks of open file descriptions, as these
are, end with the process, and need no more than a descriptor for reading.

Locks do not pass through FUSE, open files do: what has an image open for writing through FUSE
shows as the file system's own process, which has the file beneath open.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.domain.errors import ImageUnreadable

_USED, _FORBIDDEN = 100, 200
_WRITE, _WRITE_UNCHANGED, _RESIZE = 1, 2, 3
"""Permissions of QEMU's block layer, by their bits; these three write."""
_LOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, process."""
_FDINFO = 256  # bytes; what we want of an open file is told first


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a file open."""

    pid: int
    program: str
    """Its name as the kernel has it, at most 15 characters."""

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


def is_written(path: Path) -> bool:
    """Whether a QEMU (or a tool of it) has the image open for writing, by its lock.

    Where a file system knows no such locks, or QEMU has the image open through FUSE, none are
    seen: `writers` sees these.

    Raises:
        ImageUnreadable.
    """
    descriptor = _open(path)
    try:
        return any(_is_locked(descriptor, _USED + n) for n in (_WRITE, _WRITE_UNCHANGED, _RESIZE))
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def fenced(path: Path) -> Iterator[bool]:
    """Keep every QEMU from opening the image for writing while the context lasts.

    Yields whether that is so; it is not where some QEMU writes it already. Where the file
    system knows no such locks, QEMU does without them, and so do we. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        for permission in (_WRITE, _RESIZE):
            with suppress(OSError):
                wanted = _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _FORBIDDEN + permission, 1, 0)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        # Asked after that, as QEMU does: of two that begin at once, one sees the other.
        yield not is_written(path)
    finally:
        os.close(descriptor)


def writers(path: Path) -> tuple[Holder, ...]:
    """Return the processes of this host that have the file open for writing, QEMU's or not.

    Takes milliseconds. Sees all processes only as root.

    Raises:
        ImageUnreadable.
    """
    descriptor = _open(path)
    try:
        wanted = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    processes = sorted(int(p) for p in os.listdir("/proc") if p.isdecimal())  # noqa: PTH208
    return tuple(_holder(pid) for pid in processes if any(_open_for_writing(pid, wanted)))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageUnreadable(str(path), error.strerror or str(error)) from error


def _is_locked(descriptor: int, byte: int) -> bool:
    """Whether somebody has a lock on this byte; only the question is that of a writer."""
    question = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _open_for_writing(pid: int, wanted: os.stat_result) -> Iterator[bool]:
    """Tell of each open file of a process whether it is this one, open for writing."""
    with suppress(OSError):  # the process has ended
        for number in os.listdir(f"/proc/{pid}/fdinfo"):  # noqa: PTH208 - many, in a hurry
            with suppress(OSError):  # the file was closed
                yield _is_writing(pid, number, wanted)


def _is_writing(pid: int, number: str, wanted: os.stat_result) -> bool:
    descriptor = os.open(f"/proc/{pid}/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(descriptor, _FDINFO).split(b"\n")
    finally:
        os.close(descriptor)
    told = dict(line.split(b":\t", 1) for line in lines if b":\t" in line)
    if int(told[b"flags"], 8) & os.O_ACCMODE == os.O_RDONLY:
        return False
    # Asking for the file itself can hang, where its file system does: only if it may be ours.
    if int(told.get(b"ino", wanted.st_ino)) != wanted.st_ino:
        return False
    return os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), wanted)  # noqa: PTH116


def _holder(pid: int) -> Holder:
    try:
        return Holder(pid, Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    except OSError:
        return Holder(pid, "a program that has ended")
