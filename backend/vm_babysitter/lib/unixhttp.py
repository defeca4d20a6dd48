"""HTTP over a unix socket."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 107
"""Bytes that the kernel takes as the path of a socket."""


class Unreachable(OSError):
    """Nobody answers at the socket."""


class BadAnswer(OSError):
    """Somebody answers, and not as HTTP has it, too slowly, or too much."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    """By name in small letters."""
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON has it. Raises BadAnswer."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BadAnswer(f"the answer is no JSON: {error}") from error


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Give an address for a socket at a path of any length, for binding and connecting.

    Raises:
        OSError: its folder is not there.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            with address_of(self._path) as address:
                self.sock.connect(address)
        except OSError as error:
            self.sock.close()
            reason = error.strerror or str(error)
            raise Unreachable(f"nobody answers at {str(self._path)!r}: {reason}") from error


def request(  # noqa: PLR0913
    path: Path,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 30.0,
    most: int = 64 << 20,
) -> Response:
    """Send a request and return the answer, whatever its status.

    Args:
        path: of the socket.
        method: ``GET`` and the like.
        target: path and query, percent-encoded.
        body: what is sent along.
        headers: beside those that HTTP needs.
        timeout: seconds that each step of it may take.
        most: bytes that the body of the answer may have.

    Raises:
        Unreachable: nobody listens there, or we may not connect.
        BadAnswer: the answer breaks off, is no HTTP, takes too long, or is too large.
    """
    connection = _Connection(path, timeout)
    try:
        # Who refuses a large body may answer and hang up before all of it was sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body, dict(headers or {}))
        found = connection.getresponse()
        length = found.length
        content = found.read(most + 1)
        named = {name.lower(): value for name, value in found.getheaders()}
    except Unreachable:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise BadAnswer(f"no answer from {str(path)!r}: {error!r}") from error
    finally:
        connection.close()
    if length is None and not found.chunked:
        raise BadAnswer(f"the answer from {str(path)!r} does not say how long it is")
    if length is not None and len(content) < min(length, most):
        raise BadAnswer(f"the answer from {str(path)!r} broke off")
    if len(content) > most:
        raise BadAnswer(f"the answer from {str(path)!r} is longer than {most} bytes")
    return Response(found.status, named, content)


def request_json(
    path: Path,
    method: str,
    target: str,
    document: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 30.0,
) -> Response:
    """Send a document as JSON, or none, and return the answer. Raises as ``request``."""
    sent = {"Accept": "application/json", **(headers or {})}
    if document is None:
        return request(path, method, target, None, sent, timeout=timeout)
    sent["Content-Type"] = "application/json"
    return request(path, method, target, json.dumps(document).encode(), sent, timeout=timeout)
