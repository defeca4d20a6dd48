"""A web server of a test's own, on this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase


@dataclass
class Web:
    """What it was asked, and what it answers."""

    url: str = ""
    status: int = 200
    location: str = ""
    wait: float = 0.0
    """Seconds before it answers."""
    trickle: bool = False
    """Whether its answer never ends."""
    drip: float = 0.0
    """Seconds between the lines of an answer that never gets past its first ones."""
    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    """Method, path, type and body."""


def _drip(out: BufferedIOBase, seconds: float, over: threading.Event) -> None:
    with suppress(OSError):  # who asked has gone
        while not over.wait(seconds):
            out.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@contextmanager
def web() -> Iterator[Web]:
    """Serve for the time of the context."""
    state = Web()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = self.headers.get("Content-Type", "")
            state.asked.append((self.command, self.path, kind, body))
            over.wait(state.wait)
            if state.drip:
                _drip(self.wfile, state.drip, over)
                return
            self.send_response(state.status)
            if state.location:
                self.send_header("Location", state.location)
            if not state.trickle:
                self.send_header("Content-Length", "2")
            self.end_headers()
            try:
                self.wfile.write(b"ok")
                while state.trickle and not over.is_set():
                    self.wfile.write(b".")
                    time.sleep(0.01)
            except OSError:
                pass  # who asked has gone

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
