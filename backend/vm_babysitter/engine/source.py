"""Where a backup reads the disks of a VM: of one that runs, or of one that is off."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vm_babysitter.domain.backup_plan import DiskPlan
from vm_babysitter.domain.offline import Evidence
from vm_babysitter.ports import DiskReader


@dataclass(frozen=True, slots=True)
class Taken:
    """The moment that a restore point is of."""

    at: datetime
    quiesced: bool
    """Whether all file systems were at rest."""
    note: str
    """Why they were not, or what made them so."""
    versions: dict[str, str]
    tracked: tuple[str, ...]
    """Targets that have a new bitmap."""
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = None
    """By what one sees that nothing has changed since; None for a VM that runs."""


class Source(Protocol):
    """The disks of one VM at one moment, for one attempt."""

    def prepare(self) -> None:
        """Find out what would make the attempt fail, before anything is begun.

        Raises:
            ScratchUnfit, NotEnoughSpace.
        """

    def begin(self) -> Taken:
        """Fix the moment. What this does is undone by ``Reconciler.undo``."""

    def watching(self) -> AbstractContextManager[None]:
        """Look after the VM and the space meanwhile; stops the copying by ``Cancel``."""

    def reserve(self) -> int:
        """Return how many bytes must stay free in the store."""

    def open(self, plan: DiskPlan) -> AbstractContextManager[DiskReader]:
        """Open a disk as it was at the moment, with the bitmap of the plan if it has one."""

    def confirm(self) -> None:
        """Make sure, after the last read, that all of it was of that moment.

        Raises:
            VmInUse.
        """
