"""What has become of the VMs between two looks at them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vm_babysitter.domain.vm import Disk, PowerState, Vm


class Change(StrEnum):
    """What has become of a VM."""

    APPEARED = "appeared"
    GONE = "gone"
    RENAMED = "renamed"
    EDITED = "edited"
    """Its disks are others than before."""
    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class VmChange:
    """One thing that has become of a VM."""

    change: Change
    vm: Vm
    """As it is now; as it was where it is gone."""
    before: Vm | None = None
    """As it was; None where it has appeared."""


def vm_changes(before: Sequence[Vm], now: Sequence[Vm]) -> tuple[VmChange, ...]:
    """Say what has changed; VMs are told apart by their UUIDs, whatever their names.

    A VM that has appeared and runs has appeared only.
    """
    old, new = ({vm.uuid: vm for vm in vms} for vms in (before, now))
    found = [VmChange(Change.GONE, vm, vm) for vm in before if vm.uuid not in new]
    for vm in now:
        was = old.get(vm.uuid)
        if was is None:
            found.append(VmChange(Change.APPEARED, vm))
            continue
        found += [VmChange(change, vm, was) for change in _changes_of(was, vm)]
    return tuple(found)


def _changes_of(was: Vm, vm: Vm) -> list[Change]:
    found = []
    if was.name != vm.name:
        found.append(Change.RENAMED)
    if {_identity(disk) for disk in was.disks} != {_identity(disk) for disk in vm.disks}:
        found.append(Change.EDITED)
    if (was.state is PowerState.OFF) != (vm.state is PowerState.OFF):
        found.append(Change.STARTED if was.state is PowerState.OFF else Change.STOPPED)
    return found


def _identity(disk: Disk) -> tuple[str, str, str, str]:
    return disk.target, disk.kind, disk.source_type, disk.source
