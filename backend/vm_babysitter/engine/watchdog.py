"""Notices jobs that do not get on, or do not end when they are told to."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from vm_babysitter.domain.errors import BabysitterError, JobStalled
from vm_babysitter.domain.job import Job, JobKind
from vm_babysitter.engine.hooks import AFTER, BEFORE
from vm_babysitter.lib.units import format_duration

_ENDED_WHEN_STALLED = frozenset({JobKind.BACKUP, JobKind.VERIFY})
"""Kinds that get on all the time, or hang; programs that others use may be silent for hours."""
_COMMANDS = frozenset({BEFORE, AFTER})
_LONGEST_COMMAND = timedelta(minutes=70)
"""By then a command of the user's has surely been ended: it may take an hour at most."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a job may go on like that."""

    warn: timedelta = timedelta(minutes=15)
    """Without a step or a byte, until it is told of."""
    end: timedelta = timedelta(hours=1)
    """Without a step or a byte, until it is ended, if it is a backup or a verify."""
    grace: timedelta = timedelta(minutes=5)
    """To end once it was told to, until it is given up."""


class Verdict(Enum):
    """What is to be done about a job."""

    FINE = auto()
    WARN = auto()
    GIVE_UP = auto()
    """It does not end: go on without it."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What is seen of a job; times in seconds."""

    kind: JobKind
    quiet: float
    """Since its last step or byte."""
    told: float | None = None
    """Since it was told to end; None: it was not."""
    step: str = ""


def judge(signs: Signs, patience: Patience) -> Verdict | BabysitterError:
    """Return what to do about a job: let it be, or tell it to end with an error."""
    if signs.step in _COMMANDS and signs.quiet < _LONGEST_COMMAND.total_seconds():
        return Verdict.FINE  # it says nothing, and may go on though the job is to end
    if signs.told is not None:
        late = signs.told >= patience.grace.total_seconds()
        return Verdict.GIVE_UP if late else Verdict.FINE
    if signs.quiet >= patience.end.total_seconds() and signs.kind in _ENDED_WHEN_STALLED:
        return JobStalled(format_duration(signs.quiet), signs.step or "beginning")
    return Verdict.WARN if signs.quiet >= patience.warn.total_seconds() else Verdict.FINE


def stalled(job: Job, patience: Patience) -> str:
    """Say of a job that it does not get on, and what comes of it."""
    quiet = format_duration(patience.warn.total_seconds()).removesuffix(" 0 s")
    longest = format_duration(patience.end.total_seconds()).removesuffix(" 0 min")
    if job.request.kind in _ENDED_WHEN_STALLED:
        then = f"After {longest} of that it is ended, and you are told."
    else:
        then = f"If it does not go on, `vm-babysitter cancel {job.id}` ends it."
    return (
        f"Nothing has moved for {quiet} (step: {job.step or 'beginning'}). Look whether libvirt, "
        f"the VM, its disks and the backup folder answer.\n{then}"
    )
