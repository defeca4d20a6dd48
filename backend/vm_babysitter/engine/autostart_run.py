"""One run of the autostart: all VMs of the list, in order, each once."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic

from vm_babysitter.domain.autostart import (
    NO_SUCH_VM,
    Close,
    Entry,
    Mark,
    Probe,
    Seen,
    Start,
    Turn,
    Wait,
    key_of,
    next_step,
    next_turn,
)
from vm_babysitter.domain.errors import BabysitterError, HypervisorUnreachable, SystemFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.engine.autostart_host import PROBE_SECONDS, Host, ImageLook, OpenHypervisor
from vm_babysitter.engine.left_behind import Asked, within
from vm_babysitter.ports import Clock, Probes, RunMarks

_log = logging.getLogger(__name__)
_EVERY = 2.0
"""Seconds between two looks."""
_SETTLE = 10.0
"""Seconds after libvirt is back: if the whole VM service was restarted, another run begins."""
_JUMP = 30.0
"""Seconds: a clock that goes on by more between two looks was set."""

Pause = Callable[[float], bool]
"""Waits for some seconds; returns whether the run is to end before."""


@dataclass(frozen=True, slots=True)
class AutostartTools:
    """What a run needs of the world."""

    marks: RunMarks
    clock: Clock
    open_hypervisor: OpenHypervisor
    probes: Probes
    wanted: Callable[[], Sequence[Entry]]
    """The list; ``uuid`` of an entry is the name or UUID by which the settings name the VM."""
    tell: Callable[[Event], None]
    asked: Asked[str] = field(default_factory=Asked)
    """What is waited for; outlives runs, so that whoever hangs is asked once."""
    look_seconds: float = 10.0
    """For a look at the images of one VM before its start."""
    start_seconds: float = 120.0
    """For one start: devices that are passed through, and huge memory, take long."""
    silence_seconds: float = 60.0
    """Without a look at all VMs, after which the run does not go on: then the script does."""


class Remembered:
    """The marks of one run; where they cannot be kept, they are remembered here at least."""

    def __init__(self, marks: RunMarks, run: str) -> None:
        self._marks = marks
        self._run = run
        self._own: dict[str, Mark] = {}

    def all(self) -> Mapping[str, Mark]:
        """Return the marks; the shell script may have made some of them."""
        try:
            record = self._marks.read(self._run)
        except SystemFailed as error:
            _log.warning("%s", error)
            record = None
        return {**({} if record is None else record.marks), **self._own}

    def claim(self, uuid: str) -> bool:
        """Take a VM on; returns False if somebody else has."""
        try:
            return self._marks.claim(self._run, uuid)
        except SystemFailed as error:
            _log.warning("%s", error)
            self._own[uuid] = Mark.BEGUN
            return True

    def mark(self, uuid: str, mark: Mark) -> None:
        """Note what has become of a VM."""
        self._own[uuid] = mark
        try:
            self._marks.mark(self._run, uuid, mark)
        except SystemFailed as error:
            _log.warning("%s", error)

    def finish(self) -> None:
        """Note that all were dealt with."""
        try:
            self._marks.finish(self._run)
        except SystemFailed as error:
            _log.warning("%s", error)


class AutostartRun:
    """Goes through the list; by nobody but the thread that calls ``go``."""

    def __init__(self, tools: AutostartTools, run: str, pause: Pause) -> None:
        self.run = run
        self.notes: dict[str, str] = {}
        """What is worth knowing of each VM, by UUID: why it waits, or was not started."""
        self.entries: tuple[Entry, ...] = ()
        """As they were seen last."""
        self._tools = tools
        self._pause = pause
        self._marks = Remembered(tools.marks, run)
        self._look = ImageLook(tools.open_hypervisor, tools.look_seconds)
        self._turn: Turn | None = None
        self._at = tools.clock.now()
        self._on: set[str] = set()
        self._wanted: frozenset[str] | None = None
        self._goes_on_within(0)

    def is_stuck(self) -> bool:
        """Say whether it should have gone on by now: libvirt does not answer it, or never did."""
        return monotonic() > self._due

    def _goes_on_within(self, seconds: float) -> None:
        self._due = monotonic() + seconds + self._tools.silence_seconds

    def marks(self) -> Mapping[str, Mark]:
        """Return what has become of each VM so far; safe for threads."""
        return self._marks.all()

    def go(self) -> bool:
        """Deal with all VMs, however often libvirt goes away. Returns False if told to end."""
        was_there, told = False, ""
        while True:
            try:
                with self._tools.open_hypervisor() as hypervisor:
                    if was_there and self._pause(_SETTLE):
                        return False
                    was_there, told = True, ""
                    self._on.clear()
                    host = Host(hypervisor, self._tools.probes, self._tools.asked)
                    return self._follow(host)
            except BabysitterError as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("Autostart waits for libvirt: %s", error)
            if self._pause(_EVERY):
                return False

    def _follow(self, host: Host) -> bool:
        while True:
            host.refresh()
            self._goes_on_within(0)
            marks = self._watch(host)
            entry = next_turn(self.entries, marks)
            if entry is None:
                self._marks.finish()
                return True
            if self._deal(host, self._turn_of(entry, marks)):
                return False

    def _watch(self, host: Host) -> Mapping[str, Mark]:
        """Look at all VMs: one that runs needs no start, and one that is stopped then stays off."""
        self.entries = self._resolved(host)
        marks = dict(self._marks.all())
        for entry in self.entries:
            uuid, seen = entry.uuid, host.seen(entry)
            if seen is Seen.ON and marks.get(uuid) is None and uuid in self._on:
                self._close(entry, Close(Mark.DONE))
            elif seen is Seen.OFF and marks.get(uuid) is Mark.DONE and uuid in self._on:
                self._close(entry, Close(Mark.STOPPED, "it was switched off meanwhile"))
            (self._on.add if seen is Seen.ON else self._on.discard)(uuid)
        return self._marks.all()

    def _resolved(self, host: Host) -> tuple[Entry, ...]:
        """Return the list as it is now, each VM once; what is added during a run has no turn."""
        wanted = self._tools.wanted()
        if self._wanted is None:
            self._wanted = frozenset(entry.uuid for entry in wanted)
        found: dict[str, Entry] = {}
        for entry in wanted:
            if entry.uuid in self._wanted:
                resolved = _resolve(host, entry)
                found.setdefault(resolved.uuid, resolved)
        return tuple(found.values())

    def _turn_of(self, entry: Entry, marks: Mapping[str, Mark]) -> Turn:
        now, passed = self._tools.clock.now(), 0.0
        passed, self._at = _passed(self._at, now), now
        turn = self._turn
        if turn is None:
            turn = Turn(entry, waited=min(entry.delay, self._since_before(entry)))
        elif turn.entry.uuid != entry.uuid:
            turn = Turn(entry)
        else:
            turn = replace(
                turn,
                entry=entry,
                waited=turn.waited + passed,
                since_failure=turn.since_failure + passed,
            )
        self._turn = replace(turn, mark=marks.get(entry.uuid))
        return self._turn

    def _since_before(self, entry: Entry) -> float:
        """Return for how long a VM's delay has been running, if somebody else began the run."""
        try:
            record = self._tools.marks.read(self.run)
        except SystemFailed:
            record = None
        if record is None:
            return 0.0
        before = self.entries[: self.entries.index(entry)]
        since = record.marked.get(before[-1].uuid, record.begun) if before else record.begun
        return max(0.0, (self._at - since).total_seconds())

    def _deal(self, host: Host, turn: Turn) -> bool:
        """Do one step about the VM whose turn it is. Returns whether the run is to end."""
        entry = turn.entry
        seen = host.seen(entry)
        step = next_step(turn, seen, None)
        if isinstance(step, Probe):
            self._goes_on_within(PROBE_SECONDS * len(step.conditions))
            unmet = host.unmet(step.conditions)
            step = next_step(turn, seen, unmet)
            self.notes[entry.uuid] = "; ".join(unmet)
        match step:
            case Start(late):
                return self._pause(0) or self._start(host, turn, late)
            case Close():
                self._close(entry, step, len(turn.failures))
            case Wait(seconds):
                return self._pause(min(seconds, _EVERY))
        return False

    def _start(self, host: Host, turn: Turn, late: tuple[str, ...]) -> bool:
        entry = turn.entry
        self._goes_on_within(self._tools.look_seconds + self._tools.start_seconds)
        problem = "" if turn.failures else self._look.problem(entry)
        if self._pause(0):
            return True
        if turn.mark is None and not self._marks.claim(entry.uuid):
            return self._pause(_EVERY)  # the shell script is at it
        if late:
            _log.warning("VM %s is started without what it waits for: %s", entry.name, late)
        if problem:
            _log.warning("VM %s: %s", entry.name, problem)
        try:
            within(self._tools.start_seconds, lambda: self._start_alone(entry.uuid))
        except HypervisorUnreachable:
            raise
        except TimeoutError:
            reason = (
                f"libvirt has been starting it for {self._tools.start_seconds:g} seconds, "
                "and is not waited for any longer"
            )
            self._close(entry, Close(Mark.FAILED, reason))
            return False
        except BabysitterError as error:
            _log.warning("VM %s did not start: %s", entry.name, error)
            reason = "; ".join(part for part in (problem, error.message) if part)
            failures = (*turn.failures, reason)
            self.notes[entry.uuid] = reason
            self._turn = replace(turn, mark=Mark.BEGUN, failures=failures, since_failure=0.0)
            return False
        _log.info("VM %s was started.", entry.name)
        self.notes[entry.uuid] = f"started without what it waits for: {late[0]}" if late else ""
        self._marks.mark(entry.uuid, Mark.DONE)
        return False

    def _start_alone(self, uuid: str) -> None:
        """Over a connection of its own: if it hangs, the VMs that come after have their turn."""
        with self._tools.open_hypervisor() as hypervisor:
            hypervisor.start(uuid)

    def _close(self, entry: Entry, step: Close, tries: int = 0) -> None:
        # Told first: rather twice, if we are killed in between, than never.
        event = _event(entry, step, tries, self._tools.clock.now())
        if event is not None:
            self._tools.tell(event)
        self.notes[entry.uuid] = step.reason
        self._marks.mark(entry.uuid, step.mark)


def _resolve(host: Host, entry: Entry) -> Entry:
    vm = host.find(entry.uuid)
    if vm is not None:
        return replace(entry, uuid=vm.uuid.lower(), name=vm.name)
    return replace(entry, uuid=key_of(entry.uuid))


def _passed(before: datetime, now: datetime) -> float:
    """Return how much time has passed; a host that has booted may set its clock by years."""
    return min(_JUMP, max(0.0, (now - before).total_seconds()))


def _way_out(entry: Entry, reason: str) -> str:
    if reason == NO_SUCH_VM:
        command = f"vm-babysitter autostart set --remove {shlex.quote(entry.name)}"
        return f"If it is gone for good, `{command}` takes it off the list."
    return "Correct the reason and start it by hand."


def _event(entry: Entry, step: Close, tries: int, now: datetime) -> Event | None:
    if step.mark is Mark.FAILED:
        times = f" It was tried {tries} times." if tries > 1 else ""
        text = (
            f"{step.reason.rstrip('.')}.{times}\n"
            f"The VMs after it in the autostart list go on. {_way_out(entry, step.reason)}"
        )
        subject, kind, severity = "did not start", "autostart-failed", Severity.ALERT
    elif step.mark is Mark.SKIPPED:
        text = (
            f"What it waits for has not come in {entry.timeout:g} seconds: {step.reason}.\n"
            "It is to be skipped then, as the autostart list says. Start it by hand if you need it."
        )
        subject, kind, severity = "was not started", "autostart-skipped", Severity.WARNING
    else:
        return None
    subject = f"VM {entry.name} {subject}"
    return Event(now, kind, severity, subject, text, entry.uuid, entry.name)
