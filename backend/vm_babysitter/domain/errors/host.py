"""Errors about the host: its space and its programs."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError
from vm_babysitter.lib.units import format_bytes


@dataclass(eq=False)
class NotEnoughSpace(BabysitterError):
    """Less free space than is needed."""

    code: ClassVar[str] = "not-enough-space"
    template: ClassVar[str] = "{path!r} has {free_words} free, {needed_words} are needed."
    hint_template: ClassVar[str] = "Free some space there or choose another place."
    path: str
    free: int
    """Bytes."""
    needed: int
    """Bytes."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields, and their amounts in words."""
        words = {
            "free_words": format_bytes(self.free),
            "needed_words": format_bytes(self.needed),
        }
        return {"path": self.path, "free": self.free, "needed": self.needed, **words}


@dataclass(eq=False)
class SpaceRunningOut(BabysitterError):
    """A backup was given up before a file system ran full."""

    code: ClassVar[str] = "space-running-out"
    template: ClassVar[str] = (
        "{what} at {path!r} is running out, {free_words} are left: the backup was given up."
    )
    hint_template: ClassVar[str] = "Free some space there, or back up when the VM writes less."
    what: str
    path: str
    free: int
    """Bytes."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields, and the amount in words."""
        words = {"free_words": format_bytes(self.free)}
        return {"what": self.what, "path": self.path, "free": self.free, **words}


@dataclass(eq=False)
class ScratchUnfit(BabysitterError):
    """There is no place for the working space of a running backup."""

    code: ClassVar[str] = "scratch-unfit"
    template: ClassVar[str] = "The working space of the backup cannot be at {path!r}: {reason}."
    hint_template: ClassVar[str] = "It lies beside the VM's disk: check that folder."
    path: str
    reason: str


@dataclass(eq=False)
class CommandFailed(BabysitterError):
    """A program that we started failed."""

    code: ClassVar[str] = "command-failed"
    template: ClassVar[str] = "{program} failed with exit status {status}: {output}"
    program: str
    status: int
    output: str


@dataclass(eq=False)
class ProgramMissing(BabysitterError):
    """A program that we need is not installed."""

    code: ClassVar[str] = "program-missing"
    template: ClassVar[str] = "The program {program!r} is not installed."
    hint_template: ClassVar[str] = "{way_out}"
    program: str
    way_out: str = "Install it, or put it on the PATH."


@dataclass(eq=False)
class SystemFailed(BabysitterError):
    """The operating system refused something that nobody has thought of."""

    code: ClassVar[str] = "system-failed"
    template: ClassVar[str] = "The system refused: {reason}."
    reason: str
