"""The answers to the API: ``api.services.Services``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vm_babysitter import __version__
from vm_babysitter.config.check import Checked, check
from vm_babysitter.config.context import VmRef
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Option, Origin
from vm_babysitter.domain.overview import Todo
from vm_babysitter.domain.schedule import parse
from vm_babysitter.engine.app import App
from vm_babysitter.engine.diagnosing import Wishes
from vm_babysitter.engine.scheduling import begun
from vm_babysitter.ports import StoredVm
from vm_babysitter.service.autostart import AutostartPart
from vm_babysitter.service.daemon import Daemon
from vm_babysitter.service.figures import figures
from vm_babysitter.service.lookups import Lookups
from vm_babysitter.service.parts import parts
from vm_babysitter.service.status import Moment, status_view
from vm_babysitter.views import (
    AutostartRunView,
    AutostartView,
    ChainView,
    CheckedView,
    EventView,
    FieldErrorView,
    HealthView,
    JobLogView,
    JobView,
    Metric,
    NoteView,
    NotifyTestView,
    PartState,
    PlanView,
    PointView,
    ScheduleView,
    SettingsView,
    StatusView,
    SystemView,
    VmView,
)

ReadLog = Callable[[int, int, int], tuple[str, int, bool] | None]
"""Reads a job's log: number, offset, most bytes -> text, next offset, whether there is more."""


class DaemonServices:
    """Answers from what the daemon knows; what has to be looked up is so by few at a time."""

    def __init__(
        self,
        daemon: Daemon,
        compose: Callable[[], App],
        read_log: ReadLog,
        autostart: AutostartPart,
    ) -> None:
        self._daemon = daemon
        self._autostart = autostart
        self._find = Lookups(daemon, compose)
        self._read_log = read_log

    # -- VMs and their backups ------------------------------------------------------------

    def vms(self) -> Sequence[VmView]:
        """See the protocol."""
        with self._find.hypervisor() as hypervisor:
            return [VmView.of(vm) for vm in hypervisor.vms()]

    def vm(self, vm: str) -> VmView:
        """See the protocol."""
        with self._find.hypervisor() as hypervisor:
            return VmView.of(hypervisor.vm(vm))

    def health(self) -> Sequence[HealthView]:
        """See the protocol."""
        known = self._daemon.diagnoses.all().values()
        found = sorted((each.found for each in known), key=lambda found: found.facts.name)
        return [HealthView.of(each) for each in found]

    def health_of(self, vm: str) -> HealthView:
        """See the protocol."""
        with self._find.diagnoser() as diagnoser:
            found = diagnoser.diagnose(vm).diagnosis
        uuid, diagnoses = found.facts.uuid, self._daemon.diagnoses
        known = diagnoses.of(uuid)
        if known is None or known.found.health is not found.health:
            diagnoses.look(uuid)  # else the status would go on saying something else
        return HealthView.of(found)

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView:
        """See the protocol."""
        with self._find.diagnoser() as diagnoser:
            found = diagnoser.diagnose(vm, Wishes(full, track_snapshots))
        if found.error is not None:
            raise found.error
        return PlanView.of(found)

    def chains(self, vm: str) -> Sequence[ChainView]:
        """See the protocol."""
        with self._find.reading() as store:
            stored = self._find.stored(store, vm)
            chains = () if stored is None else store.chains(stored.uuid)
            return [ChainView.of(stored, chain) for chain in chains if stored is not None]

    def points(self, vm: str | None) -> Sequence[PointView]:
        """See the protocol."""
        with self._find.reading() as store:
            if vm is None:
                wanted: Sequence[StoredVm] = store.vms()
            else:
                stored = self._find.stored(store, vm)
                wanted = () if stored is None else (stored,)
            return PointView.all((each, store.chains(each.uuid)) for each in wanted)

    def status(self) -> StatusView:
        """See the protocol."""
        daemon = self._daemon
        moment = Moment(
            now=daemon.clock.now(),
            since=daemon.started,
            zone=daemon.zone.zone,
            watched=daemon.watch.now(),
            known=daemon.diagnoses.all(),
            running=daemon.runner.running(),
            queued=daemon.runner.queued(),
            next_runs=daemon.scheduler.next_runs(),
            troubles=tuple(
                Todo(part.text, part.hint)
                for part in parts(daemon)
                if part.state in {PartState.FAILED, PartState.WARNING}
            ),
        )
        return status_view(moment, daemon.configuration, daemon.recent)

    # -- jobs -----------------------------------------------------------------------------

    def jobs(
        self, *, vm: str | None, states: Sequence[JobState], limit: int, before: int | None
    ) -> Sequence[JobView]:
        """See the protocol."""
        vm = None if vm is None else self._find.uuid_or(vm)
        found = self._daemon.journal.jobs(vm=vm, states=states or None, limit=limit, before=before)
        return [JobView.of(self._now(job)) for job in found]

    def job(self, job: int) -> JobView:
        """See the protocol."""
        return JobView.of(self._daemon.runner.job(job))

    def submit(self, kind: JobKind, vm: str, options: Mapping[str, Option]) -> JobView:
        """See the protocol."""
        if kind not in {JobKind.CONVERT, JobKind.RELEASE}:
            self._find.set_up()
        uuid, name = self._find.named(vm)
        request = JobRequest(kind, uuid, name, dict(options), Origin.USER)
        return JobView.of(self._daemon.runner.submit(request))

    def cancel(self, job: int) -> JobView:
        """See the protocol."""
        return JobView.of(self._daemon.runner.cancel(job))

    def job_log(self, job: int, offset: int, limit: int) -> JobLogView:
        """See the protocol."""
        found = self._daemon.runner.job(job)
        part = self._read_log(job, offset, limit)
        text, end, more = ("", offset, False) if part is None else part
        return JobLogView(job, offset, end, not more and found.finished is not None, text)

    def events(self, *, vm: str | None, job: int | None, limit: int) -> Sequence[EventView]:
        """See the protocol."""
        vm = None if vm is None else self._find.uuid_or(vm)
        found = self._daemon.journal.events(vm=vm, job=job, limit=limit)
        return [EventView.of(event) for event in found]

    def test_notify(self, channel: str | None) -> Sequence[NotifyTestView]:
        """See the protocol."""
        return self._daemon.notifier.test(channel)

    def _now(self, job: Job) -> Job:
        """Return a job of the journal, which knows no bytes, as it is now."""
        running = {each.id: each for each in self._daemon.runner.running()}
        return running.get(job.id, job)

    # -- autostart ------------------------------------------------------------------------

    def autostart(self) -> AutostartView:
        """See the protocol."""
        return self._autostart.view(self._find.owned(self._autostart.owned))

    def begin_autostart(self, run: str | None) -> AutostartRunView:
        """See the protocol."""
        return self._autostart.begin(run)

    def take_over_autostart(self, vm: str, *, take: bool) -> AutostartView:
        """See the protocol."""
        with self._find.hypervisor() as hypervisor:
            found = hypervisor.outline(vm)
        self._autostart.take_over(VmRef(found.uuid, found.name), take=take)
        return self.autostart()

    # -- settings -------------------------------------------------------------------------

    def schedules(self) -> Sequence[ScheduleView]:
        """See the protocol."""
        daemon = self._daemon
        upcoming, last = daemon.scheduler.next_runs(), begun(daemon.journal.last_runs())
        views = []
        for one in daemon.configuration.settings.schedules:
            cron = parse(one.when)
            views.append(
                ScheduleView(
                    name=one.name,
                    kind=one.kind,
                    when=one.when,
                    words=cron.words(),
                    vms=one.vms,
                    enabled=one.enabled,
                    next=upcoming.get(one.name),
                    last=last.get(one.name),
                    warnings=cron.warnings(),
                )
            )
        return views

    def settings(self) -> SettingsView:
        """See the protocol."""
        loaded = self._daemon.configuration.file.load(self._daemon.context())
        return SettingsView(loaded.tag, dict(loaded.document), _notes(loaded.checked))

    def save_settings(self, raw: dict[str, Any], tag: str | None) -> SettingsView | CheckedView:
        """See the protocol."""
        checked = self._daemon.configuration.save(raw, tag, self._daemon.context())
        return _checked(checked) if checked.errors else self.settings()

    def check_settings(self, raw: dict[str, Any]) -> CheckedView:
        """See the protocol."""
        return _checked(check(raw, self._daemon.context()))

    # -- the daemon -----------------------------------------------------------------------

    def system(self) -> SystemView:
        """See the protocol."""
        daemon = self._daemon
        return SystemView(
            __version__, daemon.started, daemon.ready, daemon.zone.name, tuple(parts(self._daemon))
        )

    def metrics(self) -> Sequence[Metric]:
        """See the protocol."""
        return figures(self.status(), self._daemon)


def _notes(checked: Checked) -> tuple[NoteView, ...]:
    return tuple(NoteView(note.path, note.text) for note in checked.notes)


def _checked(checked: Checked) -> CheckedView:
    errors = (FieldErrorView(e.path, e.value, e.rule, e.hint) for e in checked.errors)
    return CheckedView(tuple(errors), _notes(checked))
