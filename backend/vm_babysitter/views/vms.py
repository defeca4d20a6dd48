"""VMs, and what of each would be backed up."""

from dataclasses import asdict, dataclass
from typing import Self

from vm_babysitter.domain.vm import Disk, DiskVerdict, PowerState, Verdict, Vm, judge_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView(Disk):
    """A disk of a VM, and how it is backed up."""

    verdict: Verdict
    reason: str
    """Why so, in a user's words."""

    @classmethod
    def of(cls, judged: DiskVerdict) -> Self:
        """Show a disk with its verdict."""
        return cls(**asdict(judged.disk), verdict=judged.verdict, reason=judged.reason)


@dataclass(frozen=True, slots=True)
class VmView:
    """A persistent VM."""

    name: str
    uuid: str
    state: PowerState
    disks: tuple[DiskView, ...]

    @classmethod
    def of(cls, vm: Vm) -> Self:
        """Show a VM."""
        disks = tuple(DiskView.of(judge_disk(disk)) for disk in vm.disks)
        return cls(vm.name, vm.uuid, vm.state, disks)
