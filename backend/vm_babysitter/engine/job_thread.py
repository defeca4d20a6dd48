"""What the thread of one job does, and what others know of it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from vm_babysitter.domain.errors import BabysitterError, Cancelled
from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import Job, JobKind, Outcome, Result
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.job_progress import JobProgress, log
from vm_babysitter.engine.watchdog import Signs
from vm_babysitter.ports import JobLogs, Observer, Publisher

Work = Callable[[Job, Observer, Cancel], Outcome]
"""Does a job. Raises Cancelled once it is asked to stop, and other errors of ours."""

STUCK = Outcome(
    Result.FAILED,
    "It was told to end and does not. Nothing else is done to this VM until it has ended.",
    code="job-stuck",
    hint="Look whether the disk or share that its log names last answers. "
    "`/etc/rc.d/rc.vm-babysitter restart` ends it for sure.",
)
_log = logging.getLogger(__name__)


class NoLogs:
    """Implements ``ports.JobLogs``: there are none."""

    def of(self, job_id: int) -> AbstractContextManager[None]:
        """See the port."""
        return nullcontext()


class SafePublisher:
    """Implements ``ports.Publisher`` on another one that may fail: a job must not."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def job(self, job: Job) -> None:
        """See the port."""
        self._try(lambda: self._publisher.job(job))

    def event(self, event: Event) -> None:
        """See the port."""
        self._try(lambda: self._publisher.event(event))

    def _try(self, publish: Callable[[], None]) -> None:
        try:
            publish()
        except Exception:  # noqa: BLE001 - a job must not fail of it
            _log.exception("Those who watch were not told.")


class ActiveJob:
    """A job that has a thread."""

    def __init__(self, job: Job, ring: Callable[[], None]) -> None:
        self.id = job.id
        self.cancel = Cancel()
        self.progress = JobProgress(job, ring)
        self.by_user = False
        """Whether a user said stop."""
        self.error: BabysitterError | None = None
        """What it is to end with, because it does not get on."""
        self.warned = False
        self.given_up = False
        self.thread: threading.Thread | None = None
        self._told: float | None = None

    def stop(self) -> None:
        """Tell it to end."""
        self._told = self._told or time.monotonic()
        self.cancel.request()

    def fail(self, error: BabysitterError) -> None:
        """Tell it to end with an error."""
        self.error, self._told = error, time.monotonic()
        self.cancel.fail(error)

    def signs(self) -> Signs:
        """Return what the watchdog looks at."""
        now = time.monotonic()
        job = self.progress.job
        told = None if self._told is None else now - self._told
        return Signs(job.request.kind, self.progress.quiet, told, job.step)


def perform(active: ActiveJob, works: Mapping[JobKind, Work], logs: JobLogs) -> Outcome:
    """Do the work of a job, with a log of its own. Never raises."""
    with logs.of(active.id):
        outcome = _work(active, works)
        for warning in outcome.warnings:
            log.warning("%s", warning, extra={"job": active.id})
        level = logging.ERROR if outcome.result is Result.FAILED else logging.INFO
        words = f"{outcome.result}: {outcome.summary} {outcome.hint}".rstrip()
        log.log(level, "%s", words, extra={"job": active.id})
        return outcome


def unthought_of(error: BaseException) -> Outcome:
    """Return what a user is told of a mistake of ours."""
    return Outcome(
        Result.FAILED,
        f"An error that nobody thought of: {type(error).__name__}: {error}".rstrip(": "),
        code="internal",
        hint="Please report it, together with the log of this job.",
    )


def _work(active: ActiveJob, works: Mapping[JobKind, Work]) -> Outcome:
    job = active.progress.job
    request = job.request
    log.info("%s of %s begins.", request.kind, request.vm_name, extra={"job": job.id})
    try:
        active.cancel.check()
        return works[request.kind](job, active.progress, active.cancel)
    except Cancelled as error:
        return Outcome(Result.CANCELLED, error.message)
    except BabysitterError as error:
        return Outcome(
            Result.FAILED,
            error.message,
            code=error.code,
            hint=error.hint,
            transient=error.transient,
        )
    except Exception as error:  # noqa: BLE001 - it is told to the user
        log.exception("An error that nobody thought of.", extra={"job": job.id})
        return unthought_of(error)
