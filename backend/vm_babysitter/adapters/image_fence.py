"""Keep QEMU from beginning to write an image, for moments.

By the locks that ``image_lock`` asks for: whoever holds byte 200 + n of an image says that nobody
else may use permission n of it. Such a lock ends with the process that has it, and needs no more
than a descriptor for reading.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vm_babysitter.adapters.image_lock import is_written

_FORBIDDEN = 200
_WRITE, _RESIZE = 1, 3
_LOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, process."""


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
