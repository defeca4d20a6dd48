"""What starting VMs in order needs of the world, beside libvirt."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vm_babysitter.domain.autostart import Condition, Mark


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is kept of a run."""

    run: str
    begun: datetime
    service: str
    """What told that start of the VM service from others, see ``VmService.stamp``."""
    finished: bool
    held: str
    """Why nothing is started; empty where it is."""
    marks: Mapping[str, Mark]
    """By UUID, in small letters."""
    marked: Mapping[str, datetime]
    """When each of them was made."""


class RunMarks(Protocol):
    """What is remembered of runs until the next boot; a shell script reads and writes it, too.

    All methods raise SystemFailed where it cannot be kept.
    """

    def open(self, run: str, service: str) -> bool:
        """Have a record of a run. Returns whether it is a new one."""

    def read(self, run: str) -> RunRecord | None:
        """Return what is kept of a run; None if it never was."""

    def latest(self) -> RunRecord | None:
        """Return the run that was begun last."""

    def claim(self, run: str, uuid: str) -> bool:
        """Mark a VM as BEGUN; returns False, and changes nothing, if it has a mark."""

    def mark(self, run: str, uuid: str, mark: Mark) -> None:
        """Give a VM another mark, whole or not at all."""

    def hold(self, run: str, reason: str) -> None:
        """Note that nothing is started in this run, and finish it."""

    def finish(self, run: str) -> None:
        """Note that all VMs were dealt with."""


class VmService(Protocol):
    """The host's service for VMs."""

    def stamp(self) -> str:
        """Return what tells this start of it from others; empty where that is not known."""

    def held(self, *, by_user: bool) -> str:
        """Say in a sentence why no VM is to be started; empty if they may be.

        ``by_user``: somebody asks for it now, so what was suppressed at the start is not.
        """


class Probes(Protocol):
    """Looks whether something is there; may take seconds, and longer where a disk hangs."""

    def unmet(self, condition: Condition) -> str:
        """Say why what is waited for (``tcp``, ``path``) is not there; empty if it is."""


class ListCopy(Protocol):
    """The copy of the list from which VMs are started if the daemon is not there."""

    def write(self, lines: tuple[tuple[str, int, str], ...]) -> None:
        """Have it hold these VMs: UUID, seconds of delay, name. Raises SettingsFailed."""
