"""Connections of clients: who may connect, and how long a request may take to come."""

import logging
import socket
import struct
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import UnixWSGIServer
from waitress.task import ErrorTask

from vm_babysitter.api.problems import CONTENT_TYPE, refused
from vm_babysitter.views import as_json

_log = logging.getLogger(__name__)
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much clients may ask for."""

    connections: int = 100
    """At the same time; others wait until there is room."""
    threads: int = 8
    """Requests that are served at the same time."""
    header_bytes: int = 16 << 10
    body_bytes: int = 1 << 20
    request_seconds: float = 10.0
    """From the first byte of a request to its last."""
    idle_seconds: float = 30.0
    """Of a connection on which nothing moves."""


def peer_user(connection: socket.socket) -> int:
    """Return the user id that the other side had when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _process, user, _group = _CREDENTIALS.unpack(raw)
    return int(user)


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """Answers what is no proper request."""

    def execute(self) -> None:
        """Answer, and have the connection closed."""
        error = self.request.error
        status = HTTPStatus(error.code)
        code = status.phrase.lower().replace(" ", "-")
        content = as_json(refused(status, code, f"{status.phrase}: {error.body}.").problem)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", CONTENT_TYPE))
        self.set_close_on_finish()
        self.content_length = len(content)
        self.write(content)


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection; knows since when a request has been coming in."""

    error_task_class = ProblemTask
    begun = 0.0

    def received(self, data: bytes) -> bool:
        """Take in what came."""
        before = self.request
        taken = bool(super().received(data))
        if self.request is not None and self.request is not before:
            self.begun = time.monotonic()
        return taken

    def is_late(self, limit: float) -> bool:
        """Whether half a request has been there for longer than that, in seconds."""
        if self.requests:  # while one is served, nothing more is read
            self.begun = time.monotonic()
        return self.request is not None and time.monotonic() - self.begun > limit


class PeerServer(UnixWSGIServer):  # type: ignore[misc]
    """Accepts connections of some users only, and ends those that keep it waiting."""

    channel_class = Channel

    def __init__(
        self, *args: Any, users: Collection[int], request_seconds: float, **more: Any
    ) -> None:
        self._users = users
        self._request_seconds = request_seconds
        self._knocked = False
        super().__init__(*args, **more)

    def handle_accept(self) -> None:
        """Note that somebody wants to connect.

        Accepted at once, a connection may get the number of one that a thread has closed in this
        round of the loop, and then what was seen of that one, such as that its client hung up.
        """
        self._knocked = True

    def readable(self) -> bool:
        """Accept who wants to connect, before the loop looks what is to be done."""
        is_open = bool(super().readable())
        if self._knocked and is_open:
            self._knocked = False
            super().handle_accept()
            self.trigger.pull_trigger()  # this round does not look at the new one yet
        return is_open

    def accept(self) -> tuple[socket.socket, Any] | None:
        """Accept a connection; None if there is none, or it is refused."""
        accepted: tuple[socket.socket, Any] | None = super().accept()
        if accepted is None:
            return None
        user = peer_user(accepted[0])
        if user in self._users:
            return accepted
        _log.warning("a connection of user %d was refused", user)
        _refuse(accepted[0])
        return None

    def maintenance(self, now: float) -> None:
        """End connections on which nothing moves, and requests that do not get finished.

        Waitress alone leaves those be whose answers nobody reads: a thread waits for each, and
        what is to be closed is closed only once it can be written to.
        """
        super().maintenance(now)
        cutoff = now - self.adj.channel_timeout
        for channel in list(self.active_channels.values()):
            unread = channel.total_outbufs_len and channel.last_activity < cutoff
            if unread or channel.is_late(self._request_seconds):
                channel.handle_close()


def _refuse(connection: socket.socket) -> None:
    problem = refused(HTTPStatus.FORBIDDEN, "forbidden", "Only root may use this API.").problem
    content = as_json(problem)
    head = (
        f"HTTP/1.1 403 Forbidden\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(head.encode() + content)
