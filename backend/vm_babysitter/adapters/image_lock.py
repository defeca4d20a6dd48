"""Whether some QEMU writes to an image: asked without a lock that would keep others from it.

QEMU tells others what it does to an image by locks on single bytes of the file: byte 100 + n says
"I use permission n". Asking which locks there are takes none.
"""

import fcntl
import os
import struct
from pathlib import Path

from vm_babysitter.domain.errors import ImageUnreadable

_USED = 100
_WRITE, _RESIZE = 1, 3
_LOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, process."""


def is_written(path: Path) -> bool:
    """Whether a QEMU of this host has the image open for writing.

    Where a file system knows no such locks, or lies behind FUSE, none are seen.

    Raises:
        ImageUnreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageUnreadable(str(path), error.strerror or str(error)) from error
    try:
        return any(_is_locked(descriptor, _USED + n) for n in (_WRITE, _RESIZE))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, byte: int) -> bool:
    question = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)
