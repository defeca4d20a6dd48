"""The rest of the world: time, working space, whoever watches, where a restore goes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Protocol

from vm_babysitter.domain.chain import Attempt
from vm_babysitter.domain.space import Room

Priority = Callable[[], AbstractContextManager[None]]
"""Makes a context in which the calling thread, and those it starts, run at some priority."""


class Observer(Protocol):
    """Is told how a job goes."""

    def step(self, name: str) -> None:
        """A named step begins."""

    def progress(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the present step are through. Called from threads."""

    def note(self, text: str) -> None:
        """Something that the user should know, in a sentence."""


@dataclass(frozen=True, slots=True)
class ThisHost:
    """The machine that we run on, as ``adapters.this_host`` finds it."""

    id: str
    """Tells it from others, for good."""
    name: str
    """For people."""
    boot_id: str
    """Another one after each start of the machine; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class HostZone:
    """The time zone that the machine goes by, as ``adapters.host_zone`` finds it."""

    zone: tzinfo
    name: str
    """For people: ``Europe/Berlin``, or ``UTC+02:00``; empty where a zone has none."""
    note: str = ""
    """What of it the user should know, in sentences."""


class Clock(Protocol):
    """Time and chance."""

    def now(self) -> datetime:
        """Return the time (UTC)."""

    def new_id(self) -> str:
        """Return a new UUID."""

    def new_nonce(self) -> str:
        """Return six random hex digits."""


class FreezeWatch(Protocol):
    """A guard on duty."""

    @property
    def unfit(self) -> str:
        """Why the guest should not be frozen now; empty if it may be."""

    def thawed(self) -> None:
        """Say that nothing is frozen any more."""


class FreezeGuard(Protocol):
    """Sees to it that a frozen guest is thawed even if this process is killed."""

    def watch(self, vm_uuid: str) -> AbstractContextManager[FreezeWatch]:
        """Guard a freeze: from before it until after the thaw.

        Where the context ends without ``thawed``, the guard goes on trying to thaw.
        """

    def leftovers(self) -> tuple[str, ...]:
        """Return the UUIDs of VMs that may be frozen, left by a process or watch that is gone.

        Only those of the libvirt that this guard is for: others know nothing of them.
        """

    def forget(self, vm_uuid: str) -> None:
        """Say that such a VM was thawed."""


class ScratchPlaces(Protocol):
    """Working space beside the VM's disks, and the sockets of backup jobs."""

    def scratch_path(self, disk_path: str, nonce: str, target: str) -> str:
        """Return where the scratch file of a disk goes."""

    def probe(self, path: str) -> str:
        """Try the place with a throw-away file; return why it is unfit, empty if it is fit."""

    def room(self, path: str) -> Room:
        """Return the file system that a scratch file goes to. Raises ScratchUnfit."""

    def used(self, path: str) -> int:
        """Return how many bytes long a scratch file is, 0 if it is not there."""

    def socket_path(self, nonce: str) -> str:
        """Return where the NBD socket of a job goes."""

    def remove(self, path: str, nonce: str) -> None:
        """Remove a scratch file or socket that an attempt with this nonce left."""

    def hold(self, nonce: str) -> AbstractContextManager[None]:
        """Show for the time of the context that this process is at an attempt.

        The death of the process ends that, too. Raises StoreFailed.
        """

    def holder(self, nonce: str) -> str:
        """Say which process of this host is at an attempt; empty if none is.

        Raises:
            StoreFailed.
        """

    def remove_abandoned(self) -> None:
        """Remove what processes have left of ``hold`` that were killed meanwhile."""

    def still_used(self, attempt: Attempt) -> str:
        """Say what on this host may still be at the job of an attempt, whatever libvirt knows.

        That is a QEMU with the VM's UUID, a listener at the socket, a program that has a
        scratch file open. Empty if there is none of these. Takes milliseconds.
        """


@dataclass(frozen=True, slots=True)
class SideContent:
    """What was found in a small file or a folder of such. Two that are equal agree on all."""

    files: tuple[tuple[str, bytes], ...] = ()
    """Name and content, by name; the name is empty where a single file was asked for."""
    problems: tuple[str, ...] = ()
    """What could not be read, and why."""


class SideFiles(Protocol):
    """Reads the small files that a VM has beside its disks, whoever may be writing to them."""

    def read(self, path: str, limit: int, *, folder: bool) -> SideContent:
        """Read a file, or all files of a folder, of ``limit`` bytes together at most.

        Never fails: links, odd names, other things than files, and too much of them are
        problems. Hidden files and files that go away meanwhile are passed over.
        """


class RestoreFiles(Protocol):
    """Files being restored. They have provisional names until all are whole."""

    def begin(self, name: str) -> Path:
        """Return the provisional path for a file that is going to be called ``name``."""

    def copy(self, source: Path, path: Path) -> None:
        """Copy a small file to a provisional path."""

    def final(self, path: Path) -> Path:
        """Return what a provisional path is going to be called."""


class RestorePlace(Protocol):
    """Where a restore puts its files."""

    def fill(self, needed: int) -> AbstractContextManager[RestoreFiles]:
        """Make the place ready for ``needed`` bytes of files.

        At the end of the context all files get their names; after an error all are removed.

        Raises:
            InvalidInput: it exists and is not empty, or cannot be made.
            NotEnoughSpace.
        """
