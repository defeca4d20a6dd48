"""Jobs and events as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.colours import bad, by_severity, good, plain, warning
from vm_babysitter.cli.render import local, one_line, table
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.job import ENDED, QUEUED, JobState, Result
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.views import EventView, JobView

_RESULT = {
    Result.OK: good,
    Result.WARNINGS: warning,
    Result.FAILED: bad,
    Result.CANCELLED: warning,
    Result.NOTHING: plain,
}


def submitted_text(job: JobView, suggest: Suggest) -> str:
    """Say that the daemon has taken a job on, and how to hear more of it."""
    command = suggest.command("jobs", str(job.id))
    return f"Job {job.id}, {job.kind} of {job.vm!r}: {doing(job)}. More: {command}"


def cancel_text(job: JobView) -> str:
    """Say what becomes of a job that was cancelled."""
    if job.state in ENDED:
        return f"Job {job.id} has ended: {job.summary or job.state}"
    return f"Job {job.id} is being cancelled."


def doing(job: JobView) -> str:
    """Say in a few words what a job does just now, or what it came to."""
    if job.state in ENDED:
        return one_line(job.summary) or str(job.state)
    if job.waits_for:
        return f"waits: {job.waits_for}"
    if job.state in QUEUED:
        return "queued" if job.not_before is None else f"not before {local(job.not_before)}"
    if not job.total_bytes:
        return job.step or "begins"
    share = min(1.0, job.done_bytes / job.total_bytes)
    amounts = f"{format_bytes(job.done_bytes)} of {format_bytes(job.total_bytes)}"
    return f"{job.step}: {share:.0%}, {amounts}"


def jobs_text(jobs: Sequence[JobView]) -> str:
    """List jobs."""
    if not jobs:
        return "There is no such job."
    rows = [
        (
            str(job.id),
            str(job.kind),
            job.vm,
            local(job.started or job.created),
            _took(job),
            _state(job),
            doing(job),
        )
        for job in jobs
    ]
    return table(("JOB", "KIND", "VM", "BEGUN", "TOOK", "STATE", "WHAT"), rows)


def job_text(job: JobView, suggest: Suggest) -> str:
    """Say all of one job."""
    options = ", ".join(f"{name}: {value}" for name, value in job.options.items())
    origin = f"{job.origin} {job.schedule!r}" if job.schedule else str(job.origin)
    again = f", try {job.try_number}" if job.try_number > 1 else ""
    lines = [
        ("job", f"{job.id}, {job.kind} of {job.vm!r}"),
        ("asked for by", f"{origin}{again}, {local(job.created)}"),
        ("options", options),
        ("begun", local(job.started) if job.started else ""),
        ("ended", f"{local(job.finished)} ({_took(job)})" if job.finished else ""),
        ("restore point", job.point),
        ("state", _state(job)),
        ("", doing(job)),
        ("", suggest.completed(job.hint)),
        ("log", suggest.command("logs", str(job.id))),
    ]
    return "\n".join(f"{name:13}  {text}" for name, text in lines if text)


def events_text(events: Sequence[EventView]) -> str:
    """List what happened."""
    if not events:
        return "Nothing has happened yet."
    rows = [
        (
            local(event.at),
            "-" if event.job is None else str(event.job),
            by_severity(event.severity, str(event.severity)),
            f"{event.subject}: {one_line(event.text)}" if event.text else event.subject,
        )
        for event in events
    ]
    return table(("WHEN", "JOB", "WEIGHT", "WHAT"), rows)


def _state(job: JobView) -> str:
    if job.result is None:
        return bad(str(job.state)) if job.state is JobState.INTERRUPTED else str(job.state)
    return _RESULT[job.result]("done" if job.result is Result.OK else str(job.result))


def _took(job: JobView) -> str:
    if job.started is None or job.finished is None:
        return "-"
    return format_duration((job.finished - job.started).total_seconds())
