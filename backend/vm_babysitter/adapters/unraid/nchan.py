"""Tells web pages what goes on, by way of nginx's nchan on Unraid.

A page subscribes to ``/sub/vm-babysitter``. What it is told is small: ``{"job": …}`` or
``{"event": …}``; for all else it asks the API.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import Job
from vm_babysitter.lib.unixhttp import request
from vm_babysitter.views import EventView, ProgressView, as_json

NGINX = Path("/var/run/nginx.socket")
_TARGET = "/pub/vm-babysitter?buffer_length=1"
_EVERY = 0.5
"""Seconds between two rounds: no page draws faster."""
_TIMEOUT = 2.0
_MOST_EVENTS = 20
"""Events that wait at the same time; the oldest give way. The API has them all."""
_log = logging.getLogger(__name__)

Send = Callable[[bytes], None]
"""Sends one message. Raises OSError."""


def send_to_nginx(message: bytes, path: Path = NGINX) -> None:
    """Publish a message. Raises OSError: nginx does not answer, or refuses it."""
    headers = {"Content-Type": "application/json"}
    answer = request(path, "POST", _TARGET, message, headers, timeout=_TIMEOUT)
    if answer.status >= 400:  # noqa: PLR2004
        raise OSError(f"nginx answers {answer.status}")


class NchanPublisher:
    """Implements ``ports.Publisher``.

    A thread of its own sends; nobody waits for it. What a job did since the last round is one
    message. What cannot be sent is dropped: pages ask the API again when they are back.
    """

    def __init__(self, send: Send = send_to_nginx, every: float = _EVERY) -> None:
        """``every``: seconds between two rounds."""
        self._send = send
        self._every = every
        self._jobs: dict[int, Job] = {}
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="nchan", daemon=True)
        self._thread.start()

    def job(self, job: Job) -> None:
        """See the port."""
        with self._changed:
            self._jobs[job.id] = job
            self._changed.notify()

    def event(self, event: Event) -> None:
        """See the port."""
        with self._changed:
            self._events = [*self._events, event][-_MOST_EVENTS:]
            self._changed.notify()

    def stop(self) -> None:
        """Send what waits, and end the thread; takes a few seconds at most."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(2 * _TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._events or self._stopped)
                jobs, events, stopped = self._jobs, self._events, self._stopped
                self._jobs, self._events = {}, []
            told = [("job", ProgressView.of(job)) for job in jobs.values()]
            self._round([*told, *(("event", EventView.of(event)) for event in events)])
            if stopped:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, self._every)

    def _round(self, messages: Sequence[tuple[str, ProgressView | EventView]]) -> None:
        for kind, view in messages:
            try:
                self._send(as_json({kind: view}))
            except OSError as error:
                if not self._failing:
                    _log.debug("web pages are not told what goes on: %s", error)
                self._failing = True
                return
            self._failing = False
