"""Is everything fine, and if not, what does a person have to do? Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.diagnosis import Diagnosis, Health
from vm_babysitter.domain.findings import Weight
from vm_babysitter.domain.job import Job, JobState
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.lib.units import format_duration

NOT_SET_UP = "Backups are not set up yet: no backup folder is named."
_WORDS = {
    Health.GOOD: "good",
    Health.REPAIRABLE: "goes on by itself",
    Health.RESTORE_ONLY: "can be restored; the next backup begins a new series",
    Health.LOST: "cannot be restored",
    Health.NONE: "no backup yet",
}


@dataclass(frozen=True, slots=True)
class Todo:
    """Something that a person has to see to."""

    what: str
    """A sentence."""
    hint: str = ""
    """What to do about it."""
    vm_name: str = ""
    """Empty where it is about no VM."""
    vm_uuid: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """A VM, its backups, and what was done about them last."""

    name: str
    uuid: str
    state: PowerState | None
    """None if libvirt has no such VM any more."""
    left_out: str
    """Why it is not backed up; empty if it is to be."""
    diagnosis: Diagnosis | None = None
    """None as long as its backups were not looked at."""
    newest_taken: datetime | None = None
    """When the newest point that restores was taken."""
    last: Job | None = None
    """The backup of it that ended last."""
    tries_again: bool = False
    """Whether one is queued that follows a failure."""
    succeeded: datetime | None = None
    """When a backup of it last went well, a new point made or not."""
    overdue: datetime | None = None
    """By when one should have; None where nothing is scheduled."""


@dataclass(frozen=True, slots=True)
class Overview:
    """How things are."""

    fine: bool
    sentence: str
    todo: tuple[Todo, ...]


def overview(
    situations: Sequence[Situation], general: Sequence[Todo], *, set_up: bool, now: datetime
) -> Overview:
    """Sum up how things are; ``general`` is what is to do that is about no VM."""
    if not set_up:
        first = Todo(NOT_SET_UP, "Name it under Settings, VM Babysitter.")
        return Overview(False, NOT_SET_UP, (first, *general))
    mine = [situation for situation in situations if not situation.left_out]
    found = [(s, tuple(_todo(s, now))) for s in mine]
    todo = (*general, *(todo for _, todos in found for todo in todos))
    troubled = sum(1 for _, todos in found if todos)
    return Overview(not todo, _sentence(mine, troubled, len(general), now), todo)


def health_words(situation: Situation, now: datetime) -> str:
    """Say in a few words how the backups of a VM are."""
    if situation.diagnosis is None:
        return "not looked at yet"
    words = _WORDS[situation.diagnosis.health]
    if situation.newest_taken is None:
        return words
    return f"{words}, {format_duration((now - situation.newest_taken).total_seconds())} old"


def _todo(situation: Situation, now: datetime) -> Iterator[Todo]:
    name, uuid, last = situation.name, situation.uuid, situation.last
    findings = () if situation.diagnosis is None else situation.diagnosis.findings
    for finding in findings:
        if finding.weight is Weight.PERSON:
            yield Todo(f"{name}: {finding.what.rstrip('.')}.", finding.way_out, name, uuid)
    if situation.diagnosis is not None and situation.diagnosis.health is Health.LOST:
        what = f"No restore point of {name} can be restored as a whole."
        yield Todo(what, "Back it up: that begins a new series.", name, uuid)
    failed = last is not None and last.state is JobState.FAILED and not situation.tries_again
    if last is not None and failed:
        yield Todo(f"The last backup of {name} failed: {last.summary}", last.hint, name, uuid)
    elif situation.overdue is not None and situation.overdue < now:
        since = situation.succeeded
        what = (
            f"{name} has had no backup that went well yet."
            if since is None
            else f"{name} has had no backup that went well since {since:%Y-%m-%d %H:%M} UTC."
        )
        yield Todo(what, "See the list of jobs for what was in its way.", name, uuid)


def _sentence(mine: Sequence[Situation], troubled: int, general: int, now: datetime) -> str:
    if not mine:
        return "No VM is backed up."
    all_of_them = f"{len(mine)} VMs are" if len(mine) > 1 else f"{mine[0].name} is"
    if troubled:
        some = f"{troubled} of {len(mine)} VMs need" if len(mine) > 1 else f"{mine[0].name} needs"
        return f"{some} your attention."
    without = sum(map(_has_no_backup, mine))
    waiting = f"{without} of {len(mine)} VMs" if len(mine) > 1 else mine[0].name
    if general:
        known = all(s.diagnosis is not None for s in mine)  # else nobody knows whether they are
        right = f"{all_of_them} all right, but something else" if known else "Something"
        begin = f"{waiting} had no backup yet, and something else" if without else right
        return f"{begin} needs your attention."
    if without:
        return f"All is well; {waiting} had no backup yet."
    latest = [s.succeeded or s.newest_taken for s in mine]
    oldest = min(moment for moment in latest if moment is not None)
    ago = format_duration(max(0.0, (now - oldest).total_seconds()))
    if len(mine) == 1:
        return f"All is well: {mine[0].name} was backed up {ago} ago."
    return f"All is well: each of {len(mine)} VMs was backed up within the last {ago}."


def _has_no_backup(situation: Situation) -> bool:
    """Whether none was ever made, or the backup folder has none any more."""
    if situation.newest_taken is not None:
        return False
    found = situation.diagnosis
    return situation.succeeded is None or (found is not None and found.health is Health.NONE)
