"""The daemon: all its parts, started and stopped in order."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vm_babysitter.config.context import Context, VmRef
from vm_babysitter.config.selection import due, seen_to_note
from vm_babysitter.domain.diagnosis import Diagnosis
from vm_babysitter.domain.errors import BabysitterError, Busy, StoreRefused
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.findings import Code
from vm_babysitter.domain.job import ENDED, Job, JobKind, JobRequest, Limits, Origin
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.domain.schedule import parse
from vm_babysitter.domain.vm_changes import Change, VmChange
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.gates import Gate
from vm_babysitter.engine.job_thread import Work
from vm_babysitter.engine.runner import STOP_SECONDS, Runner
from vm_babysitter.engine.scheduling import Scheduler, Wanted
from vm_babysitter.engine.steady_journal import SteadyJournal
from vm_babysitter.engine.vm_watch import VmWatch, Watched
from vm_babysitter.ports import (
    Clock,
    HostZone,
    JobLogs,
    OpenFeed,
    Publisher,
    Store,
    Timer,
)
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.diagnoses import Diagnoses, Open
from vm_babysitter.service.recent import RecentJobs
from vm_babysitter.service.store_guard import StoreGuard

_log = logging.getLogger(__name__)
_HOUSEKEEPING = timedelta(hours=1)
_LEFT = frozenset({Code.INTERRUPTED, Code.UNFINISHED, Code.STUCK, Code.REMOVAL})
"""What a process that was killed leaves, and `repair` puts away."""
_MANY_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon needs of the world; all of it is put together by the composition root."""

    clock: Clock
    journal: SteadyJournal
    timer: Timer
    publisher: Publisher
    job_logs: JobLogs
    open_feed: OpenFeed
    open_diagnoser: Open
    open_store: Callable[[], Store]
    host_zone: Callable[[], HostZone]
    prune_logs: Callable[[datetime], object]
    """Removes logs of jobs that were not written to since a moment."""
    settings_changed: Callable[[], None]
    """Is told when other settings hold; for logs, and whatever else the root has set up."""
    thaw: Callable[[], None]
    """Thaws guests that a dead process left frozen. Raises BabysitterError."""


class Daemon:
    """Runs until it is stopped."""

    def __init__(
        self,
        outside: Outside,
        configuration: Configuration,
        guard: StoreGuard,
        works: dict[JobKind, Work],
        make_gates: Callable[[Callable[[], Watched]], Sequence[Gate]],
    ) -> None:
        self._outside = outside
        self.configuration = configuration
        self.guard = guard
        self.clock = outside.clock
        self.journal = outside.journal
        self.started = outside.clock.now()
        self.ready = False
        self.zone = outside.host_zone()
        self.recent = RecentJobs(outside.publisher)
        self.watch = VmWatch(outside.open_feed, outside.clock, self._vms_changed)
        self.runner = Runner(
            outside.journal,
            outside.clock,
            works,
            make_gates(self.watch.now),
            Limits(),
            _Ended(self.recent, self._ended),
        )
        self.runner.logs = outside.job_logs
        outside.journal.on_back = self.runner.reload
        self.scheduler = Scheduler(
            outside.timer, outside.clock, outside.journal, self._submit_due, self.zone.zone
        )
        self.diagnoses = Diagnoses(outside.open_diagnoser, outside.clock, self._diagnosed)
        self._stopping = threading.Event()
        self._repairs: set[str] = set()
        """VMs whose leftovers were handed to `repair` once: it need not succeed."""
        configuration.on_change(self._apply)

    # -- start and stop -----------------------------------------------------------------

    def start(self) -> None:
        """Start all parts; returns soon, whatever libvirt and the backup folder do."""
        self.configuration.load()
        self._rebuild_journal()
        for job in self.runner.start():
            self.recent.job(job)
        self.watch.start()
        threading.Thread(target=self._greet, name="greet", daemon=True).start()
        self._keep_house()
        self.ready = True
        _log.info("The daemon is ready.")

    def stop(self, seconds: float = STOP_SECONDS) -> list[Job]:
        """End: jobs are stopped cleanly, and done again after the next start.

        Returns those that have not ended in time.
        """
        self.ready = False
        self._stopping.set()
        left = self.runner.stop(seconds)
        self.diagnoses.stop()
        self.watch.stop(2.0)
        return left

    def tell(self, event: Event) -> None:
        """Keep an event, and tell whoever listens."""
        self.journal.event(event)
        self.recent.event(event)

    def refs(self) -> list[VmRef]:
        """Return the VMs that there are, as far as is known."""
        return [VmRef(vm.uuid, vm.name) for vm in self.watch.now().vms]

    def context(self) -> Context | None:
        """Return what settings are held against; None where it is not known which VMs there are."""
        return None if self.watch.now().at is None else Context(self.refs())

    # -- settings -----------------------------------------------------------------------

    def _apply(self) -> None:
        settings = self.configuration.settings
        self._outside.settings_changed()
        self.runner.limits = Limits(parallel=settings.backup.parallel)
        if self.configuration.problem is not None:
            _log.error("%s", self.configuration.problem)
        wanted = [
            Wanted(one.name, parse(one.when), one.kind, one.vms)
            for one in settings.schedules
            if one.enabled
        ]
        try:
            self.scheduler.sync(wanted)
        except BabysitterError as error:
            _log.error("%s", error)
        self._note_seen()
        self.diagnoses.look()
        self.runner.wake()

    def _note_seen(self) -> None:
        """Note which VMs there are when new ones are no longer to be backed up."""
        context = self.context()
        if context is None:
            return
        settings = self.configuration.settings
        seen = seen_to_note(settings, context.vms)
        if seen != settings.vms.seen:
            try:
                self.configuration.change({("vms", "seen"): None if seen is None else list(seen)})
            except BabysitterError as error:
                _log.warning("%s", error)

    # -- schedules ----------------------------------------------------------------------

    def _submit_due(self, wanted: Wanted, at: datetime) -> None:
        """Queue the jobs of a schedule's turn. While libvirt is away its VMs are those of before.

        Raises:
            BabysitterError: it is tried again in a minute.
        """
        settings = self.configuration.settings
        schedule = next((s for s in settings.schedules if s.name == wanted.name), None)
        watched = self.watch.now()
        if schedule is None or not settings.store.path:
            return
        if watched.at is None:
            raise Busy("The list of VMs", watched.trouble or "libvirt was not asked yet")
        vms = due(settings, schedule, self.refs())
        _log.info("Schedule %r is due (%s): %d VMs.", wanted.name, at.isoformat(), len(vms))
        for vm in vms:
            request = JobRequest(
                JobKind(schedule.kind), vm.uuid, vm.name, {}, Origin.SCHEDULE, schedule.name
            )
            self.runner.submit(request)

    # -- what is told by other threads ------------------------------------------------------

    def _vms_changed(self, changes: tuple[VmChange, ...]) -> None:
        for each in changes:
            self._told_of(each)
            self.diagnoses.look(each.vm.uuid)
        self._note_seen()
        self.runner.wake()

    def _told_of(self, change: VmChange) -> None:
        vm, before = change.vm, change.before
        words = {
            Change.APPEARED: "is new",
            Change.GONE: "is gone; its backups stay",
            Change.RENAMED: f"was called {before.name if before else ''} before",
            Change.EDITED: "has other disks than before",
        }
        if change.change in words:
            subject = f"VM {vm.name} {words[change.change]}"
            kind = f"vm-{change.change}"
            self.tell(Event(self.clock.now(), kind, Severity.NORMAL, subject, "", vm.uuid, vm.name))
        _log.info("VM %s (%s): %s.", vm.name, vm.uuid, change.change)

    def _ended(self, job: Job) -> None:
        self.diagnoses.look(job.request.vm_uuid)

    def _diagnosed(self, diagnosis: Diagnosis) -> None:
        """Have put away what a killed process left, once, if no backup is about to do so."""
        uuid, name = diagnosis.facts.uuid, diagnosis.facts.name
        left = _LEFT & {finding.code for finding in diagnosis.findings}
        if not left:
            self._repairs.discard(uuid)
            return
        live = [*self.runner.queued(), *self.runner.running()]
        busy = any(job.request.vm_uuid == uuid for job in live)
        if busy or uuid in self._repairs:
            return
        self._repairs.add(uuid)
        self.runner.submit(JobRequest(JobKind.REPAIR, uuid, name, {}, Origin.RETRY))

    # -- housekeeping ---------------------------------------------------------------------

    def _greet(self) -> None:
        """Do once what has to wait for libvirt."""
        while self.watch.wait_first(60.0).trouble:
            if self._stopping.wait(1.0):
                return
        try:
            self._outside.thaw()
        except BabysitterError as error:
            _log.warning("%s", error)
        self.recent.load(self.journal, [vm.uuid for vm in self.watch.now().vms])
        self._note_seen()
        self.diagnoses.start()

    def _keep_house(self) -> None:
        """Forget what is old, and look at what nobody tells of; again and again."""
        now = self.clock.now()
        self._outside.timer.at("housekeeping", now + _HOUSEKEEPING, self._keep_house)
        days = timedelta(days=self.configuration.settings.log.job_days)
        try:
            self.journal.prune(now - days)
            self._outside.prune_logs(now - days)
        except (BabysitterError, OSError) as error:
            _log.warning("Old logs were not removed: %s", error)
        self.journal.retry()
        self.zone = self._outside.host_zone()
        self.scheduler.use_zone(self.zone.zone)

    def _rebuild_journal(self) -> None:
        """Make up a lost journal from the restore points that there are."""
        reason = self.journal.lost()
        if not reason or self.guard.path is None:
            return
        try:
            store = self._outside.open_store()
            self.journal.rebuild(_known_points(store))
        except StoreRefused:
            _log.info("There are no backups yet to make up a history from.")
        except (BabysitterError, OSError) as error:
            _log.warning("The history cannot be made up from the backup folder: %s", error)


class _Ended:
    """A publisher that tells of jobs that have ended."""

    def __init__(self, publisher: Publisher, ended: Callable[[Job], None]) -> None:
        self._publisher = publisher
        self._told = ended

    def job(self, job: Job) -> None:
        self._publisher.job(job)
        if job.state in ENDED:
            self._told(job)

    def event(self, event: Event) -> None:
        self._publisher.event(event)


def _known_points(store: Store) -> list[KnownPoint]:
    found = [
        KnownPoint(
            vm.uuid,
            vm.names[-1],
            point_name(chain, stored.point.seq),
            stored.point.started,
            stored.point.finished,
            stored.point.warnings,
        )
        for vm in store.vms()
        for chain in store.chains(vm.uuid)
        for stored in chain.points
    ]
    return sorted(found, key=lambda point: point.started)[-_MANY_POINTS:]
