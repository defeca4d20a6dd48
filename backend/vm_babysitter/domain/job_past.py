"""What a journal that is made anew says of the past: the restore points that there are. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Result


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A restore point, as far as a journal tells of it."""

    vm_uuid: str
    vm_name: str
    name: str
    """As a user names it: ``<chain>/<seq>``."""
    started: datetime
    finished: datetime
    warnings: tuple[str, ...] = ()


def job_of_point(number: int, point: KnownPoint) -> Job:
    """Return the backup that must have made a restore point."""
    return Job(
        id=number,
        request=JobRequest(JobKind.BACKUP, point.vm_uuid, point.vm_name, origin=Origin.SCHEDULE),
        state=JobState.DONE,
        created=point.started,
        started=point.started,
        finished=point.finished,
        result=Result.WARNINGS if point.warnings else Result.OK,
        summary="Found in the backup folder; the journal of that time is gone.",
        point=point.name,
    )


def is_told(point: KnownPoint, jobs: Iterable[Job]) -> bool:
    """Whether a job that a journal tells of made a restore point, or is just making it."""
    return any(_made(job, point) for job in jobs)


def _made(job: Job, point: KnownPoint) -> bool:
    if job.request.vm_uuid != point.vm_uuid or job.request.kind is not JobKind.BACKUP:
        return False
    if job.point:
        return job.point == point.name
    if job.started is None or job.started > point.started:
        return False
    return job.finished is None or point.started <= job.finished
