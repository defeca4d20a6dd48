"""Looks at a place that is to hold backups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.store_check import Place


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """Where the image of a VM's disk lies."""

    name: str
    """In a user's words."""
    path: str


class StoreProbe(Protocol):
    """Tries what a backup folder must be able to do, and leaves nothing behind."""

    def look(self, path: Path, disks: Sequence[DiskPlace] = ()) -> Place:
        """Find out all about a place. Never fails: what fails is part of what it returns."""

    def take_over(self, path: Path) -> Lease | None:
        """Give a backup folder to this host. Returns who had it, None if nobody else had.

        Raises:
            StoreRefused: it is no backup folder.
            StoreFailed.
        """
