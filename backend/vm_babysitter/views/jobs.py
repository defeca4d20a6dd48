"""Jobs, their logs, and how far they are."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from vm_babysitter.domain.job import Job, JobKind, JobState, Origin, Result


@dataclass(frozen=True, slots=True)
class JobView:
    """One run of a verb for one VM."""

    id: int
    kind: JobKind
    vm: str
    uuid: str
    options: dict[str, str | int | bool | list[str]]
    origin: Origin
    schedule: str
    """Name of the schedule that asked for it; empty without one."""
    try_number: int
    state: JobState
    waits_for: str
    """What has to be so before it begins; empty if nothing."""
    created: datetime
    not_before: datetime | None
    started: datetime | None
    finished: datetime | None
    result: Result | None
    """None until it has ended."""
    summary: str
    """One sentence: what it came to."""
    code: str
    """Of the error that it ended with; empty without one."""
    hint: str
    """What to do about it."""
    point: str
    """The restore point that was made, or read."""
    step: str
    done_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, job: Job) -> Self:
        """Show a job."""
        request = job.request
        return cls(
            id=job.id,
            kind=request.kind,
            vm=request.vm_name,
            uuid=request.vm_uuid,
            options=dict(request.options),
            origin=request.origin,
            schedule=request.schedule,
            try_number=request.try_number,
            state=job.state,
            waits_for=job.waits_for,
            created=job.created,
            not_before=request.not_before,
            started=job.started,
            finished=job.finished,
            result=job.result,
            summary=job.summary,
            code=job.code,
            hint=job.hint,
            point=job.point,
            step=job.step,
            done_bytes=job.done_bytes,
            total_bytes=job.total_bytes,
        )


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a job is: small enough to be asked for often, and what is published."""

    id: int
    kind: JobKind
    vm: str
    uuid: str
    state: JobState
    step: str
    done_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, job: Job) -> Self:
        """Show the progress of a job."""
        request = job.request
        return cls(
            job.id,
            request.kind,
            request.vm_name,
            request.vm_uuid,
            job.state,
            job.step,
            job.done_bytes,
            job.total_bytes,
        )


@dataclass(frozen=True, slots=True)
class JobLogView:
    """A piece of the log of a job."""

    id: int
    offset: int
    """Where the piece begins, in bytes."""
    next_offset: int
    """Where the next one begins; as ``offset`` if there is nothing more yet."""
    complete: bool
    """Whether the job has ended and this piece is the last."""
    text: str
