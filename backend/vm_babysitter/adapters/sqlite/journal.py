"""The journal in a database file: ``ports.Journal``."""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection

from vm_babysitter.adapters.sqlite import outbox as notes
from vm_babysitter.adapters.sqlite.database import Database
from vm_babysitter.adapters.sqlite.rows import (
    EVENT_COLUMNS,
    JOB_COLUMNS,
    Value,
    event_of,
    event_row,
    job_of,
    job_row,
    moment,
    number,
    places,
    readable,
    where,
)
from vm_babysitter.domain.event import Event, end_events
from vm_babysitter.domain.job import ENDED, Job, JobRequest, JobState, follow_up, interrupt
from vm_babysitter.domain.job_past import KnownPoint, is_told, job_of_point
from vm_babysitter.domain.outbox import NOTHING_NOTED, Outbox
from vm_babysitter.ports import Clock

# The columns are constants of ours; every value goes through a place holder.
_PUT_JOB = f"INSERT OR REPLACE INTO jobs ({JOB_COLUMNS}) VALUES ({places(JOB_COLUMNS)})"  # noqa: S608
_PUT_EVENT = f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({places(EVENT_COLUMNS)})"  # noqa: S608
_DELETE_JOBS = f"DELETE FROM jobs WHERE finished < ? AND state IN ({places(','.join(ENDED))})"  # noqa: S608
_PUT_RUN = "INSERT OR REPLACE INTO runs (schedule, due) VALUES (?, ?)"


class SqliteJournal:
    """Implements ``ports.Journal``."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open nothing yet: a journal that cannot be used fails when it is used."""
        self._database = Database(path, clock)

    def close(self) -> None:
        """Close the file, so that the file system it lies on can be unmounted."""
        self._database.close()

    # -- writing ------------------------------------------------------------------------

    def submit(self, request: JobRequest, now: datetime) -> Job:
        """See the port."""
        with self._database.writing() as connection:
            return _add(connection, request, now)

    def update(self, job: Job) -> None:
        """See the port."""
        with self._database.writing() as connection:
            _put(connection, job)

    def finish(
        self, job: Job, events: Sequence[Event], again: JobRequest | None = None
    ) -> Job | None:
        """See the port."""
        with self._database.writing() as connection:
            return _finish(connection, job, events, again)

    def interrupted(self, now: datetime, *, besides: Collection[int] = ()) -> list[Job]:
        """See the port."""
        with self._database.writing() as connection:
            found = _jobs(connection, [("state = ?", [JobState.RUNNING])])
            ended = [interrupt(job, now) for job in found[::-1] if job.id not in besides]
            for job in ended:
                again = follow_up(job, transient=True, now=now)
                _finish(connection, job, end_events(job, (), again, now), again)
            return ended

    def note_run(self, schedule: str, due: datetime) -> None:
        """See the port."""
        with self._database.writing() as connection:
            connection.execute(_PUT_RUN, (schedule, moment(due)))

    def event(self, event: Event) -> None:
        """See the port."""
        with self._database.writing() as connection:
            connection.execute(_PUT_EVENT, event_row(event))

    def note_channel(self, channel: str, since: datetime | None) -> None:
        """See the port."""
        with self._database.writing() as connection:
            notes.put_channel(connection, channel, since)

    def note_telling(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        with self._database.writing() as connection:
            notes.put(connection, {(channel, key): False for key in keys})

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        """See the port."""
        with self._database.writing() as connection:
            notes.put(connection, {(channel, key): True for key in keys})

    def take_over(
        self,
        jobs: Sequence[Job],
        events: Sequence[Event],
        runs: dict[str, datetime],
        outbox: Outbox = NOTHING_NOTED,
    ) -> None:
        """See the port."""
        with self._database.writing() as connection:
            for job in jobs:
                _put(connection, job)
            connection.executemany(_PUT_EVENT, map(event_row, events))
            connection.executemany(_PUT_RUN, [(k, moment(due)) for k, due in runs.items()])
            notes.put_all(connection, outbox)

    def prune(self, before: datetime) -> int:
        """See the port."""
        ended = list(ENDED)
        with self._database.writing() as connection:
            jobs = connection.execute(_DELETE_JOBS, [moment(before), *ended]).rowcount
            events = connection.execute("DELETE FROM events WHERE at < ?", [moment(before)])
            notes.prune(connection)
            return jobs + events.rowcount

    def rebuild(self, points: Sequence[KnownPoint]) -> None:
        """See the port."""
        with self._database.writing() as connection:
            jobs = _jobs(connection, [("(started IS NOT NULL OR point <> '')", [])])
            for point in sorted(points, key=lambda p: p.finished):
                if not is_told(point, jobs):
                    connection.execute(_PUT_JOB, job_row(job_of_point(0, point), None))
            connection.execute("DELETE FROM marks WHERE name = 'lost'")

    # -- reading ------------------------------------------------------------------------

    def job(self, job_id: int) -> Job | None:
        """See the port."""
        with self._database.reading() as connection:
            found = _jobs(connection, [("id = ?", [number(job_id)])])
            return found[0] if found else None

    def jobs(
        self,
        *,
        vm: str | None = None,
        states: Collection[JobState] | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """See the port."""
        conditions: list[tuple[str, Sequence[Value]]] = []
        if vm is not None:
            conditions.append(("(vm_uuid = ? OR vm_name = ?)", [vm, vm]))
        if states is not None:
            conditions.append((f"state IN ({', '.join('?' for _ in states)})", list(states)))
        if before is not None:
            conditions.append(("id < ?", [number(before)]))
        with self._database.reading() as connection:
            return _jobs(connection, conditions, limit)

    def last_runs(self) -> dict[str, datetime]:
        """See the port."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT schedule, due FROM runs").fetchall()
            return dict(readable(rows, lambda r: (r["schedule"], datetime.fromisoformat(r["due"]))))

    def events(
        self,
        *,
        vm: str | None = None,
        job: int | None = None,
        kinds: Collection[str] | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """See the port."""
        conditions: list[tuple[str, Sequence[Value]]] = []
        if vm is not None:
            conditions.append(("(vm_uuid = ? OR vm_name = ?)", [vm, vm]))
        if job is not None:
            conditions.append(("job_id = ?", [number(job)]))
        if kinds is not None:
            conditions.append((f"kind IN ({', '.join('?' for _ in kinds)})", list(kinds)))
        chosen, values = where(conditions)
        query = f"SELECT {EVENT_COLUMNS} FROM events {chosen} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608
        with self._database.reading() as connection:
            return readable(
                connection.execute(query, [*values, number(limit)]).fetchall(), event_of
            )

    def channels(self) -> dict[str, datetime]:
        """See the port."""
        with self._database.reading() as connection:
            return notes.channels(connection)

    def untold(self, channel: str, since: datetime, limit: int) -> list[Event]:
        """See the port."""
        with self._database.reading() as connection:
            return notes.untold(connection, channel, since, limit)

    def telling(self, channel: str) -> list[Event]:
        """See the port."""
        with self._database.reading() as connection:
            return notes.telling(connection, channel)

    def lost(self) -> str:
        """See the port."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM marks WHERE name = 'lost'").fetchone()
            return "" if row is None else str(row[0])


def _add(connection: Connection, request: JobRequest, now: datetime) -> Job:
    job = Job(0, request, JobState.QUEUED, now)
    made = connection.execute(_PUT_JOB, job_row(job, None)).lastrowid
    return Job(made or 0, request, JobState.QUEUED, now)


def _put(connection: Connection, job: Job) -> None:
    connection.execute(_PUT_JOB, job_row(job, job.id))


def _finish(
    connection: Connection, job: Job, events: Sequence[Event], again: JobRequest | None
) -> Job | None:
    _put(connection, job)
    connection.executemany(_PUT_EVENT, map(event_row, events))
    return None if again is None else _add(connection, again, job.finished or job.created)


def _jobs(
    connection: Connection, conditions: Sequence[tuple[str, Sequence[Value]]], limit: int = -1
) -> list[Job]:
    chosen, values = where(conditions)
    query = f"SELECT {JOB_COLUMNS} FROM jobs {chosen} ORDER BY id DESC LIMIT ?"  # noqa: S608
    return readable(connection.execute(query, [*values, number(limit)]).fetchall(), job_of)
