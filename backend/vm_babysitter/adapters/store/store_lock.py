"""The lock of a backup folder: who holds it is the only one on this host that writes there."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm_babysitter.adapters.store import layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.domain.errors import Busy, StoreFailed

_turns: dict[Path, threading.Lock] = {}


def in_turn(place: Path) -> threading.Lock:
    """Return what jobs of this process hold one at a time while they change what all share.

    That is the mark of a backup folder, and the lease of this host; all else belongs to one VM.
    Each place has its own: a disk that does not answer holds up nobody who writes to another.
    """
    return _turns.setdefault(place, threading.Lock())


class SharedLocks:
    """Locks that all jobs of this process have together: others wait until the last is done.

    For jobs of different VMs, which do not get in each other's way.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[Path, tuple[int, int]] = {}
        """By folder: the descriptor, and how many hold it."""

    @contextmanager
    def hold(self, store: Path) -> Iterator[None]:
        """Hold the lock of a folder. Raises Busy, StoreFailed."""
        with self._mutex:
            descriptor, holders = self._held.get(store) or (_take(store), 0)
            self._held[store] = (descriptor, holders + 1)
        try:
            yield
        finally:
            with self._mutex:
                descriptor, holders = self._held.pop(store)
                if holders > 1:
                    self._held[store] = (descriptor, holders - 1)
                else:
                    os.close(descriptor)


@contextmanager
def hold_alone(store: Path) -> Iterator[None]:
    """Hold the lock of a folder, alone in this process, too. Raises Busy, StoreFailed."""
    descriptor = _take(store)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(store: Path) -> int:
    path = store / layout.LOCK_FILE
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = failing(path, lambda: os.open(path, flags, 0o600))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Busy(
            f"The backup folder {str(store)!r}", "another process is writing to it"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise StoreFailed(str(path), f"it cannot be locked ({error.strerror})") from error
    return descriptor
