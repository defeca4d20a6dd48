"""The whole in one document, from what is known: nobody is waited for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.selection import due, selected
from vm_babysitter.domain.chain import Chain, live_chain
from vm_babysitter.domain.diagnosis import Diagnosis, Health
from vm_babysitter.domain.job import Job, Origin
from vm_babysitter.domain.overview import Overview, Situation, Todo, health_words, overview
from vm_babysitter.domain.schedule import Cron, parse
from vm_babysitter.domain.vm import Vm
from vm_babysitter.engine.vm_watch import Watched
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.diagnoses import Known
from vm_babysitter.service.recent import RecentJobs
from vm_babysitter.views import (
    JobView,
    NextRunView,
    StatusView,
    TodoView,
    VmStatusView,
)

_LEAST_GRACE, _MOST_GRACE = timedelta(hours=6), timedelta(days=1)
_GONE = "libvirt has no such VM any more"
_FEW = 5


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is known at one moment."""

    now: datetime
    since: datetime
    """When the daemon began: before that nobody watched over schedules."""
    zone: tzinfo
    watched: Watched
    known: dict[str, Known]
    running: Sequence[Job]
    queued: Sequence[Job]
    next_runs: dict[str, datetime]
    troubles: tuple[Todo, ...]
    """What there is to do that is about no VM."""


def status_view(moment: Moment, configuration: Configuration, recent: RecentJobs) -> StatusView:
    """Sum up a moment."""
    problem = configuration.problem
    unknown = problem is not None and configuration.loaded is None  # what is set up is not known
    if unknown:  # nor whether there are backups
        moment = replace(moment, known={})
    situations = list(_situations(moment, configuration, recent))
    found = overview(
        situations,
        moment.troubles,
        set_up=bool(configuration.settings.store.path),
        now=moment.now,
    )
    watched = moment.watched
    if watched.at is None and configuration.settings.store.path:
        unseen = (Todo(watched.trouble),) if watched.trouble else ()
        found = Overview(False, "Which VMs there are is not known yet.", (*unseen, *found.todo))
    if unknown:
        found = replace(found, sentence="The settings cannot be used.", todo=moment.troubles)
    kinds = {schedule.name: schedule.kind for schedule in configuration.settings.schedules}
    upcoming = sorted(moment.next_runs.items(), key=lambda item: item[1])
    return StatusView(
        fine=found.fine,
        sentence=found.sentence,
        todo=tuple(TodoView(t.what, t.hint, t.vm_name, t.vm_uuid) for t in found.todo),
        running=tuple(map(JobView.of, moment.running)),
        queued=tuple(map(JobView.of, moment.queued)),
        next=tuple(NextRunView(name, kinds.get(name, ""), at) for name, at in upcoming[:_FEW]),
        vms=tuple(_line(situation, moment) for situation in situations),
    )


def _situations(
    moment: Moment, configuration: Configuration, recent: RecentJobs
) -> Iterator[Situation]:
    vms = moment.watched.vms
    refs = [VmRef(vm.uuid, vm.name) for vm in vms]
    why_not = selected(configuration.settings, refs)
    overdue = _overdue(moment, configuration, recent, refs)
    for vm in vms:
        yield _situation(moment, recent, vm.uuid, vm, why_not[vm.uuid] or "", overdue.get(vm.uuid))
    present = {vm.uuid for vm in vms}
    if moment.watched.at is not None:  # else it is not known yet which are there
        for uuid in moment.known.keys() - present:
            yield _situation(moment, recent, uuid, None, _GONE, None)


def _situation(
    moment: Moment,
    recent: RecentJobs,
    uuid: str,
    vm: Vm | None,
    left_out: str,
    overdue: datetime | None,
) -> Situation:
    known, past = moment.known.get(uuid), recent.of(uuid)
    diagnosis = None if known is None else known.found
    again = any(
        job.request.vm_uuid == uuid and job.request.origin is Origin.RETRY for job in moment.queued
    )
    name = vm.name if vm is not None else ("" if diagnosis is None else diagnosis.facts.name)
    return Situation(
        name=name,
        uuid=uuid,
        state=None if vm is None else vm.state,
        left_out=left_out,
        diagnosis=diagnosis,
        newest_taken=None if diagnosis is None else taken(diagnosis),
        last=None if past is None else past.last,
        tries_again=again,
        succeeded=None if past is None else past.succeeded,
        overdue=overdue,
    )


def taken(diagnosis: Diagnosis) -> datetime | None:
    """Return when the newest point that restores was taken."""
    newest = diagnosis.newest
    for chain in diagnosis.facts.chains if newest is not None else ():
        stored = chain.find(newest.seq) if newest and chain.directory == newest.chain else None
        if stored is not None:
            return stored.point.taken
    return None


def _overdue(
    moment: Moment, configuration: Configuration, recent: RecentJobs, refs: Sequence[VmRef]
) -> dict[str, datetime]:
    """Return by when each VM should have had a backup that went well."""
    found: dict[str, datetime] = {}
    for schedule in configuration.settings.schedules:
        if not schedule.enabled or schedule.kind != "backup":
            continue
        cron = parse(schedule.when)
        for vm in due(configuration.settings, schedule, refs):
            past = recent.of(vm.uuid)
            succeeded = None if past is None else past.succeeded
            last = max(filter(None, (succeeded, moment.since)))
            limit = _limit(cron, last, moment.zone)
            if limit is not None:
                found[vm.uuid] = min(limit, found.get(vm.uuid, limit))
    return found


def _limit(cron: Cron, last: datetime, zone: tzinfo) -> datetime | None:
    """Return when it is too late for a backup that was due after ``last``."""
    first = cron.next_after(last, zone)
    second = None if first is None else cron.next_after(first, zone)
    if first is None or second is None:
        return None
    return first + min(max(second - first, _LEAST_GRACE), _MOST_GRACE)


def _line(situation: Situation, moment: Moment) -> VmStatusView:
    diagnosis = situation.diagnosis
    newest = None if diagnosis is None else diagnosis.newest
    return VmStatusView(
        vm=situation.name,
        uuid=situation.uuid,
        state=situation.state,
        backed_up=not situation.left_out,
        why_not=situation.left_out,
        health=None if diagnosis is None else diagnosis.health,
        words=health_words(situation, moment.now),
        newest=None if newest is None else newest.name,
        newest_taken=situation.newest_taken,
        current_as_of=None if diagnosis is None else current_as_of(diagnosis),
    )


def current_as_of(diagnosis: Diagnosis) -> datetime | None:
    """Return until when the newest point of the live chain is known to be current."""
    chain: Chain | None = live_chain(diagnosis.facts.chains)
    current = None if chain is None or diagnosis.health is Health.UNKNOWN else chain.current
    return None if current is None else current.as_of
