"""A journal that lasts as long as the process."""

import threading
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from vm_babysitter.domain.event import Event, end_events
from vm_babysitter.domain.job import (
    ENDED,
    Job,
    JobRequest,
    JobState,
    follow_up,
    interrupt,
)
from vm_babysitter.domain.job_past import KnownPoint, is_told, job_of_point
from vm_babysitter.domain.outbox import NOTHING_NOTED, Outbox


class MemoryJournal:
    """Implements ``ports.Journal``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last_id = 0
        self._jobs: dict[int, Job] = {}
        self._events: list[Event] = []
        self._runs: dict[str, datetime] = {}
        self._since: dict[str, datetime | None] = {}
        self._told: dict[tuple[str, str], bool] = {}

    def submit(self, request: JobRequest, now: datetime) -> Job:
        """See the port."""
        with self._lock:
            self._last_id += 1
            job = Job(self._last_id, request, JobState.QUEUED, now)
            self._jobs[job.id] = job
            return job

    def update(self, job: Job) -> None:
        """See the port."""
        with self._lock:
            self._jobs[job.id] = job
            self._last_id = max(self._last_id, job.id)

    def finish(
        self, job: Job, events: Sequence[Event], again: JobRequest | None = None
    ) -> Job | None:
        """See the port."""
        with self._lock:
            self.update(job)
            self._events.extend(events)
            return None if again is None else self.submit(again, job.finished or job.created)

    def interrupted(self, now: datetime, *, besides: Collection[int] = ()) -> list[Job]:
        """See the port."""
        with self._lock:
            found = [
                interrupt(job, now)
                for job in self._jobs.values()
                if job.state is JobState.RUNNING and job.id not in besides
            ]
            for job in found:
                again = follow_up(job, transient=True, now=now)
                self.finish(job, end_events(job, (), again, now), again)
            return found

    def job(self, job_id: int) -> Job | None:
        """See the port."""
        return self._jobs.get(job_id)

    def jobs(
        self,
        *,
        vm: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """See the port."""
        with self._lock:
            found = sorted(self._jobs.values(), key=lambda job: -job.id)
        return [
            job
            for job in found
            if (vm is None or vm in {job.request.vm_uuid, job.request.vm_name})
            and (states is None or job.state in states)
            and (before is None or job.id < before)
        ][:limit]

    def last_runs(self) -> dict[str, datetime]:
        """See the port."""
        with self._lock:
            return dict(self._runs)

    def note_run(self, schedule: str, due: datetime) -> None:
        """See the port."""
        with self._lock:
            self._runs[schedule] = due

    def event(self, event: Event) -> None:
        """See the port."""
        with self._lock:
            self._events.append(event)

    def events(
        self,
        *,
        vm: str | None = None,
        job: int | None = None,
        kinds: Collection[str] | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """See the port."""
        with self._lock:
            return [
                event
                for event in newest_first(self._events)
                if (vm is None or vm in {event.vm_uuid, event.vm_name})
                and (job is None or event.job_id == job)
                and (kinds is None or event.kind in kinds)
            ][:limit]

    def channels(self) -> dict[str, datetime]:
        """See the port."""
        with self._lock:
            return {name: since for name, since in self._since.items() if since is not None}

    def note_channel(self, channel: str, since: datetime | None) -> None:
        """See the port."""
        with self._lock:
            self._since[channel] = since

    def untold(self, channel: str, since: datetime, limit: int) -> list[Event]:
        """See the port."""
        with self._lock:
            found = [
                event
                for event in self._events
                if event.key and event.at >= since and (channel, event.key) not in self._told
            ]
            return sorted(found, key=lambda event: event.at)[:limit]

    def telling(self, channel: str) -> list[Event]:
        """See the port."""
        with self._lock:
            found = [e for e in self._events if self._told.get((channel, e.key)) is False]
            return sorted(found, key=lambda event: event.at)

    def note_telling(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        with self._lock:
            self._told.update({(channel, key): False for key in keys})

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        with self._lock:
            self._told.update({(channel, key): True for key in keys})

    def take_over(
        self,
        jobs: Sequence[Job],
        events: Sequence[Event],
        runs: dict[str, datetime],
        outbox: Outbox = NOTHING_NOTED,
    ) -> None:
        """See the port."""
        with self._lock:
            for job in jobs:
                self.update(job)
            self._events.extend(events)
            self._runs.update(runs)
            self._since.update(outbox.since)
            self._told.update(outbox.told)

    def prune(self, before: datetime) -> int:
        """See the port."""
        with self._lock:
            old = [j.id for j in self._jobs.values() if j.state in ENDED and _end(j) < before]
            for number in old:
                del self._jobs[number]
            events = [event for event in self._events if event.at >= before]
            gone = len(old) + len(self._events) - len(events)
            self._events = events
            left = {event.key for event in events}
            self._told = {k: told for k, told in self._told.items() if k[1] in left}
            return gone

    def lost(self) -> str:
        """See the port."""
        return ""

    def rebuild(self, points: Sequence[KnownPoint]) -> None:
        """See the port."""
        with self._lock:
            jobs = list(self._jobs.values())
            for point in sorted(points, key=lambda p: p.finished):
                if not is_told(point, jobs):
                    self._last_id += 1
                    self._jobs[self._last_id] = job_of_point(self._last_id, point)

    # -- for those who keep it small ----------------------------------------------------

    def outbox(self) -> Outbox:
        """Return what was noted of telling."""
        with self._lock:
            return Outbox(dict(self._since), dict(self._told))

    def forget(self, job_id: int) -> None:
        """Forget a job, if it is known."""
        with self._lock:
            self._jobs.pop(job_id, None)

    def forget_ended(self) -> None:
        """Forget all but the jobs that have not ended."""
        with self._lock:
            self._jobs = {n: job for n, job in self._jobs.items() if job.state not in ENDED}
            self._events.clear()
            self._runs.clear()
            self._since.clear()
            self._told.clear()

    def trim(self, most: int) -> None:
        """Forget the oldest of more than so many events, and of jobs that ended."""
        with self._lock:
            del self._events[:-most]
            ended = [n for n, job in sorted(self._jobs.items()) if job.state in ENDED]
            for number in ended[:-most]:
                del self._jobs[number]

    def count_from(self, number: int) -> None:
        """Give the next job a number that is higher than this one."""
        with self._lock:
            self._last_id = max(self._last_id, number)


def newest_first(events: Iterable[Event]) -> list[Event]:
    """Return events in the order of ``Journal.events``; of one moment, the last one first."""
    return sorted(events, key=lambda event: event.at)[::-1]


def _end(job: Job) -> datetime:
    return job.finished or job.created
