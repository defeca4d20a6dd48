"""Images that are converted, and the notes beside them: ``ports.ConversionFiles``."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from vm_babysitter.adapters.image_lock import fenced, is_written, writers
from vm_babysitter.adapters.real_path import RealPath, real_path
from vm_babysitter.adapters.room import room
from vm_babysitter.adapters.store import documents
from vm_babysitter.domain.conversion import ImageFile, Note
from vm_babysitter.domain.errors import Busy, ConversionFailed, Damaged
from vm_babysitter.domain.space import Room
from vm_babysitter.lib.atomicfile import fsync_directory, rename_new, write_atomically

T = TypeVar("T")
_KIND = "conversion"
_NOT_PLAIN = "it is no plain file", "Nothing of ours is that: move it away."
_BLOCK = 512  # what st_blocks counts, whatever the file system's blocks are


class LocalConversionFiles:
    """Implements ``ports.ConversionFiles``."""

    def __init__(self, resolve: Callable[[str], RealPath] = real_path) -> None:
        """``resolve`` finds the file that QEMU opens for a path in a definition."""
        self._resolve = resolve

    def real_path(self, path: str) -> str:
        """See the port."""
        return self._resolve(path).path

    def look(self, path: str) -> ImageFile | None:
        """See the port."""
        try:
            found = Path(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failed(path, error) from error
        return ImageFile(
            device=found.st_dev,
            inode=found.st_ino,
            size=found.st_size,
            modified=found.st_mtime_ns,
            changed=found.st_ctime_ns,
            allocated=found.st_blocks * _BLOCK,
            links=found.st_nlink,
            plain=stat.S_ISREG(found.st_mode),
        )

    def room(self, path: str) -> Room:
        """See the port."""
        return _failing(path, lambda: room(Path(path).parent))

    def writer(self, path: str) -> str:
        """See the port."""
        file = Path(path)
        holders = ", ".join(map(str, writers(file)))
        return holders or ("a QEMU" if is_written(file) else "")

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """See the port."""
        # A name in the kernel only: it goes when the process does, and leaves no file.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as claim:
            try:
                claim.bind(f"\0vm-babysitter convert {name}")
            except OSError as error:
                raise Busy("This VM", "another conversion of its disks is under way") from error
            yield

    @contextmanager
    def fence(self, path: str) -> Iterator[None]:
        """See the port."""
        with ExitStack() as held:
            if not _failing(path, lambda: held.enter_context(fenced(Path(path)))):
                raise Busy(f"The disk image {path!r}", "a QEMU has it open for writing")
            yield

    def dress(self, path: str, like: str) -> None:
        """See the port."""
        _failing(path, lambda: _dress(Path(path), Path(like)))

    def place(self, path: str, final: str) -> None:
        """See the port."""

        def do() -> None:
            rename_new(Path(path), Path(final))
            fsync_directory(Path(final).parent)

        _failing(final, do)

    def remove(self, path: str) -> None:
        """See the port."""

        def do() -> None:
            file = Path(path)
            if os.path.lexists(file) and stat.S_ISREG(file.lstat().st_mode):
                file.unlink()
                fsync_directory(file.parent)

        _failing(path, do)

    def read_note(self, path: str) -> Note | None:
        """See the port."""
        if not os.path.lexists(path):
            return None
        content = _failing(path, lambda: _read_plain(path))
        return documents.decode(content, _KIND, Note, Path(path))

    def write_note(self, path: str, note: Note) -> None:
        """See the port."""
        content = documents.encode(_KIND, note)
        _failing(path, lambda: write_atomically(Path(path), content))


def _read_plain(path: str) -> bytes:
    """Read a file that others may have put there: a pipe, say, would be waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Damaged(path, *_NOT_PLAIN) from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Damaged(path, *_NOT_PLAIN)
        return file.read()


def _dress(path: Path, like: Path) -> None:
    wanted = like.stat()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(wanted.st_mode))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failing(path: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: str, error: OSError) -> ConversionFailed:
    return ConversionFailed(path, error.strerror or str(error))
