"""Tells a service that watches over schedules when a run begins, and how it went.

A run begins with the first job of a schedule, and ends when none of its jobs is left, those that
are tried again included. Nobody waits for it. It is kept in memory only: of a run that the end of
this process cut in two, that service hears no success, and says so itself.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vm_babysitter.domain.errors import BabysitterError, unthought_of
from vm_babysitter.domain.job import ENDED, Job, JobState
from vm_babysitter.ports import Pinger

_WINDOW = 2.0
"""Seconds after the last job in which another try of it comes."""
_WITHIN = 10.0
_TRIES = 3
_PAUSE = 5.0
_MOST_LINES = 50
_WELL = frozenset({JobState.DONE, JobState.CANCELLED})
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    begun: bool = False
    """Whether the service was told."""
    live: set[int] = field(default_factory=set)
    ended: dict[tuple[str, str], Job] = field(default_factory=dict)
    """The last job of each kind and VM."""


class RunPings:
    """Follows the jobs of schedules."""

    def __init__(self, find: Callable[[], Pinger | None]) -> None:
        """``find`` returns whom to tell; None: nobody."""
        self.trouble = ""
        """Why the service was not told last; empty if it was."""
        self.window = _WINDOW
        self.pause = _PAUSE
        self._find = find
        self._run = _Run()
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pings", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End; a service that does not answer is left behind."""
        self._stopping.set()
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def job(self, job: Job) -> None:
        """Hear of a job that is new or has changed; of those of schedules only."""
        request = job.request
        if not request.schedule:
            return
        with self._lock:
            before = job.id in self._run.live
            if job.state in ENDED:
                self._run.live.discard(job.id)
                if before or self._run.live:
                    self._run.ended[request.kind, request.vm_uuid] = job
            else:
                self._run.live.add(job.id)
            changed = before == (job.state in ENDED)
        if changed:
            self._bell.set()

    def _watch(self) -> None:
        while True:
            self._bell.wait()
            if self._stopping.wait(self.window):
                return
            self._bell.clear()
            try:
                self.round()
            except Exception:  # noqa: BLE001 - the next run is told all the same
                _log.exception("Telling of a run failed in a way nobody thought of.")

    def round(self) -> None:
        """Tell what is new."""
        with self._lock:
            run = self._run
            begins = not run.begun and bool(run.live or run.ended)
            ends = not run.live and bool(run.ended)
            run.begun = True if begins else run.begun
            ended = dict(run.ended)
            if ends:
                self._run = _Run()
        pinger = self._find()
        if pinger is None:
            self.trouble = ""
            return
        if begins:
            self._ping(pinger, "start", "A run of backups has begun.")
        if ends:
            self._ping(pinger, *_result(ended))

    def _ping(self, pinger: Pinger, what: str, text: str) -> None:
        for number in range(_TRIES):
            try:
                pinger.ping(what, text, _WITHIN)
            except BabysitterError as error:
                self.trouble = str(error)
                if not error.transient or number == _TRIES - 1:
                    _log.warning("%s", error)
                    return
            except Exception as error:  # noqa: BLE001 - the next run is told all the same
                _log.exception("Telling of a run failed in a way nobody thought of.")
                self.trouble = str(unthought_of("health", error))
                return
            else:
                self.trouble = ""
                return
            if self._stopping.wait(self.pause):
                return


def _result(ended: Mapping[tuple[str, str], Job]) -> tuple[str, str]:
    bad = [job for job in ended.values() if job.state not in _WELL]
    chosen = bad or list(ended.values())
    lines = [
        f"{job.request.kind.noun} of {job.request.vm_name}: {job.summary or job.state}"
        for job in chosen[:_MOST_LINES]
    ]
    if bad:
        return "fail", "\n".join([f"{len(bad)} of {len(ended)} did not succeed.", *lines])
    return "success", "\n".join([f"{len(ended)} went well.", *lines])
