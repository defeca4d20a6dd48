"""Which disks of a VM are disks of other VMs as well. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from vm_babysitter.domain.vm import Disk, DiskKind, Vm


@dataclass(frozen=True, slots=True)
class SharedImage:
    """A disk whose image another VM can write to as well."""

    target: str
    vm: str
    """Name of the other VM."""
    uuid: str
    """UUID of the other VM."""
    other_target: str


def shared_with(vm: Vm, all_vms: Iterable[Vm]) -> tuple[SharedImage, ...]:
    """Find the images of a VM that other VMs have as a disk they may write to.

    Disks declared as shared are left aside, since they are in no backup. Two paths are one
    image if they are equal or name the same file (``Disk.file_id``).

    Args:
        vm: the VM.
        all_vms: all there are, itself included or not. What their images say is not needed.
    """
    return tuple(
        SharedImage(mine.target, other.name, other.uuid, theirs.target)
        for mine in vm.disks
        if _writable(mine) and not mine.shareable
        for other in all_vms
        if other.uuid != vm.uuid
        for theirs in other.disks
        if _writable(theirs) and _one_image(mine, theirs)
    )


def shared_note(shared: SharedImage) -> str:
    """Say it in a sentence."""
    return (
        f"disk {shared.target} is disk {shared.other_target} of VM {shared.vm!r} as well; only "
        "one of the two can run"
    )


def _writable(disk: Disk) -> bool:
    return disk.kind is DiskKind.DISK and bool(disk.path) and not disk.read_only


def _one_image(one: Disk, other: Disk) -> bool:
    return one.path == other.path or (bool(one.file_id) and one.file_id == other.file_id)
