"""The part of the composition root that is the daemon."""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from vm_babysitter.adapters.autostart_copy import CopyFile
from vm_babysitter.adapters.autostart_marks import MarkFiles
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.commands import run_command
from vm_babysitter.adapters.host_zone import host_zone
from vm_babysitter.adapters.job_logs import JobLogs
from vm_babysitter.adapters.main_log import SYSLOG, LogSettings, MainLog
from vm_babysitter.adapters.notify.health import HealthPinger
from vm_babysitter.adapters.notify.unraid import UnraidChannel
from vm_babysitter.adapters.notify.webhook import WebhookChannel
from vm_babysitter.adapters.probes import HostProbes
from vm_babysitter.adapters.room import room
from vm_babysitter.adapters.secrets import Secrets
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.adapters.store.identity import find_store
from vm_babysitter.adapters.store.store_lock import SharedLocks
from vm_babysitter.adapters.timer import ApsTimer
from vm_babysitter.adapters.unraid.host_state import UnraidState
from vm_babysitter.adapters.unraid.nchan import NchanPublisher
from vm_babysitter.adapters.unraid.places import state_folder
from vm_babysitter.adapters.unraid.vm_service import UnraidVmService
from vm_babysitter.api.app import create_app
from vm_babysitter.api.server import ApiServer
from vm_babysitter.bootstrap import RUNTIME, Standalone
from vm_babysitter.config.context import VmRef
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.domain.errors import (
    Busy,
    Exit,
    HypervisorMissing,
    InvalidInput,
    StoreFailed,
)
from vm_babysitter.domain.job import JobKind
from vm_babysitter.engine.app import App, Place, ServeOptions
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.engine.runner import STOP_SECONDS
from vm_babysitter.engine.steady_journal import SteadyJournal
from vm_babysitter.lib.signals import signals
from vm_babysitter.ports import Clock, Hypervisor, Observer, Timer, VmFeed
from vm_babysitter.service.autostart import AutostartPart, AutostartWorld
from vm_babysitter.service.conditions import gates
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.daemon import Daemon
from vm_babysitter.service.notifier import Notifier, Ways
from vm_babysitter.service.outside import Outside
from vm_babysitter.service.own_autostart import OwnAutostart
from vm_babysitter.service.releasing import Releasing
from vm_babysitter.service.services import DaemonServices
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.service.works import Works

_log = logging.getLogger(__name__)
_END_SECONDS = 19.5
"""From the signal to the end of the process, whatever hangs: the host is waiting."""
_DISKS_COME_WITHIN = timedelta(minutes=3)
"""After the start of the daemon, which comes up with the array."""
_LOCK = "daemon.lock"
_LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


class _Nobody:
    """Implements ``ports.Observer`` for looks that nobody waits for."""

    def step(self, name: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        _log.info("%s", text)


class _Composition:
    """Puts the engine together for jobs and questions, with the settings of that moment."""

    def __init__(self, options: ServeOptions, configuration: Configuration, clock: Clock) -> None:
        self._options = options
        self._configuration = configuration
        self._clock = clock
        self._locks = SharedLocks()

    def job(self, observer: Observer, cancel: Cancel) -> Standalone:
        options, path = self._options, self._configuration.settings.store.path
        place = Place(
            options.uri,
            Path(path) if path else None,
            options.allow_ram_store,
            options.runtime,
            options.tpm_roots,
            options.host,
        )
        return Standalone(place, observer, cancel, self._locks.hold, self._clock)

    def question(self) -> App:
        return self.job(_Nobody(), Cancel())

    def hypervisor(self) -> AbstractContextManager[Hypervisor]:
        return self.question().hypervisor()

    @contextmanager
    def diagnoser(self) -> Iterator[Diagnoser]:
        with_store = bool(self._configuration.settings.store.path)
        with self.question().diagnoser(with_store=with_store) as diagnoser:
            yield diagnoser

    def thaw(self) -> None:
        self.job(_Nobody(), Cancel()).thaw()

    @contextmanager
    def feed(self) -> Iterator[VmFeed]:
        try:
            # Only now: a host without libvirt's module still has an API that says so.
            from vm_babysitter.adapters.libvirt.feed import open_feed  # noqa: PLC0415
        except ImportError as error:
            raise HypervisorMissing(str(error)) from error
        with open_feed(self._options.uri) as feed:
            yield feed


def serve(options: ServeOptions) -> int:
    """Run the daemon until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        InvalidInput: there is no place for the state, or none that can be used.
        Busy: another daemon listens there, or keeps its state in that folder.
    """
    state = _state(options)
    with ExitStack() as stack:
        wait = stack.enter_context(signals((signal.SIGTERM, signal.SIGINT)))
        _have_alone(state, stack)
        daemon, server = build(options, state, stack)
        server.start()
        stack.callback(server.stop)
        daemon.start()
        wait()
        _end_within(_END_SECONDS)
        _log.info("The daemon is asked to end.")
        left = daemon.stop(STOP_SECONDS)
    return int(Exit.FAILED if left else Exit.OK)


def _state(options: ServeOptions) -> Path:
    state = options.state or state_folder()
    if state is None:
        raise InvalidInput("--state", "", "is missing, and no share `system` is there to take")
    try:
        # Only the folder itself: where a pool is not mounted its parents are missing, too.
        state.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreFailed(str(state), error.strerror or str(error)) from error
    return state


def _have_alone(state: Path, stack: ExitStack) -> None:
    """Keep other daemons from this state: each would take the other's jobs for interrupted ones."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(state / _LOCK, flags, 0o600)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        what = f"The state folder {str(state)!r}"
        raise Busy(what, "another daemon keeps its journal there") from error
    except OSError as error:
        raise StoreFailed(str(state), error.strerror or str(error)) from error


def _end_within(seconds: float) -> None:
    """End the process by then, even if a disk that does not answer keeps a thread waiting.

    Nothing is lost by it: what is under way is cleaned up after the next start, as after a kill.
    """
    timer = threading.Timer(seconds, os._exit, [int(Exit.FAILED)])
    timer.daemon = True
    timer.start()


def build(
    options: ServeOptions,
    state: Path,
    stack: ExitStack,
    clock: Clock | None = None,
    timer: Timer | None = None,
) -> tuple[Daemon, ApiServer]:
    """Put all parts together; none of them is started.

    Args:
        options: where things are.
        state: the folder of journal and logs, which is there.
        stack: what it ends when the daemon has been stopped.
        clock: None for the system's.
        timer: None for one that goes by the clock.
    """
    clock, secrets = clock or SystemClock(), Secrets()
    main_log = MainLog(state / "vm-babysitter.log", secrets, syslog=SYSLOG)
    stack.callback(main_log.close)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    job_logs = JobLogs(state / "jobs", secrets)
    database = SqliteJournal(state / "journal.sqlite", clock)
    stack.callback(database.close)
    journal = SteadyJournal(database, clock)
    pages = NchanPublisher()
    stack.callback(pages.stop)
    timer = timer or _started_timer(clock, stack)
    configuration = Configuration(SettingsFile(options.settings))
    ways = Ways(UnraidChannel(options.root), WebhookChannel, HealthPinger)
    notifier = Notifier(pages, configuration, journal, clock, lambda: host_zone().zone, ways)
    composition = _Composition(options, configuration, clock)
    guard = StoreGuard(configuration, find_store, room, clock, _DISKS_COME_WITHIN)
    works = Works(composition.job, configuration, guard, run_command)
    own = OwnAutostart(configuration, composition.hypervisor)
    releasing = Releasing(composition.job, configuration, own.give_back)

    def settings_changed() -> None:
        log = configuration.settings.log
        notify = configuration.settings.notify
        secrets.know((notify.webhook, notify.health))
        main_log.open(LogSettings(_LEVELS[log.level], log.size, log.files))

    outside = Outside(
        clock=clock,
        journal=journal,
        timer=timer,
        publisher=notifier,
        notifier=notifier,
        job_logs=job_logs,
        open_feed=composition.feed,
        open_diagnoser=composition.diagnoser,
        open_store=lambda: composition.question().store(),
        host_zone=host_zone,
        prune_logs=job_logs.prune,
        settings_changed=settings_changed,
        thaw=composition.thaw,
    )
    daemon = Daemon(
        outside,
        configuration,
        guard,
        {**works.all(), JobKind.RELEASE: releasing.release},
        lambda watched: gates(configuration, UnraidState(options.root), watched, guard),
    )
    guard.tell = daemon.tell
    autostart = _autostart(options, own, composition, daemon)

    def read_log(job: int, offset: int, most: int) -> tuple[str, int, bool] | None:
        part = job_logs.read(job, offset, most)
        return None if part is None else (part.text, part.next, part.more)

    services = DaemonServices(daemon, composition.question, read_log, autostart)
    return daemon, ApiServer(create_app(services), options.socket)


def _autostart(
    options: ServeOptions, own: OwnAutostart, composition: _Composition, daemon: Daemon
) -> AutostartPart:
    def refs() -> Sequence[VmRef] | None:
        known = daemon.context()
        return None if known is None else known.vms

    world = AutostartWorld(
        marks=MarkFiles((options.runtime or RUNTIME) / "autostart"),
        clock=daemon.clock,
        open_hypervisor=composition.hypervisor,
        probes=HostProbes(),
        service=UnraidVmService(options.root),
        copy=CopyFile(options.settings.with_name("autostart.tsv")),
    )
    part = AutostartPart(world, daemon.configuration, own, refs, daemon.tell)
    daemon.also.append(part)
    return part


def _started_timer(clock: Clock, stack: ExitStack) -> Timer:
    timer = ApsTimer(clock)
    timer.start()
    stack.callback(timer.stop)
    return timer
