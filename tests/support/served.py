"""The API on a real socket, in this process or in one that is killed.

    python -m tests.support.served SOCKET

serves an empty application until it is killed, and prints a line once it does.
"""

import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from vm_babysitter.api.connections import Bounds
from vm_babysitter.api.server import ApiServer

_THREADS = ("api", "waitress")
QUICK = Bounds(connections=60, threads=4, request_seconds=1.0, idle_seconds=2.0)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="vmb", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def served(app: Flask, path: Path, bounds: Bounds = QUICK) -> Iterator[ApiServer]:
    """Serve an application; at the end no thread of it is left."""
    server = ApiServer(app, path, bounds)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        eventually(lambda: not any(t.name.startswith(_THREADS) for t in threading.enumerate()))


def connect(path: Path, timeout: float = 10.0) -> socket.socket:
    """Connect as a client that speaks no HTTP yet."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    connection.connect(str(path))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side hangs up."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def eventually(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


if __name__ == "__main__":
    ApiServer(Flask("empty"), Path(sys.argv[1])).start()
    print("serves", flush=True)  # noqa: T201
    signal.pause()
