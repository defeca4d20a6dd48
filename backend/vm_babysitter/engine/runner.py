"""Runs jobs: each in a thread of its own, one of a VM at a time, and watches over them."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.event import Event, EventKind, Severity, job_event
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Limits, Outcome, Result
from vm_babysitter.engine.gates import Gate, Gates
from vm_babysitter.engine.job_progress import log
from vm_babysitter.engine.job_queue import JobQueue
from vm_babysitter.engine.job_thread import (
    STUCK,
    ActiveJob,
    NoLogs,
    SafePublisher,
    Work,
    perform,
    unthought_of,
)
from vm_babysitter.engine.watchdog import Patience, Verdict, judge, stalled
from vm_babysitter.ports import Clock, JobLogs, Journal, Publisher

STOP_SECONDS = 18.0
_SHOW_SECONDS = 1.0
"""How often whoever watches is told of bytes that are through."""
_GATE_SECONDS = 15.0
"""How often gates that are shut are looked at again, if nothing tells that one has opened."""
_LONGEST_PAUSE = 60.0
"""How often the clock is looked at, which may have been set."""
_log = logging.getLogger(__name__)


class Runner:
    """Takes jobs on, runs them in their order, and keeps what comes of them. Safe for threads.

    ``limits``, ``patience`` and ``logs`` may be set at any time; they count from then on.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        works: Mapping[JobKind, Work],
        gates: Sequence[Gate],
        limits: Limits,
        publisher: Publisher,
    ) -> None:
        self.limits = limits
        self.patience = Patience()
        self.logs: JobLogs = NoLogs()
        self._journal = journal
        self._clock = clock
        self._works = works
        self._gates = Gates(gates)
        self._publisher = SafePublisher(publisher)
        self._queue = JobQueue(journal, clock, self._publisher)
        self._lock = threading.Lock()
        self._active: dict[int, ActiveJob] = {}
        self._early: set[int] = set()
        """Jobs that were cancelled between their beginning and that of their thread."""
        self._stopping = False
        self._reload = False
        self._look = True
        """Whether somebody wants to have it looked whether a job can begin."""
        self._next_look = 0.0
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="runner", daemon=True)

    # -- for others ---------------------------------------------------------------------

    def start(self) -> list[Job]:
        """Begin: what ran when the daemon ended last is interrupted, and returned."""
        lost = self._journal.interrupted(self._clock.now())
        for job in lost:
            _log.warning("Job %d (%s) was interrupted.", job.id, job.request.kind)
        self._queue.load()
        self._thread.start()
        return lost

    def submit(self, request: JobRequest) -> Job:
        """Take a job on; return the queued one if the same is queued already.

        It is kept even while everything is being stopped: then it begins after the next start.
        """
        job = self._queue.submit(request)
        self.wake()
        return job

    def cancel(self, job_id: int) -> Job:
        """Have a job end, or never begin; one that has ended stays as it is.

        Returns the job at once, which may run on for a moment. Raises JobNotFound.
        """
        job = self._queue.cancel(job_id)
        if job.state is JobState.RUNNING:
            with self._lock:
                active = self._active.get(job_id)
                if active is None:
                    self._early.add(job_id)
            if active is not None:
                active.by_user = True
                active.stop()
        self.wake()
        return job

    def job(self, job_id: int) -> Job:
        """Return a job as it is now. Raises JobNotFound."""
        return self._queue.job(job_id)

    def queued(self) -> list[Job]:
        """Return the jobs that have not begun, in their order."""
        return self._queue.queued()

    def running(self) -> list[Job]:
        """Return the jobs that run, as far as they are, the oldest first."""
        return self._queue.running()

    def wake(self) -> None:
        """Look at once whether a job can begin: a gate may have opened, time has passed."""
        self._look = True
        self._bell.set()

    def reload(self) -> None:
        """Look for queued jobs in a journal that works again."""
        self._reload = True
        self.wake()

    def stop(self, timeout: float = STOP_SECONDS) -> list[Job]:
        """End: all jobs are asked to stop, and are done again after the next start.

        Returns those that have not ended after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
            active = list(self._active.values())
        for one in active:
            one.stop()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:  # one that had just begun has a thread only now
            threads = [one.thread for one in self._active.values()]
        for thread in threads:
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        left = self._queue.running()
        for job in left:
            _log.error("Job %d does not end; it is left behind.", job.id)
        return left

    # -- the runner's thread ------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping:
            try:
                self._turn()
                nap = self._nap()
            except Exception:  # noqa: BLE001 - all other jobs depend on this thread
                _log.exception("The runner goes on after an error that nobody thought of.")
                self._look, nap = True, _SHOW_SECONDS
            self._bell.wait(nap)
            self._bell.clear()

    def _turn(self) -> None:
        if self._reload:
            self._reload = False
            self._queue.load()
        with self._lock:
            active = list(self._active.values())
        for one in active:
            self._show(one)
            self._judge(one)
        if self._look or time.monotonic() >= self._next_look:
            self._look = False
            self._begin()
            self._next_look = time.monotonic() + self._pause()

    def _begin(self) -> None:
        while not self._stopping:
            job = self._queue.begin(self.limits, self._ask)
            if job is None:
                return
            self._launch(job)

    def _pause(self) -> float:
        """Return for how many seconds no job is going to begin, if nobody rings."""
        pauses = [_LONGEST_PAUSE]
        now = self._clock.now()
        for job in self._queue.queued():
            due = job.request.not_before
            later = due is not None and due > now
            pauses.append((due - now).total_seconds() if due and later else _GATE_SECONDS)
        return min(pauses)

    def _nap(self) -> float:
        """Return for how many seconds nothing is going to happen that does not ring."""
        pause = max(0.01, self._next_look - time.monotonic())
        return min(pause, _SHOW_SECONDS) if self._active else pause

    def _ask(self, request: JobRequest) -> str:
        reason = self._gates.ask(request)
        return reason or ("the service is being stopped" if self._stopping else "")

    def _show(self, active: ActiveJob) -> None:
        news = active.progress.news()
        if news is not None:
            job, new_step = news
            active.warned = False
            (self._queue.keep if new_step else self._queue.show)(job)

    def _judge(self, active: ActiveJob) -> None:
        if active.error is not None:
            active.cancel.fail(active.error)  # again: a job may recover from errors
        match judge(active.signs(), self.patience):
            case BabysitterError() as error:
                active.fail(error)
            case Verdict.WARN if not active.warned:
                active.warned = True
                self._warn(active)
            case Verdict.GIVE_UP if not active.given_up:
                active.given_up = True
                log.error("%s", STUCK.summary, extra={"job": active.id})
                self._queue.give_up(active.progress.job, STUCK)

    def _warn(self, active: ActiveJob) -> None:
        job = active.progress.job
        text = stalled(job, self.patience)
        log.warning("%s", text, extra={"job": job.id})
        self._tell(job_event(EventKind.JOB_STALLED, Severity.WARNING, job, self._clock.now(), text))

    def _launch(self, job: Job) -> None:
        active = ActiveJob(job, self._bell.set)
        active.thread = threading.Thread(
            target=self._run, args=(active,), name=f"job-{job.id}", daemon=True
        )
        with self._lock:
            self._active[job.id] = active
            if job.id in self._early:
                self._early.discard(job.id)
                active.by_user = True
            if self._stopping or active.by_user:
                active.stop()
        try:
            active.thread.start()
        except RuntimeError as error:  # no more threads
            self._done(active, unthought_of(error))

    # -- the job's thread ---------------------------------------------------------------

    def _run(self, active: ActiveJob) -> None:
        outcome = unthought_of(SystemExit())
        try:
            outcome = perform(active, self._works, self.logs)
        finally:
            self._done(active, outcome)

    def _done(self, active: ActiveJob, outcome: Outcome) -> None:
        job = active.progress.job
        stopped = self._stopping and outcome.result is Result.CANCELLED and not active.by_user
        try:
            ended = self._queue.interrupt(job) if stopped else self._queue.end(job, outcome)
            if not ended:
                self._released(job, outcome)
        finally:
            with self._lock:
                self._active.pop(active.id, None)
            self.wake()

    def _released(self, job: Job, outcome: Outcome) -> None:
        """A job that was given up has ended."""
        self._queue.release(job.id)
        text = f"It has ended after all: {outcome.summary}"
        self._tell(job_event(EventKind.JOB_RELEASED, Severity.NORMAL, job, self._clock.now(), text))

    def _tell(self, event: Event) -> None:
        self._journal.event(event)
        self._publisher.event(event)
