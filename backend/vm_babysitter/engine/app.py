"""The engine put together: what the command line and the daemon need of the composition root."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vm_babysitter.engine.backup import Backup
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.check_store import CheckStore
from vm_babysitter.engine.convert import Convert
from vm_babysitter.engine.convert_back import ConvertBack
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.engine.release import Release
from vm_babysitter.engine.repair import Repair
from vm_babysitter.engine.restore import Restore
from vm_babysitter.engine.verify import Verify
from vm_babysitter.ports import Hypervisor, Observer, Store, ThisHost

DEFAULT_URI = "qemu:///system"
DEFAULT_SOCKET = Path("/run/vm-babysitter/api/api.socket")
"""Where the daemon serves its API."""
DEFAULT_SETTINGS = Path("/boot/config/plugins/vm-babysitter/settings.json")
"""Where Unraid keeps what plugins are told."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are."""

    uri: str
    store: Path | None
    """The backup folder, None where the command needs none."""
    allow_ram_store: bool = False
    runtime: Path | None = None
    """Where job sockets and marks go; None for the usual place."""
    tpm_roots: tuple[Path, ...] = ()
    """Where libvirt keeps the state of emulated TPMs; empty for the usual places."""
    host: ThisHost | None = None
    """The machine that we are taken to run on; None for the one it is."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a job may work."""

    limit: int | None = None
    """Bytes per second that are read; None: as fast as it goes."""
    low_priority: bool = True
    """Whether the VMs come first at processor and disks."""


FULL_SPEED = Effort()
"""No limit, the VMs first."""


class App(Protocol):
    """The engine, put together for one command."""

    def hypervisor(self) -> AbstractContextManager[Hypervisor]:
        """Connect to libvirt."""

    def store(self) -> Store:
        """Open the backup folder."""

    def diagnoser(self, *, with_store: bool = True) -> AbstractContextManager[Diagnoser]:
        """Diagnose VMs and plan their backups, ``with_store`` by what is in the backup folder."""

    def backup(
        self, effort: Effort = FULL_SPEED, *, compress: bool = False
    ) -> AbstractContextManager[Backup]:
        """Make backups; ``compress`` stores what shrinks compressed."""

    def repair(self) -> AbstractContextManager[Repair]:
        """Repair the backups of VMs."""

    def release(self, *, any_folder: bool = False) -> AbstractContextManager[Release]:
        """Give VMs back; with ``any_folder`` no backup folder has to be there."""

    def check_store(self) -> CheckStore:
        """Check places for backups."""

    def verify(self, effort: Effort = FULL_SPEED) -> Verify:
        """Verify points."""

    def restore(self, to: Path, effort: Effort = FULL_SPEED) -> Restore:
        """Restore points into a directory."""

    def convert(
        self, effort: Effort = FULL_SPEED
    ) -> AbstractContextManager[tuple[Convert, ConvertBack]]:
        """Convert raw disks, and undo it."""


Compose = Callable[[Place, Observer, Cancel], App]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where a daemon finds and keeps things; all else is in its settings."""

    settings: Path = DEFAULT_SETTINGS
    """The file of the settings."""
    state: Path | None = None
    """The folder of journal and logs; None for where Unraid keeps such."""
    socket: Path = DEFAULT_SOCKET
    """Where it listens."""
    uri: str = DEFAULT_URI
    """The libvirt to talk to."""
    runtime: Path | None = None
    """Where job sockets and marks go; None for the usual place."""
    allow_ram_store: bool = False
    tpm_roots: tuple[Path, ...] = ()
    """See ``Place``."""
    host: ThisHost | None = None
    """See ``Place``."""
    root: Path = Path("/")
    """Where the files begin in which Unraid says how it is; tests have their own."""


Serve = Callable[[ServeOptions], int]
"""Runs the daemon until it is told to end. Returns the exit code."""
