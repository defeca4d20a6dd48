"""Starts the VMs of the list, once for each start of the VM service."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from vm_babysitter.domain.autostart import Mark
from vm_babysitter.domain.errors import SystemFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.engine.autostart_run import AutostartRun, AutostartTools, Pause
from vm_babysitter.ports import RunRecord, VmService

_log = logging.getLogger(__name__)
_BUGS = 3
"""How often a run goes on after an error that nobody thought of."""
_AFTER_BUG = 5.0


class RunState(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    HELD = "held"
    """Nothing is started: the host is set so, or a device could not be prepared."""
    BROKEN = "broken"
    """It does not go on, for now at least: then a shell script does."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run is."""

    run: str
    state: RunState
    begun: datetime
    held: str = ""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By UUID; a VM that is not in it has not had its turn yet."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is worth knowing of a VM, by UUID."""


class Autostart:
    """Begins runs, goes on with one that the daemon was killed in, and says how it is."""

    def __init__(
        self,
        tools: AutostartTools,
        service: VmService,
        make_pause: Callable[[threading.Event], Pause] = lambda ended: ended.wait,
    ) -> None:
        """``make_pause`` makes the way in which a run waits; tests let it take no time."""
        self._tools = tools
        self._service = service
        self._make_pause = make_pause
        self._lock = threading.Lock()
        self._run: AutostartRun | None = None
        """The last one that this process was at."""
        self._state = RunState.FINISHED
        self._begun = tools.clock.now()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Go on with a run that was not finished, if the VM service is still the same."""
        with self._lock:
            record = self._latest()
            if record is None or record.finished or record.service != self._service.stamp():
                return
            _log.info("Autostart goes on with run %s.", record.run)
            self._go(record.run, record.begun)

    def stop(self, seconds: float) -> bool:
        """End; the run goes on after the next start. Returns False if it hangs."""
        with self._lock:
            self._stopped = True
            self._ended.set()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def begin(self, run: str | None) -> Progress:
        """Begin a run, unless it was begun before.

        Args:
            run: what names this start of the VM service; None if a user asks for it now.

        Raises:
            InvalidInput: it is no name of a run.
        """
        with self._lock:
            if run is None and self._is_running():
                return self._progress()
            name = run or f"user-{self._tools.clock.new_nonce()}"
            if self._run is None or self._run.run != name:  # else it was begun, however it went on
                self._open(name, by_user=run is None)
        return self.progress_of(name)

    def now(self) -> Progress | None:
        """Return how the last run is; None if there was none since the host has booted."""
        with self._lock:
            if self._run is not None:
                return self._progress()
        record = self._latest()
        return None if record is None else self.progress_of(record.run)

    def progress_of(self, run: str) -> Progress:
        """Return how one run is."""
        with self._lock:
            if self._run is not None and self._run.run == run:
                return self._progress()
        record = self._read(run)
        if record is None:
            return Progress(run, RunState.FINISHED, self._tools.clock.now())
        state = RunState.HELD if record.held else RunState.FINISHED
        return Progress(run, state, record.begun, record.held, record.marks)

    # -- one run ------------------------------------------------------------------------------

    def _open(self, run: str, *, by_user: bool) -> None:
        try:
            new = self._tools.marks.open(run, self._service.stamp())
        except SystemFailed as error:  # better started twice than not at all
            _log.error("%s", error)
            new = self._run is None or self._run.run != run
        record = self._read(run)
        if not new and (record is None or record.finished):
            return
        # Where the shell script has begun it a later restart of libvirtd would look like VFIO's.
        at_first = new and (record is None or not record.marks)
        held = self._service.held(by_user=by_user) if at_first else ""
        if held:
            self._hold(run, held)
            return
        self._end_other(run)
        self._go(run, self._tools.clock.now() if record is None else record.begun)

    def _hold(self, run: str, reason: str) -> None:
        _log.warning("Autostart is held: %s", reason)
        if self._tools.wanted():
            text = f"{reason}\nOnce the reason is gone, `vm-babysitter autostart now` starts them."
            subject, now = "VMs were not started", self._tools.clock.now()
            self._tools.tell(Event(now, "autostart-held", Severity.WARNING, subject, text))
        try:
            self._tools.marks.hold(run, reason)
        except SystemFailed as error:
            _log.error("%s", error)
        self._end_other(run)
        self._run = None

    def _end_other(self, run: str) -> None:
        """Have an older run end: the VM service was started anew."""
        self._ended.set()
        if self._run is not None and self._run.run != run and self._state is RunState.RUNNING:
            self._state = RunState.FINISHED
            try:
                self._tools.marks.finish(self._run.run)
            except SystemFailed as error:
                _log.warning("%s", error)

    def _go(self, run: str, begun: datetime) -> None:
        self._ended = threading.Event()
        pause = self._make_pause(self._ended)
        self._run = AutostartRun(self._tools, run, pause)
        self._state, self._begun = RunState.RUNNING, begun
        if self._stopped:
            return
        work = self._run
        self._thread = threading.Thread(
            target=self._work, args=(work, pause), name="autostart", daemon=True
        )
        self._thread.start()

    def _work(self, work: AutostartRun, pause: Pause) -> None:
        state = RunState.BROKEN
        for _ in range(_BUGS):
            try:
                if not work.go():
                    return
                state = RunState.FINISHED
                break
            except Exception:  # noqa: BLE001 - a router may be in the list
                _log.exception("Autostart goes on after an error that nobody thought of.")
            if pause(_AFTER_BUG):
                return
        with self._lock:
            if self._run is work:
                self._state = state

    def _is_running(self) -> bool:
        return self._run is not None and self._state is RunState.RUNNING

    def _progress(self) -> Progress:
        run = self._run
        assert run is not None  # noqa: S101 - callers have looked
        notes = {uuid: note for uuid, note in run.notes.copy().items() if note}
        stuck = self._state is RunState.RUNNING and run.is_stuck()
        state = RunState.BROKEN if stuck else self._state
        return Progress(run.run, state, self._begun, "", run.marks(), notes)

    def _latest(self) -> RunRecord | None:
        try:
            return self._tools.marks.latest()
        except SystemFailed as error:
            _log.warning("%s", error)
            return None

    def _read(self, run: str) -> RunRecord | None:
        try:
            return self._tools.marks.read(run)
        except SystemFailed as error:
            _log.warning("%s", error)
            return None
