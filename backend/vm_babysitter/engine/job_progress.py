"""How far a job is: told by its threads, looked at by the runner's."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from vm_babysitter.domain.job import Job

log = logging.getLogger("vm_babysitter.job")
"""What is told about jobs; records have the number of theirs as ``job``."""


class JobProgress:
    """Implements ``ports.Observer``.

    Those who tell wait for nobody: neither for the journal nor for whoever watches. A guest may
    be frozen meanwhile.
    """

    def __init__(self, job: Job, ring: Callable[[], None]) -> None:
        """``ring`` is called when a new step is worth a look."""
        self._ring = ring
        self._lock = threading.Lock()
        self._job = job
        self._touched = time.monotonic()
        self._seen: Job = job

    def step(self, name: str) -> None:
        """See the port."""
        with self._lock:
            self._job = replace(self._job, step=name, done_bytes=0, total_bytes=0)
            self._touched = time.monotonic()
        log.info("step: %s", name, extra={"job": self._job.id})
        self._ring()

    def progress(self, done: int, total: int) -> None:
        """See the port."""
        with self._lock:
            if (done, total) != (self._job.done_bytes, self._job.total_bytes):
                self._job = replace(self._job, done_bytes=done, total_bytes=total)
                self._touched = time.monotonic()

    def note(self, text: str) -> None:
        """See the port."""
        with self._lock:
            self._touched = time.monotonic()
        log.info("%s", text, extra={"job": self._job.id})

    @property
    def job(self) -> Job:
        """The job as it is now."""
        return self._job

    @property
    def quiet(self) -> float:
        """Seconds since the last step, byte or note."""
        return time.monotonic() - self._touched

    def news(self) -> tuple[Job, bool] | None:
        """Return the job and whether its step is another one; None if it is as it was."""
        with self._lock:
            job, seen = self._job, self._seen
            self._seen = job
        return None if job == seen else (job, job.step != seen.step)
