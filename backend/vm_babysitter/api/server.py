"""Serves the API on a unix socket, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments

from vm_babysitter.api.connections import Bounds, PeerServer
from vm_babysitter.api.listening import Listening

BOUNDS = Bounds()
ROOT = frozenset({0})
_TICK = 1.0
"""Seconds after which connections are looked at, even if nothing moves."""
_GRACE = 0.5
"""Seconds in which threads end that have nothing to do."""
_OWN_ENTRIES = 2
"""What the server itself has among its connections."""


class ApiServer:
    """The API on a unix socket."""

    def __init__(
        self, app: Flask, path: Path, bounds: Bounds = BOUNDS, users: Collection[int] = ROOT
    ) -> None:
        """``users``: ids of those who may connect."""
        self._app = app
        self._path = path
        self._bounds = bounds
        self._users = users
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, then return. Raises Busy, InvalidInput and OSError as ``Listening``."""
        # One line for each request that waits its turn is of no use to anybody.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._listening = Listening(self._path)
        self._map: dict[int, Any] = {}
        self._server = PeerServer(
            self._app.wsgi_app,
            map=self._map,
            _sock=self._listening.socket,
            adj=self._adjustments(),
            users=self._users,
            request_seconds=self._bounds.request_seconds,
            bind_socket=False,
        )
        self._thread = threading.Thread(target=self._serve, name="api", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout: float = 5.0) -> None:
        """Accept nobody any more, finish what is being served, end. Harmless if it is not served.

        Args:
            timeout: seconds after which what is not finished is given up.
        """
        if self._thread is None:
            return
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        if self._thread.is_alive():
            self._server.pull_trigger()
            self._thread.join(timeout + _TICK)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # wakes who waits for its client to read
        left = max(_GRACE, self._deadline - time.monotonic())
        self._server.task_dispatcher.shutdown(timeout=left)
        wasyncore.close_all(self._map, ignore_all=True)
        self._listening.close()
        self._thread = None

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._turn(_TICK)
        self._server.accepting = False
        while self._at_work() and time.monotonic() < self._deadline:
            self._turn(0.05)

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)

    def _at_work(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def _adjustments(self) -> Adjustments:
        bounds = self._bounds
        adjustments = Adjustments(
            unix_socket=str(self._path),
            ident="vm-babysitter",
            threads=bounds.threads,
            connection_limit=bounds.connections + _OWN_ENTRIES,
            max_request_header_size=bounds.header_bytes,
            max_request_body_size=bounds.body_bytes + 1,  # waitress refuses what is not less
            log_socket_errors=False,
            clear_untrusted_proxy_headers=False,
        )
        # As arguments these two would be cut to whole seconds.
        adjustments.channel_timeout = bounds.idle_seconds
        adjustments.cleanup_interval = _TICK / 2
        return adjustments
