"""Stands between an NBD client and its server, and spoils one request."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import BinaryIO

READ, BLOCK_STATUS = 0, 7
_GO, _STRUCTURED = 7, 8
_ACK = 1
_SIMPLE_MAGIC, _STRUCTURED_MAGIC = 0x67446698, 0x668E33EF
_EIO = 5


class Spoil(Enum):
    """What becomes of the request."""

    LOST = "the connection is lost"
    SILENT = "the server never answers"
    SHORT = "the reply is cut short"
    REFUSED = "the disk cannot be read"
    GARBAGE = "the reply is no NBD"


class _Link:
    """One connection of a client, with its own to the server."""

    def __init__(self, client: socket.socket, behind: Path, proxy: "Proxy") -> None:
        self._sockets = (client, socket.socket(socket.AF_UNIX))
        self._client, self._server = self._sockets
        self._server.connect(str(behind))
        self._from_client = client.makefile("rb")
        self._from_server = self._server.makefile("rb")
        self._proxy = proxy
        self._lengths: dict[int, int] = {}
        self._spoil: Spoil | None = None
        self._sending = threading.Lock()
        self._running = 2
        self.threads = [
            threading.Thread(target=self._run, args=(pump,))
            for pump in (self._pump_requests, self._pump_replies)
        ]

    def hang_up(self) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError, EOFError):
            pump()
        self.hang_up()
        with self._sending:
            self._running -= 1
            if self._running:
                return
        # At once: QEMU spins, and its guest stands still, if its job ends while a client has
        # data unread in a socket that is shut down but not closed.
        for file in (self._from_client, self._from_server, *self._sockets):
            file.close()

    def _pump_requests(self) -> None:
        self._server.sendall(_take(self._from_client, 4))
        option = 0
        while option != _GO:
            header = _take(self._from_client, 16)
            _, option, length = struct.unpack(">QII", header)
            self._server.sendall(header + _take(self._from_client, length))
        while True:
            request = _take(self._from_client, 28)
            _, _, command, handle, _, length = struct.unpack(">IHHQQI", request)
            spoil = self._proxy.spoils(command)
            if spoil is Spoil.LOST:
                return
            if spoil is Spoil.SILENT:
                continue
            if spoil is Spoil.REFUSED:
                self._send(struct.pack(">IIQ", _SIMPLE_MAGIC, _EIO, handle))
                continue
            self._lengths[handle] = length if command == READ else 0
            self._spoil = spoil or self._spoil
            self._server.sendall(request)

    def _pump_replies(self) -> None:
        self._send(_take(self._from_server, 18))
        option = kind = 0
        while (option, kind) != (_GO, _ACK):
            header = _take(self._from_server, 20)
            _, option, kind, length = struct.unpack(">QIII", header)
            self._send(header + _take(self._from_server, length))
        while True:
            reply = self._reply()
            if self._spoil is Spoil.GARBAGE:
                self._send(b"\0" * len(reply))
                return
            if self._spoil is Spoil.SHORT:
                self._send(reply[: len(reply) - 7])
                return
            self._send(reply)

    def _reply(self) -> bytes:
        header = _take(self._from_server, 16)
        magic, error, handle = struct.unpack(">IIQ", header)
        if magic == _SIMPLE_MAGIC:
            return header + _take(self._from_server, 0 if error else self._lengths[handle])
        assert magic == _STRUCTURED_MAGIC
        header += _take(self._from_server, 4)
        return header + _take(self._from_server, struct.unpack(">I", header[16:])[0])

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._client.sendall(data)


class Proxy:
    """Listens at ``address`` for the server ``behind``; spoils the ``nth`` such request."""

    def __init__(self, address: Path, behind: Path, spoil: Spoil, command: int, nth: int) -> None:
        self.spoiled = threading.Event()
        self._behind = behind
        self._spoil = spoil
        self._command = command
        self._left = nth
        self._counting = threading.Lock()
        self._links: list[_Link] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def spoils(self, command: int) -> Spoil | None:
        """Count a request; tell what is to become of it."""
        with self._counting:
            self._left -= command == self._command
            if command != self._command or self._left != 0:
                return None
            self.spoiled.set()
            return self._spoil

    def close(self) -> None:
        """Hang up on everybody and end."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for link in self._links:
            link.hang_up()
            for thread in link.threads:
                thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            link = _Link(client, self._behind, self)
            self._links.append(link)
            for thread in link.threads:
                thread.start()


@contextmanager
def in_the_way(address: Path, spoil: Spoil, command: int, nth: int = 1) -> Iterator[Proxy]:
    """Put a proxy in the place of the server that listens at ``address``."""
    behind = address.parents[1] / "behind"
    address.rename(behind)  # it can still be connected to, by the new name
    proxy = Proxy(address, behind, spoil, command, nth)
    try:
        yield proxy
    finally:
        proxy.close()
        behind.unlink(missing_ok=True)


def _take(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data
