"""A daemon around a VM in memory, and the world that it meets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import FakeApp
from tests.support.fakes.feed import Libvirt
from tests.support.fakes.store_place import FakeStorePlace
from tests.support.fakes.timer import FakeTimer
from tests.support.jobs import FailingJournal, Listener, Works, eventually
from tests.support.settings import STORE, write
from vm_babysitter.adapters.autostart_copy import CopyFile
from vm_babysitter.adapters.autostart_marks import MarkFiles
from vm_babysitter.adapters.probes import HostProbes
from vm_babysitter.adapters.unraid.vm_service import UnraidVmService
from vm_babysitter.config.context import VmRef
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.domain.findings import Finding
from vm_babysitter.domain.host_state import HostState
from vm_babysitter.domain.job import Job, JobKind, JobState
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.engine.app import App
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.engine.job_thread import NoLogs
from vm_babysitter.engine.steady_journal import SteadyJournal
from vm_babysitter.engine.vm_watch import Rhythm
from vm_babysitter.ports import HostZone, Store
from vm_babysitter.service.autostart import AutostartPart, AutostartWorld
from vm_babysitter.service.conditions import gates
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.daemon import Daemon
from vm_babysitter.service.notifier import Notifier, Ways
from vm_babysitter.service.outside import Outside
from vm_babysitter.service.own_autostart import OwnAutostart
from vm_babysitter.service.services import DaemonServices
from vm_babysitter.service.store_guard import StoreGuard

QUICK = Rhythm(settle=0.0, look=30.0, reconnect=(0.01,))


class LostJournal(FailingJournal):
    """Has lost what it knew as long as ``words`` says why."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""

    def lost(self) -> str:
        return self.words

    def rebuild(self, points: Sequence[KnownPoint]) -> None:
        super().rebuild(points)
        self.words = ""


@dataclass
class DaemonStage:
    """Set up what is to be so, then ``start``."""

    path: Path
    sections: dict[str, Any] = field(default_factory=lambda: {"store": {"path": STORE}})
    libvirt: Libvirt = field(default_factory=Libvirt)
    place: FakeStorePlace = field(default_factory=FakeStorePlace)
    journal: LostJournal = field(default_factory=LostJournal)
    listener: Listener = field(default_factory=Listener)
    works: Works = field(default_factory=Works)
    host: HostState = field(default_factory=HostState)
    thaw_error: Exception | None = None
    diagnosis_error: Exception | None = None
    pruned: list[datetime] = field(default_factory=list)
    ways: Ways = field(default_factory=Ways)
    findings: tuple[Finding, ...] = ()
    """What is found of each VM, beside what is so."""

    def __post_init__(self) -> None:
        (self.path / "store").mkdir()
        self.world = EngineWorld(self.path / "store", name="house")
        self.clock = self.world.clock
        self.timer = FakeTimer(self.clock)
        self.app = FakeApp(self.world)
        self.file = self.path / "settings.json"
        self.zone = HostZone(UTC, "UTC")
        self.libvirt.vms = self.world.hypervisor.outlines()
        write(self.file, **self.sections)
        self.configuration = Configuration(SettingsFile(self.file))
        self.guard = StoreGuard(self.configuration, self.place.find, self.place.room, self.clock)
        journal = SteadyJournal(self.journal, self.clock)
        notifier = Notifier(
            self.listener, self.configuration, journal, self.clock, lambda: UTC, self.ways
        )
        outside = Outside(
            clock=self.clock,
            journal=journal,
            timer=self.timer,
            publisher=notifier,
            notifier=notifier,
            job_logs=NoLogs(),
            open_feed=self.libvirt.open,
            open_diagnoser=self._diagnoser,
            open_store=self._store,
            host_zone=lambda: self.zone,
            prune_logs=self.pruned.append,
            settings_changed=lambda: None,
            thaw=self._thaw,
            rhythm=QUICK,
        )
        self.daemon = Daemon(
            outside,
            self.configuration,
            self.guard,
            dict.fromkeys(JobKind, self.works),
            lambda watched: gates(self.configuration, lambda: self.host, watched, self.guard),
        )
        self.guard.tell = self.daemon.tell
        self.autostart = self._autostart()
        self.services = DaemonServices(
            self.daemon,
            lambda: cast(App, self.app),
            lambda _job, _at, _most: ("log", 3, False),
            self.autostart,
        )

    @property
    def uuid(self) -> str:
        """Of the VM."""
        return self.world.vm.uuid

    def write(self, **sections: Any) -> None:
        """Edit the settings; the daemon finds out a minute later."""
        write(self.file, **sections)
        self.pass_seconds(60)

    def start(self) -> Daemon:
        """Start the daemon, and wait until it knows the VMs as far as it can."""
        self.daemon.start()
        if self.libvirt.absent is None:
            eventually(lambda: not self.daemon.watch.now().trouble)
        return self.daemon

    def looked(self) -> None:
        """Wait until the backups were looked at."""
        eventually(lambda: self.daemon.diagnoses.all() or self.daemon.diagnoses.problem)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, alarms ring, and the runner see to what that means."""
        self.timer.pass_time(timedelta(seconds=seconds))
        self.daemon.runner.wake()

    def waiting(self, words: str) -> Job:
        """Wait until the only job waits for something."""

        def found() -> list[Job]:
            queued = self.daemon.runner.queued()
            return [each for each in queued if words in each.waits_for]

        eventually(lambda: len(found()) == 1, self.daemon.runner.queued)
        assert found()[0].state is JobState.WAITING
        return found()[0]

    def told(self) -> list[str]:
        """Return the kinds of all events, those of jobs left aside."""
        return [e.kind for e in self.listener.events if not e.kind.startswith("job-")]

    def back_up(self) -> None:
        """Have a restore point made as by another process."""
        self.world.backup()

    def _autostart(self) -> AutostartPart:
        def refs() -> Sequence[VmRef] | None:
            known = self.daemon.context()
            return None if known is None else known.vms

        world = AutostartWorld(
            MarkFiles(self.path / "autostart"),
            self.clock,
            self.app.hypervisor,
            HostProbes(),
            UnraidVmService(self.path / "host"),
            CopyFile(self.path / "autostart.tsv"),
        )
        own = OwnAutostart(self.configuration, self.app.hypervisor)
        part = AutostartPart(world, self.configuration, own, refs, self.daemon.tell)
        self.daemon.also.append(part)
        return part

    @contextmanager
    def _diagnoser(self) -> Iterator[Diagnoser]:
        if self.diagnosis_error is not None:
            raise self.diagnosis_error
        with self.app.diagnoser() as diagnoser:
            yield _More(diagnoser, self)  # type: ignore[misc]

    def _store(self) -> Store:
        return self.app.store()

    def _thaw(self) -> None:
        if self.thaw_error is not None:
            raise self.thaw_error


class _More:
    """A diagnoser that finds more than is so."""

    def __init__(self, diagnoser: Diagnoser, stage: DaemonStage) -> None:
        self._diagnoser = diagnoser
        self._stage = stage

    def all(self, *, planned: bool) -> Iterator[Diagnosed]:
        return map(self._more, self._diagnoser.all(planned=planned))

    def diagnose(self, uuid: str, *, planned: bool) -> Diagnosed:
        return self._more(self._diagnoser.diagnose(uuid, planned=planned))

    def _more(self, found: Diagnosed) -> Diagnosed:
        diagnosis = found.diagnosis
        findings = (*diagnosis.findings, *self._stage.findings)
        return replace(found, diagnosis=replace(diagnosis, findings=findings))
