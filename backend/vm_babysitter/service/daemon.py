"""The daemon: all its parts, started and stopped in order."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from vm_babysitter.config.context import Context, VmRef
from vm_babysitter.config.selection import due, seen_to_note
from vm_babysitter.domain.diagnosis import Diagnosis
from vm_babysitter.domain.errors import BabysitterError, Busy, StoreAway
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.findings import Code
from vm_babysitter.domain.job import Job, JobKind, JobRequest, Limits, Origin
from vm_babysitter.domain.schedule import parse
from vm_babysitter.domain.vm_changes import VmChange
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.engine.gates import Gate
from vm_babysitter.engine.job_thread import Work
from vm_babysitter.engine.runner import STOP_SECONDS, Runner
from vm_babysitter.engine.scheduling import Scheduler, Wanted
from vm_babysitter.engine.vm_watch import VmWatch, Watched
from vm_babysitter.service.concerns import concerns, late
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.diagnoses import Diagnoses
from vm_babysitter.service.outside import Also, Outside
from vm_babysitter.service.past import make_up
from vm_babysitter.service.recent import RecentJobs
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.service.store_watch import StoreWatch
from vm_babysitter.service.vm_events import vm_event

_log = logging.getLogger(__name__)
_HOUSEKEEPING = timedelta(hours=1)
_REREAD = timedelta(minutes=1)
"""How often the settings are read again: somebody may have corrected them with an editor."""
_LAST_SECONDS = 1.0
"""For the other threads to end after the jobs: the host is waiting."""
_FIRST_LOOK = 5.0
"""Seconds that a schedule waits for libvirt to be asked once; its answer is not waited for."""
_LEFT = frozenset({Code.INTERRUPTED, Code.UNFINISHED, Code.STUCK, Code.REMOVAL})
"""What a process that was killed leaves, and `repair` puts away."""


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
        self._settings_wrong = False
        """Whether that was told."""
        self.ready = False
        self.zone = outside.host_zone()
        self.notifier = outside.notifier
        self.recent = RecentJobs(outside.publisher, self._ended)
        self.watch = VmWatch(outside.open_feed, outside.clock, self._vms_changed, outside.rhythm)
        self.runner = Runner(
            outside.journal,
            outside.clock,
            works,
            make_gates(self.watch.now),
            Limits(),
            self.recent,
        )
        self.runner.logs = outside.job_logs
        self.watch.answered = self.runner.wake
        outside.journal.on_back = self.runner.reload
        self.scheduler = Scheduler(
            outside.timer, outside.clock, outside.journal, self._submit_due, self.zone.zone
        )
        self.diagnoses = Diagnoses(self._open_diagnoser, outside.clock, self._diagnosed)
        self.store_watch = StoreWatch(self._look_at_store, self._store_changed, self._store_there)
        self._stopping = threading.Event()
        self._repairs: set[str] = set()
        """VMs whose leftovers were handed to `repair` once: it need not succeed."""
        self._suspects: set[str] = set()
        """VMs whose leftovers were seen once: they may be of a job that has ended since."""
        self.also: list[Also] = []
        """What is started with the daemon, once the settings are known, and stopped with it."""
        configuration.on_change(self._apply)

    # -- start and stop -----------------------------------------------------------------

    def start(self) -> None:
        """Start all parts; returns soon, whatever libvirt and the backup folder do."""
        self.configuration.load()
        self.notifier.start()
        for part in self.also:
            part.start()
        for job in self.runner.start():
            self.recent.job(job)
        self.watch.start()
        self.store_watch.start()
        threading.Thread(target=self._greet, name="greet", daemon=True).start()
        self._keep_house()
        self._reread_settings()
        self.ready = True
        _log.info("The daemon is ready.")

    def stop(self, seconds: float = STOP_SECONDS) -> list[Job]:
        """End: jobs are stopped cleanly, and done again after the next start.

        Returns those that have not ended in time.
        """
        self.ready = False
        self._stopping.set()
        self.diagnoses.stop(0.0)  # so that they end while jobs do
        self.store_watch.stop(0.0)
        for part in self.also:
            part.stop(_LAST_SECONDS / 2)
        left = self.runner.stop(seconds)
        self.watch.stop(_LAST_SECONDS)
        self.diagnoses.stop(_LAST_SECONDS / 2)
        self.notifier.stop(_LAST_SECONDS / 2)
        return left

    def tell(self, event: Event) -> None:
        """Keep an event, and tell whoever listens. Nothing of it makes the caller fail."""
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
        self._tell_of_settings()
        if self.configuration.loaded is not None:  # else whoever wrote them meant other schedules
            self._sync_schedules()
        self._note_seen()
        self.diagnoses.look()
        self.store_watch.look()
        self.runner.wake()

    def _tell_of_settings(self) -> None:
        problem = self.configuration.problem
        if problem is not None:
            _log.error("%s", problem)
            subject, at = "The settings cannot be used", self.clock.now()
            self.tell(Event(at, "settings-wrong", Severity.ALERT, subject, problem.lines))
        elif self._settings_wrong:
            subject, text = (
                "The settings can be used again",
                "Schedules go on. Nothing is left to do.",
            )
            self.tell(Event(self.clock.now(), "settings-right", Severity.NORMAL, subject, text))
        self._settings_wrong = problem is not None

    def _sync_schedules(self) -> None:
        settings = self.configuration.settings
        wanted = [
            Wanted(one.name, parse(one.when), one.kind, one.vms)
            for one in settings.schedules
            if one.enabled
        ]
        try:
            self.scheduler.sync(wanted)
        except BabysitterError as error:
            _log.error("%s", error)

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
        if schedule is None or not settings.store.path:
            return
        # A run that was missed is due at the start, when libvirt is just being asked.
        watched = self.watch.wait_first(_FIRST_LOOK)
        if watched.at is None:
            raise Busy("The list of VMs", watched.trouble or "libvirt was not asked yet")
        vms = due(settings, schedule, self.refs())
        missed = late(schedule.name, at, len(vms), self.clock.now())
        if missed is not None:
            self.tell(missed)
        _log.info("Schedule %r is due (%s): %d VMs.", wanted.name, at.isoformat(), len(vms))
        for vm in vms:
            request = JobRequest(
                JobKind(schedule.kind), vm.uuid, vm.name, {}, Origin.SCHEDULE, schedule.name
            )
            self.runner.submit(request)

    # -- what is told by other threads ------------------------------------------------------

    def _vms_changed(self, changes: tuple[VmChange, ...]) -> None:
        for each in changes:
            event = vm_event(each, self.clock.now())
            if event is not None:
                self.tell(event)
            _log.info("VM %s (%s): %s.", each.vm.name, each.vm.uuid, each.change)
            self.diagnoses.look(each.vm.uuid)
        self._recall()
        self._note_seen()
        self.runner.wake()

    def _ended(self, job: Job) -> None:
        self._suspects.discard(job.request.vm_uuid)  # what was seen may have been this job
        self.diagnoses.look(job.request.vm_uuid)

    def _diagnosed(self, diagnosis: Diagnosis) -> None:
        """Have put away what a killed process left, once, if no backup is about to do so."""
        uuid, name = diagnosis.facts.uuid, diagnosis.facts.name
        left = _LEFT & {finding.code for finding in diagnosis.findings}
        if not left:
            self._repairs.discard(uuid)
            self._suspects.discard(uuid)
            return
        live = [*self.runner.queued(), *self.runner.running()]
        busy = any(job.request.vm_uuid == uuid for job in live)
        if busy or uuid in self._repairs:
            self._suspects.discard(uuid)
            return
        if uuid not in self._suspects:
            self._suspects.add(uuid)
            self.diagnoses.look(uuid)
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
        except Exception:  # noqa: BLE001 - what comes after does not depend on it
            _log.exception("Thawing failed in a way nobody thought of.")
        self._recall()
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
        if self.guard.path is not None:
            settings, known = self.configuration.settings, self.diagnoses.all()
            for event in concerns(settings, self.refs(), known, self.journal, self.started, now):
                self.tell(event)
        self.zone = self._outside.host_zone()
        self.scheduler.use_zone(self.zone.zone)

    def _reread_settings(self) -> None:
        self._outside.timer.at("settings", self.clock.now() + _REREAD, self._reread_settings)
        self.configuration.refresh()

    def _recall(self) -> None:
        """Learn from the journal what became of the last backups of the VMs that there are."""
        self.recent.load(self.journal, [vm.uuid for vm in self.watch.now().vms])

    # -- the backup folder ----------------------------------------------------------------

    @contextmanager
    def _open_diagnoser(self) -> Iterator[Diagnoser]:
        """Open what diagnoses, unless it would take backups that are away for none."""
        reason = "" if self.guard.path is None else self.guard.hindrance()
        if reason:
            raise StoreAway(reason)
        with self._outside.open_diagnoser() as diagnoser:
            yield diagnoser

    def _look_at_store(self) -> str:
        if self.guard.path is None:
            return ""
        return self.guard.hindrance() or self.guard.lack_of_room()

    def _store_changed(self) -> None:
        self.diagnoses.look()
        self.runner.wake()

    def _store_there(self) -> None:
        if self.diagnoses.problem:  # which may have been for want of it
            self.diagnoses.look()
        if self.guard.path is not None and make_up(self.journal, self._outside.open_store):
            self._recall()
