"""What nobody else tells of: a VM without a good backup for days, and what only a person can do."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.selection import due
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.concern import KINDS, Concern, needs_you, stale
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job, JobKind, JobState
from vm_babysitter.ports import Journal
from vm_babysitter.service.diagnoses import Known
from vm_babysitter.service.status import current_as_of, taken

_LATE = timedelta(minutes=15)
_MANY = 2000


def concerns(
    settings: Settings,
    vms: Iterable[VmRef],
    known: dict[str, Known],
    journal: Journal,
    since: datetime,
    now: datetime,
) -> list[Event]:
    """Return what is to be told of VMs that are backed up by schedule, and was not told yet.

    ``since`` is when somebody began to watch: a VM without any backup counts from then, or from
    the first that failed.
    """
    refs, wanted = list(vms), set[str]()
    for schedule in settings.schedules:
        if schedule.enabled and schedule.kind == "backup":
            wanted |= {vm.uuid for vm in due(settings, schedule, refs)}
    told = journal.events(kinds=KINDS, limit=_MANY)
    found: list[Event] = []
    for vm in refs:
        seen = known.get(vm.uuid)
        if vm.uuid not in wanted or seen is None or seen.found.health is Health.UNKNOWN:
            continue
        good = max(filter(None, (taken(seen.found), current_as_of(seen.found))), default=None)
        mine = [event for event in told if event.vm_uuid == vm.uuid]
        counted = since if good else first_missed(journal.jobs(vm=vm.uuid, limit=_MANY), since)
        about = Concern(vm.uuid, vm.name, good, counted, now)
        found += stale(about, mine, settings.notify.stale_days)
        found += needs_you(about, mine, seen.found.findings)
    return found


def first_missed(jobs: Iterable[Job], since: datetime) -> datetime:
    """Return when a VM without backups had its first that failed; else ``since``.

    Args:
        jobs: those of the VM, the newest first.
        since: when somebody began to watch.
    """
    for job in jobs:
        if job.request.kind is JobKind.BACKUP:
            if job.state is JobState.DONE:
                break  # its point was there once
            since = min(since, job.created)
    return since


def late(name: str, due_at: datetime, vms: int, now: datetime) -> Event | None:
    """Return what is told of a run of a schedule that begins much later than it was due."""
    if now - due_at < _LATE:
        return None
    text = (
        f"It was due at {due_at:%Y-%m-%d %H:%M} UTC and could not begin: the server or VM "
        f"Babysitter was off, or libvirt or the settings were not in order. It "
        f"begins now, for {vms} VM{'' if vms == 1 else 's'}. There is nothing for you to do."
    )
    subject = f"Schedule {name} was missed and is made up for"
    return Event(now, "schedule-missed", Severity.WARNING, subject, text)
