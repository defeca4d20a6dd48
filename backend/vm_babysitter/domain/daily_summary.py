"""What came of the jobs of a day, in a few words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.job import Job, JobKind, JobState, Result

_BAD = frozenset({JobState.FAILED, JobState.INTERRUPTED})
_FEW = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """The day in words."""

    subject: str
    text: str
    lines: tuple[str, ...]
    """One for each job, what went wrong first."""
    failed: int
    """Jobs that failed, and were not made good later."""


def daily_summary(jobs: Sequence[Job], since: datetime, until: datetime) -> Summary | None:
    """Sum up the jobs that ended from ``since`` to ``until``; None if none did."""
    ended = sorted(
        (job for job in jobs if job.finished is not None and since <= job.finished < until),
        key=lambda job: job.id,
    )
    good = [job for job in ended if job.result in {Result.OK, Result.WARNINGS}]
    idle = [job for job in ended if job.result is Result.NOTHING]
    bad = [job for job in ended if job.state in _BAD and not _made_good(job, ended)]
    if not good and not idle and not bad:
        return None
    names = list(dict.fromkeys(job.request.vm_name for job in bad))
    unchanged = len({job.request.vm_uuid for job in idle})
    return Summary(
        subject=_subject(good, names),
        text=_text(good, bad, unchanged),
        lines=(*(_line("failed", job) for job in bad), *(_line("good", job) for job in good)),
        failed=len(bad),
    )


def _made_good(job: Job, ended: Sequence[Job]) -> bool:
    """Whether the same was done later, and went well."""
    return any(
        later.id > job.id
        and later.request.kind is job.request.kind
        and later.request.vm_uuid == job.request.vm_uuid
        and later.state is JobState.DONE
        for later in ended
    )


def _subject(good: Sequence[Job], failed: Sequence[str]) -> str:
    if not failed:
        return f"{_counted(good)}, all good"
    names = ", ".join(failed[:_FEW]) + (" ..." if failed[_FEW:] else "")
    return f"{_counted(good)} good; failed: {names}"


def _text(good: Sequence[Job], bad: Sequence[Job], unchanged: int) -> str:
    words = f"{_counted(good)} went well"
    warned = sum(job.result is Result.WARNINGS for job in good)
    if warned:
        words += f" ({warned} with warnings)"
    if unchanged:
        words += f"; {unchanged} VM{'s' if unchanged > 1 else ''} had nothing to do"
    if bad:
        words += f"; {_counted(bad)} did not succeed"
    return f"{words}."


def _counted(jobs: Sequence[Job]) -> str:
    found = []
    for kind in JobKind:
        number = sum(job.request.kind is kind for job in jobs)
        if number:
            found.append(f"{number} {kind.noun}{'' if number == 1 else 's'}")
    return ", ".join(found) or "No job"


def _line(word: str, job: Job) -> str:
    request = job.request
    hint = f" {job.hint}" if word == "failed" and job.hint else ""
    return f"{word}: {request.kind.noun} of {request.vm_name}: {job.summary}{hint}"
