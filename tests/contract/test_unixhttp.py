"""HTTP over a unix socket: answers, and servers that do not give any."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.served import short_folder
from vm_babysitter.lib.unixhttp import BadAnswer, Unreachable, request, request_json


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "socket"


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """Listen at a path; take in one request and let a function answer."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            asked.append(_request(connection))
            answer(connection)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def _request(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def saying(raw: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(raw)


def test_an_answer_has_status_headers_and_body(path: Path) -> None:
    raw = b'HTTP/1.1 404 No\r\nX-Thing: a\r\nContent-Length: 7\r\n\r\n{"a":1}more'
    with answering(path, saying(raw)) as asked:
        found = request_json(path, "POST", "/x%20y?z=1", {"ü": 1}, {"If-Match": '"t"'})
    assert (found.status, found.headers["x-thing"], found.json()) == (404, "a", {"a": 1})
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x%20y?z=1 HTTP/1.1\r\n")
    assert b'\r\nIf-Match: "t"' in head
    assert b"\r\nContent-Type: application/json" in head
    assert body == b'{"\\u00fc": 1}'


def test_without_a_document_nothing_is_sent_along(path: Path) -> None:
    with answering(path, saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as asked:
        assert request_json(path, "GET", "/").status == 204
    assert b"Content-" not in asked[0]


def test_nobody_is_there(path: Path) -> None:
    with pytest.raises(Unreachable, match="No such file"):
        request(path, "GET", "/")
    with pytest.raises(Unreachable, match="No such file"):
        request(path.parent / "missing" / ("x" * 200), "GET", "/")
    path.write_text("a file")
    with pytest.raises(Unreachable, match="refused"):
        request(path, "GET", "/")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
def test_an_answer_that_is_none_is_told(path: Path, raw: bytes) -> None:
    with answering(path, saying(raw)), pytest.raises(BadAnswer):
        request(path, "GET", "/", most=100)


def test_who_falls_silent_is_not_waited_for(path: Path) -> None:
    done = threading.Event()
    began = time.monotonic()

    def silent(_connection: socket.socket) -> None:
        done.wait(20)

    with answering(path, silent):
        with pytest.raises(BadAnswer, match="timed out"):
            request(path, "GET", "/", timeout=0.2)
        assert time.monotonic() - began < 5
        done.set()


def test_a_document_that_is_no_json_is_told(path: Path) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"
    with answering(path, saying(raw)), pytest.raises(BadAnswer, match="is no JSON"):
        request(path, "GET", "/").json()
