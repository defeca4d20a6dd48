"""Jobs: what they are, how they change, which begins next, and which is tried again. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from vm_babysitter.domain.errors import Busy

Option = str | int | bool | list[str]
"""What the option of a job may be."""


class JobKind(StrEnum):
    """What is done to a VM, or to its backups."""

    BACKUP = "backup"
    VERIFY = "verify"
    REPAIR = "repair"
    RESTORE = "restore"
    CONVERT = "convert"
    RELEASE = "release"

    @property
    def noun(self) -> str:
        """What one is called."""
        return _NOUNS[self]


_NOUNS = {
    JobKind.BACKUP: "backup",
    JobKind.VERIFY: "verification",
    JobKind.REPAIR: "repair",
    JobKind.RESTORE: "restore",
    JobKind.CONVERT: "conversion",
    JobKind.RELEASE: "release",
}


class Origin(StrEnum):
    """Who wanted it."""

    USER = "user"
    SCHEDULE = "schedule"
    RETRY = "retry"
    """The runner: it failed, or was interrupted."""


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    WAITING = "waiting"
    """Queued, and something has to be so first: ``Job.waits_for``."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The daemon ended before it did."""


class Result(StrEnum):
    """What came of a job that has ended."""

    OK = "ok"
    WARNINGS = "warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOTHING = "nothing"
    """There was nothing to do."""


QUEUED = frozenset({JobState.QUEUED, JobState.WAITING})
LIVE = QUEUED | {JobState.RUNNING}
ENDED = frozenset(JobState) - LIVE
READING = frozenset({JobKind.VERIFY, JobKind.RESTORE})
"""Kinds that change neither a VM's images nor its backups."""
_REPEATED = frozenset({JobKind.BACKUP, JobKind.VERIFY, JobKind.REPAIR})
"""Kinds that may be done again without a person who says so."""
_LEGAL = {
    JobState.QUEUED: LIVE | {JobState.CANCELLED},
    JobState.WAITING: LIVE | {JobState.CANCELLED},
    JobState.RUNNING: ENDED | {JobState.RUNNING},
}
_DELAYS = (timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What somebody wants done."""

    kind: JobKind
    vm_uuid: str
    """Only one job of a VM runs at a time."""
    vm_name: str
    options: Mapping[str, Option] = field(default_factory=dict)
    origin: Origin = Origin.USER
    schedule: str = ""
    """Name of the schedule whose turn it was."""
    try_number: int = 1
    not_before: datetime | None = None

    def same_work(self, other: "JobRequest") -> bool:
        """Whether both ask for the same, whoever asks and when."""
        mine = (self.kind, self.vm_uuid, dict(self.options))
        return mine == (other.kind, other.vm_uuid, dict(other.options))


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was taken on, and how far it is."""

    id: int
    request: JobRequest
    state: JobState
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    waits_for: str = ""
    """What has to be so before it begins, in words; with ``WAITING`` only."""
    result: Result | None = None
    summary: str = ""
    """What came of it, one sentence for a user."""
    code: str = ""
    """Of the error it failed with."""
    hint: str = ""
    """What to do about that."""
    point: str = ""
    """The restore point that it made or was about, as a user names it."""
    step: str = ""
    """What it does just now, or did last."""
    done_bytes: int = 0
    """Bytes of that step that are through."""
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the work of a job has to tell at its end."""

    result: Result
    summary: str
    point: str = ""
    warnings: tuple[str, ...] = ()
    code: str = ""
    hint: str = ""
    transient: bool = False
    """Whether the same may well succeed later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs run at the same time."""

    parallel: int = 1
    """Of those that write: backup, repair, convert, release."""
    reading: int = 1
    """Of those that only read backups: verify, restore."""


def transition(job: Job, state: JobState, **changes: object) -> Job:
    """Return the job in another state, with other fields changed as well.

    Raises:
        ValueError: a job cannot go from the one to the other: a mistake of the caller.
    """
    if state not in _LEGAL.get(job.state, frozenset()):
        raise ValueError(f"job {job.id} cannot become {state}: it is {job.state}")
    if state is not JobState.WAITING:
        changes["waits_for"] = ""
    return replace(job, state=state, **changes)  # type: ignore[arg-type]


def finish(job: Job, outcome: Outcome, now: datetime) -> Job:
    """Return a running job as one that has ended by itself."""
    state = {Result.FAILED: JobState.FAILED, Result.CANCELLED: JobState.CANCELLED}
    return transition(
        job,
        state.get(outcome.result, JobState.DONE),
        finished=now,
        result=outcome.result,
        summary=outcome.summary,
        code=outcome.code,
        hint=outcome.hint,
        point=outcome.point,
    )


def cancelled(job: Job, now: datetime) -> Job:
    """Return a queued job as one that is never going to begin."""
    summary = "Cancelled before it began."
    changes = {"finished": now, "result": Result.CANCELLED, "summary": summary}
    return transition(job, JobState.CANCELLED, **changes)


def interrupt(job: Job, now: datetime, summary: str = "") -> Job:
    """Return a running job as one that ended because the daemon did."""
    words = (
        summary or "VM Babysitter or the server went down meanwhile; what was begun is cleaned up."
    )
    return transition(job, JobState.INTERRUPTED, finished=now, summary=words, code="interrupted")


def merged(job: Job, again: JobRequest) -> Job:
    """Return a queued job after the same was asked for once more.

    It begins as early and with the priority that the more urgent of both has.
    """
    old = job.request
    times = [old.not_before, again.not_before]
    request = replace(
        old,
        vm_name=again.vm_name or old.vm_name,
        origin=min(old.origin, again.origin, key=_rank),
        schedule=again.schedule or old.schedule,
        try_number=min(old.try_number, again.try_number),
        not_before=None if None in times else min(t for t in times if t is not None),
    )
    return replace(job, request=request)


def pick(
    queued: Collection[Job], running: Collection[Job], now: datetime, limits: Limits
) -> Job | None:
    """Return the job to begin next, None if none may.

    A user's jobs come before those of schedules, older before younger ones. A job waits while
    another of its VM runs, while as many run as may, and until its time has come.
    """
    taken = {job.request.vm_uuid for job in running}
    reading = sum(job.request.kind in READING for job in running)
    writing = len(running) - reading

    def may_begin(job: Job) -> bool:
        request = job.request
        room = reading < limits.reading if request.kind in READING else writing < limits.parallel
        due = request.not_before is None or request.not_before <= now
        return room and due and request.vm_uuid not in taken

    return min(filter(may_begin, queued), key=_turn, default=None)


def in_turn(queued: Collection[Job]) -> Sequence[Job]:
    """Return queued jobs in the order in which they begin, as far as nothing holds them up."""
    return sorted(queued, key=_turn)


def retry_delay(try_number: int) -> timedelta | None:
    """Return how long after this failed try the next one is made.

    None: not by itself any more; the next turn of the schedule serves.
    """
    return _DELAYS[try_number - 1] if 1 <= try_number <= len(_DELAYS) else None


def follow_up(job: Job, *, transient: bool, now: datetime) -> JobRequest | None:
    """Return what is done about a job that has ended, None if nothing is.

    Only what may well succeed later is tried again, and only where nobody has to be asked. An
    interrupted job is done again at once, the first time: it was not its fault.
    """
    if job.request.kind not in _REPEATED:
        return None
    lost = job.state is JobState.INTERRUPTED
    if not lost and not (job.state is JobState.FAILED and (transient or job.code == Busy.code)):
        return None
    delay = retry_delay(job.request.try_number)
    if delay is None:
        return None
    at_once = lost and job.request.try_number == 1
    return replace(
        job.request,
        origin=Origin.RETRY,
        try_number=job.request.try_number + 1,
        not_before=None if at_once else now + delay,
    )


def _rank(origin: Origin) -> int:
    return 0 if origin is Origin.USER else 1


def _turn(job: Job) -> tuple[int, int]:
    return _rank(job.request.origin), job.id
