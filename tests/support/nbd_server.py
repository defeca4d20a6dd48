"""NBD servers to test against: nbdkit, and one that does exactly what a test tells it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from vm_babysitter.adapters.process import Child, start


@contextmanager
def nbdkit(folder: Path, *arguments: str) -> Iterator[tuple[str, Child]]:
    """Run nbdkit; the name of its export is empty. Yields the socket and the process."""
    address, ready = folder / "nbdkit.socket", folder / "nbdkit.pid"
    with start(["nbdkit", "-f", "-U", str(address), "-P", str(ready), *arguments]) as child:
        while not ready.exists():
            assert not child.exited(0.01), child.stderr_tail()
        yield str(address), child
    address.unlink(missing_ok=True)
    ready.unlink(missing_ok=True)


class Request(NamedTuple):
    """What a client asked for."""

    command: int
    handle: int
    offset: int
    length: int
    data: bytes


class Peer:
    """The server's end of one connection, after the handshake."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")

    def take(self, length: int) -> bytes:
        """Return the next bytes from the client; an end of them ends the thread."""
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def send(self, data: bytes) -> Self:
        """Send raw bytes."""
        self._socket.sendall(data)
        return self

    def requests(self) -> Iterator[Request]:
        """Yield what the client asks for, until it says goodbye."""
        while True:
            magic, _, command, handle, offset, length = struct.unpack(">IHHQQI", self.take(28))
            assert magic == 0x25609513
            if command == 2:
                return
            data = self.take(length) if command == 1 else b""
            yield Request(command, handle, offset, length, data)

    def simple(self, handle: int, data: bytes = b"", error: int = 0) -> Self:
        """Send a simple reply."""
        return self.send(struct.pack(">IIQ", 0x67446698, error, handle) + data)

    def chunk(self, handle: int, kind: int, payload: bytes = b"", *, done: bool = False) -> Self:
        """Send a chunk of a structured reply."""
        header = struct.pack(">IHHQI", 0x668E33EF, int(done), kind, handle, len(payload))
        return self.send(header + payload)

    def data(self, handle: int, offset: int, data: bytes, *, done: bool = False) -> Self:
        """Send a chunk with data."""
        return self.chunk(handle, 1, struct.pack(">Q", offset) + data, done=done)

    def hole(self, handle: int, offset: int, length: int, *, done: bool = False) -> Self:
        """Send a chunk that says zeros."""
        return self.chunk(handle, 2, struct.pack(">QI", offset, length), done=done)

    def status(self, handle: int, context: int, *extents: tuple[int, int], done: bool) -> Self:
        """Send a block status of (length, flags) for one context."""
        body = b"".join(struct.pack(">II", *extent) for extent in extents)
        return self.chunk(handle, 5, struct.pack(">I", context) + body, done=done)


class FakeServer:
    """A server that negotiates properly and then leaves each connection to ``behave``."""

    def __init__(
        self,
        address: Path,
        behave: Callable[[Peer], None],
        size: int = 1 << 20,
        greeting: bytes = b"NBDMAGICIHAVEOPT",
        features: int = (1 << 2) | (1 << 6) | 1,
    ) -> None:
        self.address = str(address)
        self.connections = 0
        self._behave = behave
        self._size = size
        self._greeting = greeting
        self._features = features
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Hang up on everybody and end."""
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._open):
            connection.close()
        Path(self.address).unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        peer = Peer(connection)
        with suppress(EOFError, OSError):
            self._negotiate(peer)
            self._behave(peer)
            connection.shutdown(socket.SHUT_RDWR)
        peer._file.close()

    def _negotiate(self, peer: Peer) -> None:
        peer.send(self._greeting + struct.pack(">H", 3))
        peer.take(4)
        option = 0
        while option != 7:
            _, option, length = struct.unpack(">8sII", peer.take(16))
            body = peer.take(length)
            answers: list[tuple[int, bytes]] = []
            if option == 10:
                answers = [
                    (4, struct.pack(">I", number) + name)
                    for number, name in enumerate(_queries(body), start=1)
                ]
            if option == 7:
                answers = [(3, struct.pack(">HQH", 0, self._size, self._features))]
            for kind, data in [*answers, (1, b"")]:
                peer.send(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)


Fake = Callable[..., FakeServer]
"""Makes such a server: the fixture ``fake``."""


def after_requests(reply: Callable[[Peer, Request], object]) -> Callable[[Peer], None]:
    """Behave by replying to each request."""

    def behave(peer: Peer) -> None:
        for request in peer.requests():
            reply(peer, request)

    return behave


def _queries(body: bytes) -> Sequence[bytes]:
    at = 4 + struct.unpack_from(">I", body)[0] + 4
    found = []
    while at < len(body):
        (length,) = struct.unpack_from(">I", body, at)
        found.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs (one that is dead but not reaped does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that happens soon, and fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def open_descriptors() -> int:
    """Count the file descriptors that this process keeps open.

    Threads of other fixtures open some for a moment: the fewest of several looks count.
    """
    looks = []
    for _ in range(5):
        looks.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        time.sleep(0.01)
    return min(looks)
