"""Files of a restore point: created once, never overwritten, errors as ours.

A store may lie on a network share or a USB disk that goes away: every call can fail, at the
very end too. Files are read with plain reads, not mapped into memory, because a vanished file
system would kill the process there.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Condition
from typing import Self

from vm_babysitter.domain.errors import Damaged, StoreFailed

_WRITE_BACK = 64 << 20
"""Bytes after which the kernel is told to write and forget what it has of a new file."""


class NewFile:
    """A file that did not exist before, readable by its owner only. Safe for threads.

    Raises:
        StoreFailed: from every method, and from ``sync_and_close`` again if an earlier
            write had failed: such a file never passes for complete.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failure: str | None = None
        self._writers = 0
        self._since_hint = 0
        self._closed = False
        self._state = Condition()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at ``offset``."""
        self._enter()
        try:
            rest = memoryview(data)
            while rest:
                done = os.pwrite(self._fd, rest, offset)
                if not done:
                    raise self._failed("it takes no more data")
                rest = rest[done:]
                offset += done
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._leave(len(data))

    def extend(self, size: int) -> None:
        """Make the file ``size`` bytes long; what is not written reads as zero."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failed(error) from error

    def sync_and_close(self) -> None:
        """Have all of it on stable storage, or raise. The name needs an fsync of its folder."""
        self._shut()
        try:
            try:
                if self._failure is not None:
                    raise StoreFailed(str(self._path), self._failure)
                os.fsync(self._fd)
                _forget(self._fd, 0, 0)
            finally:
                os.close(self._fd)  # network file systems report late errors here
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Close the file as it is. Harmless after ``sync_and_close``."""
        try:
            self._shut()
        except ValueError:
            return
        try:
            os.close(self._fd)
        except OSError as error:
            self._failed(error)

    def _enter(self) -> None:
        with self._state:
            if self._closed:
                raise ValueError(f"{self._path} is closed")
            self._writers += 1

    def _leave(self, written: int) -> None:
        with self._state:
            self._since_hint += written
            hint = self._since_hint >= _WRITE_BACK
            if hint:
                self._since_hint = 0
        if hint:
            # Starts the write-back of dirty pages and drops clean ones: the guests keep
            # their page cache, and the fsync at the end finds little to do.
            _forget(self._fd, 0, 0)
        with self._state:
            self._writers -= 1
            self._state.notify_all()

    def _shut(self) -> None:
        """Let no new writer in and wait for those inside.

        Closing under a running write could send its data into whatever file gets the
        same descriptor next.
        """
        with self._state:
            if self._closed:
                raise ValueError(f"{self._path} is closed")
            self._closed = True
            self._state.wait_for(lambda: self._writers == 0)

    def _failed(self, error: OSError | str) -> StoreFailed:
        reason = error if isinstance(error, str) else error.strerror or str(error)
        self._failure = self._failure or reason
        return StoreFailed(str(self._path), reason)


class StoredFile:
    """A file of a restore point, open for reading at any place. Use as a context manager.

    Raises:
        Damaged: if the file is missing or none, or ends where there should be data.
        StoreFailed: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A pipe would keep us waiting for ever without O_NONBLOCK.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Damaged(str(path), "it is missing") from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            state = os.fstat(self._fd)
        except OSError as error:
            os.close(self._fd)
            raise self._failed(error) from error
        if not stat.S_ISREG(state.st_mode):
            os.close(self._fd)
            raise Damaged(str(path), "it is no file")
        self.size = state.st_size
        self.identity = (state.st_dev, state.st_ino)
        """Tells the file that was opened from whatever gets its name."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        if not 0 <= length <= self.size - offset:  # a damaged place must not cost memory
            raise Damaged(str(self.path), f"it ends at byte {self.size}")
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise self._failed(error) from error
            if not count:
                raise Damaged(str(self.path), f"it ends at byte {offset + done}")
            done += count

    def forget(self, offset: int, length: int) -> None:
        """Tell the kernel that this range need not stay in the page cache."""
        _forget(self._fd, offset, length)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _failed(self, error: OSError) -> StoreFailed:
        return StoreFailed(str(self.path), error.strerror or str(error))


def _forget(fd: int, offset: int, length: int) -> None:
    with suppress(OSError):  # a hint only
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
