"""A journal that never fails: what it cannot keep now it remembers, and keeps later."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

from vm_babysitter.domain.errors import JournalFailed
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import LIVE, Job, JobRequest, JobState
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.domain.outbox import NOTHING_NOTED, Outbox
from vm_babysitter.engine.memory_journal import MemoryJournal, newest_first
from vm_babysitter.ports import Clock, Journal

_CAUGHT_UP = "What happened meanwhile is in it. Nothing is left to do."
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MOST = 2000
"""Jobs that ended, and events, that are remembered at most."""


def _nothing() -> None:
    """Nobody is to be told."""


class SteadyJournal:
    """Implements ``ports.Journal`` on another one, and never raises JournalFailed.

    Jobs that have not ended are in memory as well, so whatever becomes of the other journal, a
    new one can be told of them.
    """

    def __init__(
        self, journal: Journal, clock: Clock, on_back: Callable[[], None] = _nothing
    ) -> None:
        """``on_back`` is called when the journal works again, from any thread."""
        self.on_back = on_back
        self._journal = journal
        self._clock = clock
        self._lock = threading.RLock()
        self._memory = MemoryJournal()
        """Jobs that have not ended; with trouble, all that the journal was not told."""
        self._counted = False
        """Whether the numbers of jobs go on from those of the journal."""
        self._trouble: JournalFailed | None = None
        self._start: datetime | None = None
        """When ``interrupted`` was asked for, if it could not be done."""

    @property
    def trouble(self) -> str:
        """Why the journal is not on disk now, and what to do; empty if all is well."""
        trouble = self._trouble
        return "" if trouble is None else str(trouble)

    # -- writing ------------------------------------------------------------------------

    def submit(self, request: JobRequest, now: datetime) -> Job:
        """See the port."""
        with self._lock:
            job = self._write(lambda journal: journal.submit(request, now))
            self._remember(job)
            return job

    def update(self, job: Job) -> None:
        """See the port."""
        with self._lock:
            self._write(lambda journal: journal.update(job))
            self._remember(job)

    def finish(
        self, job: Job, events: Sequence[Event], again: JobRequest | None = None
    ) -> Job | None:
        """See the port."""
        with self._lock:
            made = self._write(lambda journal: journal.finish(job, events, again))
            self._remember(job)
            if made is not None:
                self._remember(made)
            return made

    def interrupted(self, now: datetime, *, besides: Collection[int] = ()) -> list[Job]:
        """See the port. What cannot be done now is done once the journal works again."""
        with self._lock:
            found = self._write(lambda journal: journal.interrupted(now, besides=besides))
            if self._trouble is not None:
                self._start = now
            else:
                self._remember_live()
            return found

    def note_run(self, schedule: str, due: datetime) -> None:
        """See the port."""
        self._write(lambda journal: journal.note_run(schedule, due))

    def event(self, event: Event) -> None:
        """See the port."""
        self._write(lambda journal: journal.event(event))

    def note_channel(self, channel: str, since: datetime | None) -> None:
        """See the port."""
        self._write(lambda journal: journal.note_channel(channel, since))

    def note_telling(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        self._write(lambda journal: journal.note_telling(channel, keys))

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        self._write(lambda journal: journal.note_told(channel, keys))

    def take_over(
        self,
        jobs: Sequence[Job],
        events: Sequence[Event],
        runs: dict[str, datetime],
        outbox: Outbox = NOTHING_NOTED,
    ) -> None:
        """See the port."""
        with self._lock:
            self._write(lambda journal: journal.take_over(jobs, events, runs, outbox))
            for job in jobs:
                self._remember(job)

    def prune(self, before: datetime) -> int:
        """See the port."""
        return self._write(lambda journal: journal.prune(before))

    def rebuild(self, points: Sequence[KnownPoint]) -> None:
        """See the port. Without a journal on disk there is nothing to rebuild."""
        with self._lock:
            try:
                self._journal.rebuild(points)
            except JournalFailed as error:
                self._failed(error)

    def retry(self) -> None:
        """See whether a journal that failed works again."""
        with self._lock:
            if self._trouble is not None:
                self._catch_up()

    # -- reading ------------------------------------------------------------------------

    def job(self, job_id: int) -> Job | None:
        """See the port."""
        found = self._memory.job(job_id)
        return found or self._read(lambda journal: journal.job(job_id))

    def jobs(
        self,
        *,
        vm: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """See the port."""

        def ask(journal: Journal) -> list[Job]:
            return journal.jobs(vm=vm, states=states, limit=limit, before=before)

        found = {job.id: job for job in self._read(ask) or []}
        for job in self._memory.jobs(limit=2 * _MOST):
            found.pop(job.id, None)  # which may have another state by now
        found |= {job.id: job for job in ask(self._memory)}
        return sorted(found.values(), key=lambda job: -job.id)[:limit]

    def last_runs(self) -> dict[str, datetime]:
        """See the port."""
        return (self._read(lambda journal: journal.last_runs()) or {}) | self._memory.last_runs()

    def events(
        self,
        *,
        vm: str | None = None,
        job: int | None = None,
        kinds: Collection[str] | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """See the port."""

        def ask(journal: Journal) -> list[Event]:
            return journal.events(vm=vm, job=job, kinds=kinds, limit=limit)

        older, newer = self._read(ask) or [], ask(self._memory)
        return newest_first([*reversed(older), *reversed(newer)])[:limit]

    def channels(self) -> dict[str, datetime]:
        """See the port."""
        found: dict[str, datetime | None] = {}
        with self._lock:
            found |= self._read(lambda journal: journal.channels()) or {}
            found |= self._memory.outbox().since
        return {name: since for name, since in found.items() if since is not None}

    def untold(self, channel: str, since: datetime, limit: int) -> list[Event]:
        """See the port."""
        with self._lock:
            noted = self._noted(channel)
            most = limit + len(noted)
            older = self._read(lambda journal: journal.untold(channel, since, most)) or []
            left = [event for event in older if event.key not in noted]
            newer = self._memory.untold(channel, since, limit)
        return sorted([*left, *newer], key=lambda event: event.at)[:limit]

    def telling(self, channel: str) -> list[Event]:
        """See the port."""
        with self._lock:
            noted = self._noted(channel)
            older = self._read(lambda journal: journal.telling(channel)) or []
            left = [event for event in older if event.key not in noted]
            return [*left, *self._memory.telling(channel)]

    def lost(self) -> str:
        """See the port."""
        return self._read(lambda journal: journal.lost()) or ""

    # -- the two journals ---------------------------------------------------------------

    def _write(self, work: Callable[[Journal], _T]) -> _T:
        with self._lock:
            # Twice: a journal that was damaged is set aside, and the new one works at once.
            for _ in range(2):
                try:
                    if self._catch_up():
                        done = work(self._journal)
                        self._counted = True
                        return done
                except JournalFailed as error:
                    self._failed(error)
            done = work(self._memory)
            self._memory.trim(_MOST)
            return done

    def _read(self, ask: Callable[[Journal], _T]) -> _T | None:
        try:
            return ask(self._journal)
        except JournalFailed as error:
            with self._lock:
                self._failed(error)
            return None

    def _noted(self, channel: str) -> set[str]:
        """Return the keys of events of which only memory knows how far they are told."""
        return {key for name, key in self._memory.outbox().told if name == channel}

    def _remember(self, job: Job) -> None:
        if job.state in LIVE or self._trouble is not None:
            self._memory.update(job)
        else:
            self._memory.forget(job.id)

    def _remember_live(self) -> None:
        for job in self._read(lambda journal: journal.jobs(states=LIVE, limit=_MOST)) or []:
            self._memory.update(job)

    def _failed(self, error: JournalFailed) -> None:
        if self._trouble is None:
            _log.error("%s", error)
            self._memory.event(self._told(EventKind.JOURNAL_FAILED, Severity.ALERT, error))
            if not self._counted:
                self._memory.count_from(self._highest())
        self._trouble = error

    def _highest(self) -> int:
        """Return a number that no job has: the time, where the journal does not tell."""
        try:
            return max((job.id for job in self._journal.jobs(limit=1)), default=0)
        except JournalFailed:
            return int(self._clock.now().timestamp())

    def _catch_up(self) -> bool:
        """Tell the journal what it was not told; return whether it works."""
        if self._trouble is None:
            return True
        back = self._told(EventKind.JOURNAL_BACK, Severity.NORMAL, self._trouble)
        jobs = self._memory.jobs(limit=2 * _MOST)
        events = [*reversed(self._memory.events(limit=2 * _MOST)), back]
        try:
            if self._start is not None:
                self._journal.interrupted(self._start, besides={job.id for job in jobs})
            self._journal.take_over(
                jobs[::-1], events, self._memory.last_runs(), self._memory.outbox()
            )
        except JournalFailed as error:
            self._trouble = error
            return False
        _log.warning("The journal works again; it was told what happened meanwhile.")
        self._trouble = self._start = None
        self._memory.forget_ended()
        self._remember_live()
        self.on_back()
        return True

    def _told(self, kind: EventKind, severity: Severity, error: JournalFailed) -> Event:
        failed = kind is EventKind.JOURNAL_FAILED
        return Event(
            at=self._clock.now(),
            kind=kind,
            severity=severity,
            subject=f"The journal of jobs {'cannot be used' if failed else 'works again'}",
            text=error.lines if failed else _CAUGHT_UP,
            code=error.code,
        )
