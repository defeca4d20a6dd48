"""Jobs and events as rows of a database, and back."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Result

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
Value = str | int | None

JOB_COLUMNS = (
    "id, kind, vm_uuid, vm_name, options, origin, schedule, try_number, not_before, state, "
    "created, started, finished, waits_for, result, summary, code, hint, point, step, "
    "done_bytes, total_bytes"
)
EVENT_COLUMNS = "at, kind, severity, subject, text, vm_uuid, vm_name, job_id, code, key"


def places(columns: str) -> str:
    """Return a place holder for each column."""
    return ", ".join("?" for _ in columns.split(","))


def moment(value: datetime) -> str:
    """Return a time so that later ones are greater as texts too."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")


def job_row(job: Job, number: int | None) -> tuple[Value, ...]:
    """Return the values of ``JOB_COLUMNS``; without a number the database gives one."""
    request = job.request
    values: tuple[Value, ...] = (
        number,
        request.kind,
        request.vm_uuid,
        request.vm_name,
        json.dumps(dict(request.options)),
        request.origin,
        request.schedule,
        request.try_number,
        _moment(request.not_before),
        job.state,
        moment(job.created),
        _moment(job.started),
        _moment(job.finished),
        job.waits_for,
        job.result,
        job.summary,
        job.code,
        job.hint,
        job.point,
        job.step,
        job.done_bytes,
        job.total_bytes,
    )
    return tuple(map(_storable, values))


def event_row(event: Event) -> tuple[Value, ...]:
    """Return the values of ``EVENT_COLUMNS``."""
    values: tuple[Value, ...] = (
        moment(event.at),
        event.kind,
        event.severity,
        event.subject,
        event.text,
        event.vm_uuid,
        event.vm_name,
        event.job_id,
        event.code,
        event.key,
    )
    return tuple(map(_storable, values))


def job_of(row: sqlite3.Row) -> Job:
    """Return the job that a row tells of. Raises ValueError, TypeError or LookupError."""
    options = json.loads(row["options"])
    if not isinstance(options, dict):
        raise TypeError(f"options are {options!r}")
    request = JobRequest(
        kind=JobKind(row["kind"]),
        vm_uuid=row["vm_uuid"],
        vm_name=row["vm_name"],
        options=options,
        origin=Origin(row["origin"]),
        schedule=row["schedule"],
        try_number=row["try_number"],
        not_before=_time(row["not_before"]),
    )
    return Job(
        id=row["id"],
        request=request,
        state=JobState(row["state"]),
        created=datetime.fromisoformat(row["created"]),
        started=_time(row["started"]),
        finished=_time(row["finished"]),
        waits_for=row["waits_for"],
        result=None if row["result"] is None else Result(row["result"]),
        summary=row["summary"],
        code=row["code"],
        hint=row["hint"],
        point=row["point"],
        step=row["step"],
        done_bytes=row["done_bytes"],
        total_bytes=row["total_bytes"],
    )


def event_of(row: sqlite3.Row) -> Event:
    """Return the event that a row tells of. Raises ValueError, TypeError or LookupError."""
    return Event(
        at=datetime.fromisoformat(row["at"]),
        kind=row["kind"],
        severity=Severity(row["severity"]),
        subject=row["subject"],
        text=row["text"],
        vm_uuid=row["vm_uuid"],
        vm_name=row["vm_name"],
        job_id=row["job_id"],
        code=row["code"],
        key=row["key"],
    )


def readable(rows: Iterable[sqlite3.Row], read: Callable[[sqlite3.Row], _T]) -> list[_T]:
    """Return what the rows tell; one that cannot be read does not hide the others."""
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except (ValueError, TypeError, LookupError) as error:
            _log.warning("An entry of the journal cannot be read (%s): %r", error, tuple(row))
    return found


def number(value: int) -> int:
    """Return a number as the database can hold it: no entry has one that is out of bounds."""
    return max(-1, min(value, 2**63 - 1))


def where(conditions: Sequence[tuple[str, Sequence[Value]]]) -> tuple[str, list[Value]]:
    """Return the conditions that are there as SQL, and their values."""
    texts = [text for text, _ in conditions]
    values = [value for _, found in conditions for value in found]
    return (f"WHERE {' AND '.join(texts)}" if texts else ""), values


def _storable(value: Value) -> Value:
    """Return a text as UTF-8 can hold it; names from outside may have halves of characters."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _moment(value: datetime | None) -> str | None:
    return None if value is None else moment(value)


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
