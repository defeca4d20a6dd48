"""The jobs that have not ended: which of them begins, and what becomes of each."""

import threading
from collections.abc import Callable

from vm_babysitter.domain.errors import JobNotFound
from vm_babysitter.domain.event import end_events
from vm_babysitter.domain.job import (
    QUEUED,
    Job,
    JobRequest,
    JobState,
    Limits,
    Outcome,
    cancelled,
    finish,
    follow_up,
    in_turn,
    interrupt,
    merged,
    pick,
    transition,
)
from vm_babysitter.ports import Clock, Journal, Publisher

_ALL = 100_000


class JobQueue:
    """Keeps the order, the journal and whoever listens in step. Safe for threads.

    Changes are made one after the other, since each is written to the journal first; looking
    waits for nothing but memory.
    """

    def __init__(self, journal: Journal, clock: Clock, publisher: Publisher) -> None:
        self._journal = journal
        self._clock = clock
        self._publisher = publisher
        self._change = threading.RLock()
        self._queued: dict[int, Job] = {}
        self._running: dict[int, Job] = {}
        self._held: dict[int, Job] = {}
        """Jobs that were given up while their thread lives; nothing else of their VM begins."""

    # -- looking ------------------------------------------------------------------------

    def queued(self) -> list[Job]:
        """Return the jobs that have not begun, in their order."""
        return list(in_turn(list(self._queued.values())))

    def running(self) -> list[Job]:
        """Return the jobs that run, the oldest first."""
        return sorted(self._running.values(), key=lambda job: job.id)

    def held(self) -> list[Job]:
        """Return the jobs that were given up and still hold their VM."""
        return list(self._held.values())

    def job(self, job_id: int) -> Job:
        """Return a job as it is now. Raises JobNotFound."""
        for jobs in (self._running, self._queued):
            if job_id in jobs:
                return jobs[job_id]
        found = self._journal.job(job_id)
        if found is None:
            raise JobNotFound(job_id)
        return found

    # -- changing -----------------------------------------------------------------------

    def load(self) -> None:
        """Queue what the journal has queued."""
        with self._change:
            for job in self._journal.jobs(states=QUEUED, limit=_ALL):
                if job.id not in self._running:
                    self._queued.setdefault(job.id, job)

    def submit(self, request: JobRequest) -> Job:
        """Queue a job; return the queued one if the same is queued already."""
        with self._change:
            for job in self._queued.values():
                if job.request.same_work(request):
                    return self._keep(merged(job, request))
            return self._add(self._journal.submit(request, self._clock.now()))

    def begin(self, limits: Limits, ask: Callable[[JobRequest], str]) -> Job | None:
        """Have the next job begin that may, and return it.

        Args:
            limits: how many may run at once.
            ask: returns what a job has to wait for, in words; empty if it may begin. It is asked
                while nothing is locked.
        """
        shut: set[int] = set()
        while True:
            with self._change:
                candidate = self._next(limits, shut)
            if candidate is None:
                return None
            reason = self._holder(candidate.request.vm_uuid) or ask(candidate.request)
            with self._change:
                job = self._queued.get(candidate.id)
                if job is None or job.request != candidate.request:
                    continue  # cancelled or changed meanwhile
                if not reason:
                    return self._start(job)
                shut.add(job.id)
                if job.waits_for != reason:
                    self._keep(transition(job, JobState.WAITING, waits_for=reason))

    def keep(self, job: Job) -> None:
        """Keep how far a running job is; nothing if it has ended meanwhile."""
        with self._change:
            if job.id in self._running:
                self._keep(job)

    def show(self, job: Job) -> None:
        """Show how far a running job is to those who look, without keeping it."""
        with self._change:
            if job.id in self._running:
                self._running[job.id] = job
        self._publisher.job(job)

    def cancel(self, job_id: int) -> Job:
        """Have a job never begin, if it has not; return it. Raises JobNotFound."""
        with self._change:
            job = self.job(job_id)
            if job.id not in self._queued:
                return job
            ended = cancelled(job, self._clock.now())
            self._journal.finish(ended, ())
            del self._queued[job.id]
            self._publisher.job(ended)
            return ended

    def end(self, job: Job, outcome: Outcome) -> bool:
        """Keep what came of a running job, and queue it again if that is worth it.

        Returns whether it was running still, and had not been given up.
        """
        with self._change:
            if job.id not in self._running:
                return False
            now = self._clock.now()
            ended = finish(job, outcome, now)
            again = follow_up(ended, transient=outcome.transient, now=now)
            self._end(ended, outcome.warnings, again)
            return True

    def interrupt(self, job: Job) -> bool:
        """Keep that a running job was ended so that the daemon can; it is queued again.

        Returns the same as ``end``.
        """
        with self._change:
            if job.id not in self._running:
                return False
            now = self._clock.now()
            ended = interrupt(job, now, "The service was stopped while this ran.")
            self._end(ended, (), follow_up(ended, transient=True, now=now))
            return True

    def give_up(self, job: Job, outcome: Outcome) -> None:
        """Keep that a job failed although its thread lives; its VM is held till ``release``."""
        with self._change:
            if job.id in self._running:
                self._held[job.id] = self._running[job.id]
                self.end(job, outcome)

    def release(self, job_id: int) -> None:
        """Say that the thread of a job has ended."""
        with self._change:
            self._held.pop(job_id, None)

    # -- how ----------------------------------------------------------------------------

    def _next(self, limits: Limits, shut: set[int]) -> Job | None:
        jobs = [job for job in self._queued.values() if job.id not in shut]
        return pick(jobs, list(self._running.values()), self._clock.now(), limits)

    def _holder(self, vm_uuid: str) -> str:
        """Return what holds a VM, in words; empty if nothing does."""
        for job in self.held():
            if job.request.vm_uuid == vm_uuid:
                return f"job {job.id} of this VM does not end"
        return ""

    def _start(self, job: Job) -> Job:
        started = transition(job, JobState.RUNNING, started=self._clock.now())
        self._journal.update(started)
        del self._queued[job.id]
        self._running[job.id] = started
        self._publisher.job(started)
        return started

    def _add(self, job: Job) -> Job:
        self._queued[job.id] = job
        self._publisher.job(job)
        return job

    def _keep(self, job: Job) -> Job:
        jobs = self._running if job.state is JobState.RUNNING else self._queued
        if jobs.get(job.id) != job:
            self._journal.update(job)
            jobs[job.id] = job
            self._publisher.job(job)
        return job

    def _end(self, ended: Job, warnings: tuple[str, ...], again: JobRequest | None) -> None:
        if again is not None and self._same_queued(again):
            again = None  # it comes anyway
        events = end_events(ended, warnings, again, self._clock.now())
        try:
            made = self._journal.finish(ended, events, again)
        finally:
            del self._running[ended.id]
        self._publisher.job(ended)
        for event in events:
            self._publisher.event(event)
        if made is not None:
            self._add(made)

    def _same_queued(self, request: JobRequest) -> bool:
        return any(job.request.same_work(request) for job in self._queued.values())
