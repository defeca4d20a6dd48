"""Notices that files are opened, or were open for writing; the kernel's inotify."""

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

_CLOSE_WRITE = 0x8
_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class Seen:
    """The files to which something happened."""

    def __init__(self, folders: Sequence[Path], what: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), what)
            if watch < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))
            self._folders[watch] = folder

    def seen(self) -> list[Path]:
        """Return the files since the last call, one entry for each time."""
        found: list[Path] = []
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return found
            while data:
                watch, _, _, length = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
                found.append(self._folders[watch] / os.fsdecode(name))
                data = data[_EVENT.size + length :]

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def opened_for_writing(*folders: Path) -> Iterator[Seen]:
    """Watch for files in these folders that were open for writing, written to or not."""
    with closing(Seen(folders, _CLOSE_WRITE)) as seen:
        yield seen


@contextmanager
def opened(*folders: Path) -> Iterator[Seen]:
    """Watch for files in these folders that are opened, for whatever."""
    with closing(Seen(folders, _OPEN)) as seen:
        yield seen
