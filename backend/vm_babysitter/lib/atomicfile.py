"""Files that are there whole or not at all, and directories that stay written."""

import contextlib
import errno
import os
from pathlib import Path

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links say."""


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write ``content`` to ``path`` so that a crash leaves the old file or the new one.

    The file and its directory are on stable storage on return.

    Raises:
        OSError: nothing was changed at ``path``.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Whatever a crash, or somebody else, has left there: a link would lead elsewhere.
        temporary.unlink(missing_ok=True)
        write_new(temporary, content, mode)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file and have its content on stable storage.

    Raises:
        FileExistsError, OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(path: Path, final: Path) -> None:
    """Rename a file; what has been put under the new name meanwhile stays there.

    Raises:
        FileExistsError, OSError.
    """
    try:
        final.hardlink_to(path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if is_there(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
        path.rename(final)
    else:
        path.unlink()


def is_there(path: Path) -> bool:
    """Whether anything has this name, be it a link that leads nowhere.

    Raises:
        OSError: that cannot be told. ``os.path.lexists`` would say no.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def fsync_directory(path: Path) -> None:
    """Have the entries of a directory (new, renamed and removed names) on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
