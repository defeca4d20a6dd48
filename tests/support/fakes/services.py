"""The daemon as the API meets it: one VM with backups, jobs and settings in memory."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.engine_world import EngineWorld
from vm_babysitter.domain.autostart import Mark
from vm_babysitter.domain.errors import (
    InvalidInput,
    JobNotFound,
    SettingsChanged,
    VmNotFound,
)
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Option, Result
from vm_babysitter.engine.autostart import RunState
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.views import (
    AutostartRunView,
    AutostartStateView,
    AutostartView,
    AutostartVmView,
    ChainView,
    CheckedView,
    EventView,
    FieldErrorView,
    HealthView,
    JobLogView,
    JobView,
    Metric,
    MetricKind,
    NextRunView,
    NoteView,
    NotifyTestView,
    PartState,
    PartView,
    PlanView,
    PointView,
    Sample,
    ScheduleView,
    SettingsView,
    StatusView,
    SystemView,
    TodoView,
    VmStatusView,
    VmView,
)

NAME = 'it\'s a "{VM}" 猫'
AT = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)


@dataclass
class FakeServices:
    """Implements ``api.services.Services``."""

    vm_view: VmView
    health_view: HealthView
    plan_view: PlanView
    chain_views: tuple[ChainView, ...]
    point_views: tuple[PointView, ...]
    taken: list[Job] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=lambda: {"version": 1})
    error: Exception | None = None
    """Raised by every call, if it is one."""
    gate: threading.Event | None = None
    """What a call of ``status`` waits for."""
    listed: bool = True
    """Whether the VM is in the autostart list."""
    asked: list[tuple[object, ...]] = field(default_factory=list)
    log: bytes = "line one\nübung\n".encode()

    @classmethod
    def around(cls, path: Path) -> "FakeServices":
        """Make a VM with two restore points in a folder, and show what the engine says of it."""
        world = EngineWorld(path, name=NAME)
        world.backup()
        world.disk.write(0, b"x")
        world.backup()
        found = Diagnoser(world.tools().sight, world.store).diagnose(NAME)
        (stored,) = world.store.vms()
        chains = world.store.chains(stored.uuid)
        return cls(
            VmView.of(world.hypervisor.vm(NAME)),
            HealthView.of(found.diagnosis),
            PlanView.of(found),
            tuple(ChainView.of(stored, chain) for chain in chains),
            tuple(PointView.all([(stored, chains)])),
        )

    def anew(self) -> "FakeServices":
        """Return the same without what was asked and done."""
        return FakeServices(
            self.vm_view, self.health_view, self.plan_view, self.chain_views, self.point_views
        )

    @property
    def uuid(self) -> str:
        """Of the VM."""
        return self.vm_view.uuid

    @property
    def tag(self) -> str:
        """Of the settings."""
        return hashlib.sha256(json.dumps(self.raw, sort_keys=True).encode()).hexdigest()[:16]

    def vms(self) -> Sequence[VmView]:
        self._call("vms")
        return (self.vm_view,)

    def vm(self, vm: str) -> VmView:
        self._call("vm", vm)
        if vm not in {self.uuid, NAME}:
            raise VmNotFound(vm)
        return self.vm_view

    def health(self) -> Sequence[HealthView]:
        self._call("health")
        return (self.health_view,)

    def health_of(self, vm: str) -> HealthView:
        self.vm(vm)
        return self.health_view

    def chains(self, vm: str) -> Sequence[ChainView]:
        self.vm(vm)
        return self.chain_views

    def points(self, vm: str | None) -> Sequence[PointView]:
        self._call("points", vm)
        if vm is not None:
            self.vm(vm)
        return self.point_views

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView:
        self._call("plan", vm, full, track_snapshots)
        self.vm(vm)
        return self.plan_view

    def status(self) -> StatusView:
        self._call("status")
        if self.gate is not None:
            self.gate.wait(30)
        one = VmStatusView(
            NAME,
            self.uuid,
            self.vm_view.state,
            backed_up=True,
            why_not="",
            health=self.health_view.health,
            words="good",
            newest=self.health_view.newest,
            newest_taken=AT,
            current_as_of=None,
        )
        todo = (TodoView("The backup folder is nearly full.", "Free some space."),)
        running = tuple(JobView.of(j) for j in self.taken if j.state is JobState.RUNNING)
        queued = tuple(JobView.of(j) for j in self.taken if j.state is JobState.QUEUED)
        upcoming = (NextRunView("daily", "backup", AT),)
        return StatusView(False, "See below.", todo, running, queued, upcoming, (one,))

    def jobs(
        self, *, vm: str | None, states: Sequence[JobState], limit: int, before: int | None
    ) -> Sequence[JobView]:
        self._call("jobs", vm, tuple(states), limit, before)
        found = [
            JobView.of(job)
            for job in reversed(self.taken)
            if vm in {None, job.request.vm_uuid, job.request.vm_name}
            and (not states or job.state in states)
            and (before is None or job.id < before)
        ]
        return found[:limit]

    def job(self, job: int) -> JobView:
        return JobView.of(self._job(job))

    def submit(self, kind: JobKind, vm: str, options: Mapping[str, Option]) -> JobView:
        self._call("submit", kind, vm, dict(options))
        found = self.vm(vm)
        request = JobRequest(kind, found.uuid, found.name, dict(options))
        job = Job(len(self.taken) + 1, request, JobState.QUEUED, AT)
        self.taken.append(job)
        return JobView.of(job)

    def cancel(self, job: int) -> JobView:
        found = replace(
            self._job(job), state=JobState.CANCELLED, result=Result.CANCELLED, finished=AT
        )
        self.taken[job - 1] = found
        return JobView.of(found)

    def job_log(self, job: int, offset: int, limit: int) -> JobLogView:
        self._job(job)
        piece = self.log[offset : offset + limit]
        end = max(offset, min(len(self.log), offset + len(piece)))
        return JobLogView(job, offset, end, end >= len(self.log), piece.decode(errors="replace"))

    def autostart(self) -> AutostartView:
        self._call("autostart")
        vm = AutostartVmView(
            NAME, self.uuid, NAME, 30, ("tcp:nas:445",), 60, "start", 3, True, False, "Twice."
        )
        return AutostartView((vm,) if self.listed else (), self._run("boot-1"))

    def begin_autostart(self, run: str | None) -> AutostartRunView:
        self._call("begin_autostart", run)
        return self._run(run or "user-1")

    def take_over_autostart(self, vm: str, *, take: bool) -> AutostartView:
        self._call("take_over_autostart", vm, take)
        self.vm(vm)
        return self.autostart()

    def _run(self, run: str) -> AutostartRunView:
        state = AutostartStateView(NAME, self.uuid, Mark.FAILED, "no such image")
        return AutostartRunView(run, RunState.FINISHED, AT, "", (state,))

    def schedules(self) -> Sequence[ScheduleView]:
        self._call("schedules")
        words = "every day at 00:00"
        return (ScheduleView("daily", "backup", "@daily", words, (), True, AT, None, ()),)

    def settings(self) -> SettingsView:
        self._call("settings")
        return SettingsView(self.tag, self.raw, ())

    def save_settings(self, raw: dict[str, Any], tag: str | None) -> SettingsView | CheckedView:
        self._call("save", tag)
        if tag not in {None, self.tag}:
            raise SettingsChanged("/boot/settings.json")
        checked = self.check_settings(raw)
        if checked.errors:
            return checked
        self.raw = raw
        return SettingsView(self.tag, self.raw, checked.notes)

    def check_settings(self, raw: dict[str, Any]) -> CheckedView:
        errors = [
            FieldErrorView(f"bad.{n}", "1", "must be good", "For example 2.")
            for n in range(2)
            if "bad" in raw
        ]
        notes = tuple(NoteView(key, "is unknown") for key in raw if key not in {"version", "bad"})
        return CheckedView(tuple(errors), notes)

    def system(self) -> SystemView:
        self._call("system")
        part = PartView("libvirt", PartState.WAITS, "libvirt does not answer.", "Wait.")
        return SystemView("1", AT, True, "Europe/Berlin", (part,))

    def metrics(self) -> Sequence[Metric]:
        self._call("metrics")
        samples = (Sample(1.5, {"vm": NAME}), Sample(2, {"vm": "\udc80\n"}))
        return (
            Metric("vm_babysitter_age_seconds", "Age\nof", MetricKind.GAUGE, samples),
            Metric("vm_babysitter_jobs_total", "Jobs.", MetricKind.COUNTER, (Sample(3),)),
        )

    def events(self, *, vm: str | None, job: int | None, limit: int) -> Sequence[EventView]:
        self._call("events", vm, job, limit)
        event = Event(AT, "job-failed", Severity.ALERT, "Failed", vm_name=NAME, job_id=1)
        return (EventView.of(event),)[:limit]

    def test_notify(self, channel: str | None) -> Sequence[NotifyTestView]:
        self._call("test_notify", channel)
        names = ("unraid", "webhook", "health")
        if channel is not None and channel not in names:
            raise InvalidInput("channel", channel, "is no way of telling")
        wanted = names if channel is None else (channel,)
        text = "A test was sent."
        return [NotifyTestView(name, on=True, sent=True, text=text) for name in wanted]

    def _job(self, job: int) -> Job:
        self._call("job", job)
        if not 1 <= job <= len(self.taken):
            raise JobNotFound(job)
        return self.taken[job - 1]

    def _call(self, *what: object) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error
