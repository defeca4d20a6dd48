"""The start of VMs in order: what each waits for, and what is done next. Pure."""

import re
import uuid as uuids
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from vm_babysitter.domain.errors import InvalidInput

RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
"""What names one start of the VM service."""
AGAIN_SECONDS = 5.0
"""From a start that failed to the next try."""
_PORTS = range(1, 65536)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?\]")
_NOWHERE = uuids.UUID("8f0d8a53-58c7-4ad0-8f4d-0c3f2f8a4e10")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_PATH = 1024
_FORMS = 'For example "tcp:192.168.1.1:53", "vm:router", "agent:router" or "path:/mnt/disks/usb".'


class Awaited(StrEnum):
    """What a VM can wait for."""

    VM = "vm"
    """Another VM runs."""
    AGENT = "agent"
    """The guest agent of another VM answers: it has booted."""
    TCP = "tcp"
    """Something answers at a host and port."""
    PATH = "path"
    """A folder is there, and something is mounted at it or above."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a VM waits for."""

    kind: Awaited
    target: str
    """The name or UUID of a VM, a host, or a path."""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" + (f":{self.port}" if self.port else "")


def parse_condition(text: str) -> Condition:
    """Read what people write: ``tcp:HOST:PORT``, ``vm:NAME``, ``agent:NAME``, ``path:/mnt/x``.

    Raises:
        InvalidInput.
    """
    word, colon, target = text.partition(":")
    if not colon or word not in list(Awaited) or not target or _CONTROL.search(target):
        raise _wrong(text, "must be vm:NAME, agent:NAME, tcp:HOST:PORT or path:/FOLDER")
    kind = Awaited(word)
    if kind is Awaited.TCP:
        host, _, port = target.rpartition(":")
        if not _HOST.fullmatch(host):
            raise _wrong(text, "must name a host and a port: tcp:HOST:PORT")
        if not port.isascii() or not port.isdecimal() or int(port[:6]) not in _PORTS:
            raise _wrong(text, "must end with a port from 1 to 65535")
        return Condition(kind, host, int(port))
    if kind is Awaited.PATH:
        too_long = len(target.encode(errors="surrogateescape")) > _LONGEST_PATH
        if not target.startswith("/") or ".." in target.split("/") or too_long:
            raise _wrong(text, 'must be the whole path of a folder, without ".."')
    return Condition(kind, target)


def _wrong(text: str, rule: str) -> InvalidInput:
    return InvalidInput("wait_for", text, rule, _FORMS)


class Otherwise(StrEnum):
    """What is done with a VM if what it waits for has not come in time."""

    START = "start"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Entry:
    """One VM of the list."""

    uuid: str
    name: str
    delay: float = 0.0
    """Seconds from when the VM before was dealt with; of the first from the begin of the run."""
    wait_for: tuple[Condition, ...] = ()
    timeout: float = 300.0
    """Seconds that it waits for them, once its delay is over."""
    otherwise: Otherwise = Otherwise.START
    tries: int = 3


def key_of(word: str) -> str:
    """Return what stands for the UUID of a VM that libvirt does not have: itself, if it is one."""
    try:
        return str(uuids.UUID(word))
    except ValueError:
        return str(uuids.uuid5(_NOWHERE, word))


class Mark(StrEnum):
    """What is remembered of a VM in a run."""

    BEGUN = "begun"
    """It is being started; whoever wrote this may have died at it."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """What it waits for did not come."""
    STOPPED = "stopped"
    """Somebody switched it off meanwhile: it stays off."""


NO_SUCH_VM = "libvirt has no such VM"


class Seen(StrEnum):
    """How a VM was seen just now."""

    ON = "on"
    OFF = "off"
    GONE = "gone"
    """libvirt has no such VM."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How far a run is with the VM whose turn it is."""

    entry: Entry
    mark: Mark | None = None
    waited: float = 0.0
    """Seconds since the VM before was dealt with."""
    failures: tuple[str, ...] = ()
    """Why each start failed so far."""
    since_failure: float = 0.0
    """Seconds since the last of these."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start it now."""

    late: tuple[str, ...] = ()
    """What it waited for in vain."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing yet."""

    seconds: float
    """At most so long; something else may be to be done earlier."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Look whether what it waits for is there, and ask again."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """It is dealt with."""

    mark: Mark
    reason: str = ""


Step = Start | Wait | Probe | Close


def next_turn(entries: Iterable[Entry], marks: Mapping[str, Mark]) -> Entry | None:
    """Return the VM whose turn it is: the first that was not dealt with. None: all were."""
    open_marks = {None, Mark.BEGUN}
    return next((entry for entry in entries if marks.get(entry.uuid) in open_marks), None)


def next_step(turn: Turn, seen: Seen, unmet: tuple[str, ...] | None) -> Step:
    """Say what is done next about the VM whose turn it is.

    Args:
        turn: how far it is.
        seen: how it is now.
        unmet: why each thing that it waits for is not there; None if that was not looked at.
    """
    if turn.mark is Mark.STOPPED:
        return Close(Mark.STOPPED)
    if seen is Seen.ON:
        return Close(Mark.DONE)
    if seen is Seen.GONE:
        return Close(Mark.FAILED, NO_SUCH_VM)
    if turn.failures:
        return _after_failure(turn)
    if turn.mark is Mark.BEGUN:  # its waits were over when somebody died at the start
        return Start()
    return _before_start(turn, unmet)


def _before_start(turn: Turn, unmet: tuple[str, ...] | None) -> Step:
    entry = turn.entry
    if turn.waited < entry.delay:
        return Wait(entry.delay - turn.waited)
    if not entry.wait_for:
        return Start()
    if unmet is None:
        return Probe(entry.wait_for)
    return _waiting(entry, turn.waited - entry.delay, unmet)


def _after_failure(turn: Turn) -> Step:
    if len(turn.failures) >= turn.entry.tries:
        return Close(Mark.FAILED, turn.failures[-1])
    left = AGAIN_SECONDS - turn.since_failure
    return Wait(left) if left > 0 else Start()


def _waiting(entry: Entry, waited: float, unmet: tuple[str, ...]) -> Step:
    if not unmet:
        return Start()
    if waited < entry.timeout:
        return Wait(entry.timeout - waited)
    if entry.otherwise is Otherwise.SKIP:
        return Close(Mark.SKIPPED, "; ".join(unmet))
    return Start(late=unmet)
