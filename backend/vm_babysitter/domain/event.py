"""Events: what has happened, for whoever is to be told. Pure."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from vm_babysitter.domain.errors import PointDamaged
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Result
from vm_babysitter.lib.keys import new_key
from vm_babysitter.lib.units import format_duration


class Severity(StrEnum):
    """How much an event matters."""

    NORMAL = "normal"
    WARNING = "warning"
    """Worth a look; nothing is lost, or it goes on by itself."""
    ALERT = "alert"
    """Somebody has to do something."""


class EventKind(StrEnum):
    """What happened to jobs and their journal. Other parts have kinds of their own."""

    JOB_DONE = "job-done"
    JOB_FAILED = "job-failed"
    JOB_CANCELLED = "job-cancelled"
    JOB_INTERRUPTED = "job-interrupted"
    JOB_STALLED = "job-stalled"
    JOB_RELEASED = "job-released"
    """One that had been given up has ended after all."""
    JOB_RESUMED = "job-resumed"
    """One that was interrupted, or failed before, has gone well now."""
    REPAIRED = "repaired"
    """What was wrong with backups has been put right without anybody asking for it."""
    JOURNAL_FAILED = "journal-failed"
    JOURNAL_BACK = "journal-back"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened."""

    at: datetime
    kind: str
    severity: Severity
    subject: str
    """A few words."""
    text: str = ""
    """Sentences, one per line."""
    vm_uuid: str = ""
    vm_name: str = ""
    job_id: int = 0
    """0: of no job."""
    code: str = ""
    """Of an error."""
    key: str = field(default_factory=new_key, compare=False)
    """No other event has it: for noting who was told. Empty: from before there were such notes."""


_KINDS = {
    JobState.DONE: EventKind.JOB_DONE,
    JobState.FAILED: EventKind.JOB_FAILED,
    JobState.CANCELLED: EventKind.JOB_CANCELLED,
    JobState.INTERRUPTED: EventKind.JOB_INTERRUPTED,
}
_WHAT = {
    EventKind.JOB_STALLED: "does not get on",
    EventKind.JOB_RELEASED: "has ended after all",
}
NOTHING_LEFT = "nothing-left"
"""Code of a job that found that no restore point can be restored."""


def job_event(kind: EventKind, severity: Severity, job: Job, at: datetime, text: str) -> Event:
    """Return an event about a job; its kind tells the rest of the subject."""
    request = job.request
    if kind is EventKind.JOB_DONE and job.result is Result.WARNINGS:
        what = "done, with warnings"
    elif request.kind is JobKind.VERIFY and job.code == PointDamaged.code:
        what = "found damage"
    else:
        what = _WHAT.get(kind) or kind.removeprefix("job-")
    return Event(
        at=at,
        kind=kind,
        severity=severity,
        subject=f"{request.kind.noun.capitalize()} of {request.vm_name} {what}",
        text=text,
        vm_uuid=request.vm_uuid,
        vm_name=request.vm_name,
        job_id=job.id,
        code=job.code,
    )


def end_events(
    job: Job, warnings: tuple[str, ...], again: JobRequest | None, now: datetime
) -> tuple[Event, ...]:
    """Return what is told about the end of a job.

    Nothing where there was nothing to do, and nothing where the user cancelled what had not
    begun. A failure is an alert once nothing is tried again by itself. What matters most comes
    first: much of the time a user sees no more.
    """
    if job.result is Result.NOTHING or (job.state is JobState.CANCELLED and job.started is None):
        return ()
    warned = job.result is Result.WARNINGS and job.code != NOTHING_LEFT
    said = [*warnings, job.summary] if warned else [job.summary, *warnings]
    lines = [*said, job.hint, _next_try(job, again, now)]
    text = "\n".join(line for line in lines if line)
    event = job_event(_KINDS[job.state], _severity(job, again), job, now, text)
    if event.kind == EventKind.JOB_DONE and event.severity is Severity.NORMAL:
        event = _unasked(event, job)
    return (event,)


def _unasked(event: Event, job: Job) -> Event:
    """Return what is told of a job that nobody asked for in person, and that went well."""
    request, name = job.request, job.request.vm_name
    if request.kind is JobKind.REPAIR and request.origin is Origin.RETRY:
        subject = f"The backups of {name} were repaired"
        text = f"{event.text}\nNothing is left for you to do."
        return replace(event, kind=EventKind.REPAIRED, subject=subject, text=text)
    if request.try_number > 1:
        subject = f"{request.kind.noun.capitalize()} of {name} done after all"
        text = f"{event.text}\nAn earlier try was interrupted or failed; this one went well."
        return replace(event, kind=EventKind.JOB_RESUMED, subject=subject, text=text)
    return event


def _severity(job: Job, again: JobRequest | None) -> Severity:
    if job.state is JobState.FAILED:
        return Severity.WARNING if again is not None else Severity.ALERT
    if job.code == NOTHING_LEFT:
        return Severity.ALERT
    if job.state is JobState.INTERRUPTED or job.result is Result.WARNINGS:
        return Severity.WARNING
    return Severity.NORMAL


def _next_try(job: Job, again: JobRequest | None, now: datetime) -> str:
    if again is None:
        interrupted = job.state is JobState.INTERRUPTED
        return (
            "It is not done again by itself: start it anew if you need it." if interrupted else ""
        )
    wait = (again.not_before or now) - now
    if wait <= timedelta(0):
        return "It is done again."
    words = format_duration(wait.total_seconds()).removesuffix(" 0 s")
    return f"It is tried again in {words}."
