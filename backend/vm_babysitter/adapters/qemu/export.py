"""What the ways to export an image over NBD have in common."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from vm_babysitter.adapters.process import Child

T = TypeVar("T")

NAME = "disk"
"""Of every export we make."""

START_TIMEOUT = 120.0
"""Seconds a server is given to open the images: sleeping disks, a hundred layers."""

_POLL = 0.005  # seconds
_LONGEST_DIRECTORY = 80  # bytes; the names of sockets are limited to 107


class Export(NamedTuple):
    """An image that is being served."""

    address: str
    """Path of the server's unix socket."""
    name: str


class Way(Protocol):
    """A way to export an image. The two there are differ in the program that does it."""

    def export(
        self, node: Mapping[str, object], *, writable: bool = False, bitmap: str | None = None
    ) -> AbstractContextManager[Export]:
        """Serve a block node until the end of the context.

        Args:
            node: what to serve, see `nodes`.
            writable: whether clients may write.
            bitmap: a persistent bitmap of the node to serve with it.

        Raises:
            CommandFailed: the program did not start, for instance because it cannot open the
                image; or it could not finish its writing. With QEMU's words.
        """


@contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory for sockets that only we can enter, and remove it in the end."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST_DIRECTORY:
        base = "/tmp"  # noqa: S108 - mkdtemp below makes a private directory there
    with tempfile.TemporaryDirectory(prefix="vmb-", dir=base, ignore_cleanup_errors=True) as name:
        yield Path(name)


def wait_for(ready: Callable[[], T | None], child: Child) -> T:
    """Wait until ``ready`` returns something, which tells that a program has come up.

    Raises:
        CommandFailed: the program ended instead, or did not come up in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while (found := ready()) is None:
        if child.exited(_POLL) or time.monotonic() > deadline:
            raise child.failure()
    return found


def stop_writer(child: Child) -> None:
    """End a program that has written an image.

    Raises:
        CommandFailed: it could not finish its writing.
    """
    if child.stop() != 0:
        raise child.failure()
