"""What the engine asks of libvirt."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import DiskState, PowerState, Vm


class JobKind(StrEnum):
    """What keeps a VM busy."""

    BACKUP = "a backup job"
    MIGRATION = "a migration, save or dump"
    BLOCK = "a block job (snapshot commit, copy or pull)"


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that libvirt has under way for a VM."""

    kind: JobKind
    detail: str
    socket: str = ""
    """The NBD socket of a backup job."""


@dataclass(frozen=True, slots=True)
class DiskRequest:
    """One disk of a backup job."""

    target: str
    scratch: str
    """Path of the scratch file, which must not exist."""
    since: str | None
    """Checkpoint whose bitmap the export offers; None for a disk read as a whole."""
    track: str | None
    """Name of a checkpoint to make of this disk alone, and of its bitmap; None for none.

    The bitmap records from a moment before that of the job on.
    """


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """A backup job over all disks named; others are left out."""

    socket: str
    disks: tuple[DiskRequest, ...]


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a VM has beside its disks and its definition."""

    nvram: str = ""
    """Path of the UEFI firmware's variables; empty where there are none."""
    nvram_format: str = "raw"
    tpm: str = ""
    """Path of the folder with the state of its emulated TPM; empty where there is none."""
    tpm_in_one_file: bool = False
    """Whether ``tpm`` is that state itself instead of a folder."""
    out_of_reach: tuple[str, ...] = ()
    """What else there is and cannot be read here, in a user's words."""
    autostart: bool = False
    """Whether it starts with the host."""
    managed_save: bool = False
    """Whether libvirt has saved its memory, to go on from at the next start."""


@dataclass(frozen=True, slots=True)
class Export:
    """Where one disk of a running backup job can be read."""

    target: str
    name: str
    bitmap: str | None


Moment = Callable[[], AbstractContextManager[object]]
"""Makes the context in which a backup job is started: the guest may be frozen in it."""


class Hypervisor(Protocol):
    """libvirt, as far as backups need it. VMs are named by their UUID."""

    @property
    def uri(self) -> str:
        """Which libvirt this is: its VMs are not those of another one on the same host."""

    def vms(self) -> tuple[Vm, ...]:
        """Return the persistent VMs, by name."""

    def outlines(self) -> tuple[Vm, ...]:
        """Return them like ``vms``, without what their images say: no image is opened."""

    def vm(self, name: str) -> Vm:
        """Return one persistent VM by name or UUID. Raises VmNotFound."""

    def outline(self, name: str) -> Vm:
        """Return one like ``vm``, without what its images say: wakes no sleeping hard disk."""

    def power(self, uuid: str) -> PowerState:
        """Return what the VM is doing; cheap. A VM that is gone is off."""

    def started(self, uuid: str) -> str:
        """Return what tells the VM's present QEMU process from others; empty where it is off."""

    def start(self, uuid: str) -> None:
        """Start a VM; one that runs already is fine.

        Raises:
            VmNotFound, HypervisorUnreachable, HypervisorError: it does not start, and why.
        """

    def own_autostart(self, uuid: str) -> bool:
        """Whether libvirt starts the VM by itself. Raises VmNotFound."""

    def set_own_autostart(self, uuid: str, *, on: bool) -> None:
        """Have libvirt start the VM by itself, or not. Raises VmNotFound."""

    def resume(self, uuid: str) -> None:
        """Have a VM go on that QEMU paused because of a disk error; harmless if it did not."""

    def definition(self, uuid: str) -> str:
        """Return the VM's persistent definition (XML, with secrets)."""

    def belongings(self, uuid: str) -> Belongings:
        """Return what the VM has beside its disks, running or not."""

    def disk_states(self, uuid: str) -> tuple[DiskState, ...]:
        """Return layers and bitmaps of each disk of a running VM."""

    def active_job(self, uuid: str) -> ActiveJob | None:
        """Return what keeps the VM busy, if anything does."""

    def end_backup(self, uuid: str) -> None:
        """End the running backup job and wait until it is gone; none running is fine."""

    def adopt_checkpoint(self, uuid: str, checkpoint: Checkpoint) -> bool:
        """Tell libvirt of an earlier checkpoint, validated against its bitmaps.

        Returns False if libvirt finds a bitmap missing or broken; it then knows nothing of it.
        """

    def begin_backup(
        self, uuid: str, request: BackupRequest, moment: Moment = nullcontext
    ) -> tuple[Export, ...]:
        """Make the new checkpoints, then start one atomic job over all disks.

        Only the start of the job, which is when its content is fixed, is inside of ``moment``.
        If anything is refused or fails, no checkpoint and no bitmap of the request stays.
        """

    def checkpoints(self, uuid: str) -> tuple[str, ...]:
        """Return the names of the checkpoints that libvirt knows, sorted; running or not."""

    def forget_checkpoints(self, uuid: str, prefix: str) -> None:
        """Drop libvirt's metadata of the checkpoints of this name prefix; bitmaps stay."""

    def remove_bitmaps(self, uuid: str, name: str, targets: Sequence[str]) -> None:
        """Remove the bitmaps of one checkpoint from the disks named, all layers, running VM."""

    def agent_missing(self, uuid: str) -> str:
        """Return why no guest agent can be asked, empty if one answers."""

    def freeze(self, uuid: str) -> AgentAnswer:
        """Have the guest agent freeze the file systems, within seconds or not at all."""

    def thaw(self, uuid: str) -> AgentAnswer:
        """Have the guest agent thaw the file systems, within seconds.

        Harmless if nothing is frozen, as in a VM that is off.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of libvirt and QEMU."""
