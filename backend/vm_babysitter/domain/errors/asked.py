"""What was asked for cannot be done: wrong values, somebody else at it, or a stop."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError, Exit


@dataclass(eq=False)
class InvalidInput(BabysitterError):
    """A value given by the user breaks a rule."""

    code: ClassVar[str] = "invalid-input"
    exit_code: ClassVar[Exit] = Exit.USAGE
    template: ClassVar[str] = "{field}: {value!r} {rule}."
    hint_template: ClassVar[str] = "{way_out}"
    field: str
    value: str
    rule: str
    way_out: str = ""


@dataclass(eq=False)
class InvalidCron(InvalidInput):
    """A schedule is not a line of Unix cron; ``field`` names the part that is wrong."""

    code: ClassVar[str] = "invalid-cron"


@dataclass(eq=False)
class Busy(BabysitterError):
    """Somebody else is working on the same thing."""

    code: ClassVar[str] = "busy"
    exit_code: ClassVar[Exit] = Exit.BUSY
    template: ClassVar[str] = "{what} is busy: {reason}."
    hint_template: ClassVar[str] = "It can be done when that is finished."
    transient: ClassVar[bool] = True
    what: str
    reason: str


@dataclass(eq=False)
class Cancelled(BabysitterError):
    """The user said stop."""

    code: ClassVar[str] = "cancelled"
    exit_code: ClassVar[Exit] = Exit.CANCELLED
    template: ClassVar[str] = "Stopped on request."
    hint_template: ClassVar[str] = "Nothing that was there before is lost."


@dataclass(eq=False)
class DaemonMissing(BabysitterError):
    """Nobody is there to do the work."""

    code: ClassVar[str] = "daemon-missing"
    exit_code: ClassVar[Exit] = Exit.UNREACHABLE
    template: ClassVar[str] = "The daemon does not answer: {reason}."
    hint_template: ClassVar[str] = (
        "Start it (Settings, VM Babysitter, or `/etc/rc.d/rc.vm-babysitter start`), or have the "
        "work done without it: `vm-babysitter --standalone …`, with the option first."
    )
    reason: str
