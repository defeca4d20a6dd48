"""What jobs leave behind, and who watches them: the journal, their logs, whoever listens."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import Job, JobRequest, JobState
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.domain.outbox import NOTHING_NOTED, Outbox


class Journal(Protocol):
    """Remembers jobs and events. It is an index: the truth about backups is in their folder.

    What a call has returned from stays, whoever is killed. Safe for threads. Every call may
    raise JournalFailed, and has changed nothing then.
    """

    def submit(self, request: JobRequest, now: datetime) -> Job:
        """Keep a new job, and give it its number, which is higher than any before."""

    def update(self, job: Job) -> None:
        """Keep how far a job is. One that is not known is added under its number."""

    def finish(
        self, job: Job, events: Sequence[Event], again: JobRequest | None = None
    ) -> Job | None:
        """Keep the end of a job, what is told about it, and what is done again, or none of it.

        Returns:
            The job made of ``again``.
        """

    def interrupted(self, now: datetime, *, besides: Collection[int] = ()) -> list[Job]:
        """Have all jobs that run become interrupted; at the start, nothing runs.

        Events tell of them, and what may be done again is queued. Those with the numbers
        ``besides`` are left as they are. Returns the interrupted ones.
        """

    def job(self, job_id: int) -> Job | None:
        """Return a job, None if it is not known."""

    def jobs(
        self,
        *,
        vm: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """Return jobs, the newest first.

        Args:
            vm: the UUID or name of the VM they are about.
            states: which they are in.
            limit: how many at most.
            before: those with lower numbers than this one.
        """

    def last_runs(self) -> dict[str, datetime]:
        """Return when each schedule was due the last time that its jobs were submitted."""

    def note_run(self, schedule: str, due: datetime) -> None:
        """Keep that the jobs of a schedule were submitted for its turn at ``due``."""

    def event(self, event: Event) -> None:
        """Keep an event."""

    def events(
        self,
        *,
        vm: str | None = None,
        job: int | None = None,
        kinds: Collection[str] | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """Return events, the newest first: of a VM (UUID or name), of a job, of these kinds."""

    def channels(self) -> dict[str, datetime]:
        """Return the ways of telling that are on, by name, and since when."""

    def note_channel(self, channel: str, since: datetime | None) -> None:
        """Keep since when a way of telling is on; None: it is off."""

    def untold(self, channel: str, since: datetime, limit: int) -> list[Event]:
        """Return events from a moment on that are neither told nor being told, oldest first."""

    def telling(self, channel: str) -> list[Event]:
        """Return the events that are being told: after a crash they may have been told."""

    def note_telling(self, channel: str, keys: Collection[str]) -> None:
        """Keep that the events with these keys are being told now."""

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        """Keep that the events with these keys were told, or never will be."""

    def take_over(
        self,
        jobs: Sequence[Job],
        events: Sequence[Event],
        runs: dict[str, datetime],
        outbox: Outbox = NOTHING_NOTED,
    ) -> None:
        """Keep what was remembered elsewhere meanwhile, all or nothing."""

    def prune(self, before: datetime) -> int:
        """Forget jobs that ended, and events that happened, before a moment; return how many."""

    def lost(self) -> str:
        """Return why what was known before is gone; empty if nothing is, or it was rebuilt."""

    def rebuild(self, points: Sequence[KnownPoint]) -> None:
        """Make jobs of restore points that no job tells of. ``lost`` is empty then."""


class Publisher(Protocol):
    """Tells whoever listens at this moment. Never fails, and returns soon."""

    def job(self, job: Job) -> None:
        """A job is new, has changed, or got on."""

    def event(self, event: Event) -> None:
        """Something has happened."""


class JobLogs(Protocol):
    """A log for each job."""

    def of(self, job_id: int) -> AbstractContextManager[None]:
        """Have what is logged about a job (the attribute ``job`` of records) go to its log.

        So does what the calling thread logs. Never fails: a log that cannot be written to is
        told of in the main log.
        """
