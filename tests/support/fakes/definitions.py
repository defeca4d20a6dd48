"""The definitions of the VMs of a FakeHypervisor: ``ports.Definitions``."""

from tests.support.fakes.faults import Faults, faulty
from tests.support.fakes.hypervisor import FakeHypervisor, FakeVm
from vm_babysitter.domain.errors import Busy, VmNotFound
from vm_babysitter.domain.vm import QEMU_RUNS
from vm_babysitter.ports import DiskSource, ImageUse


class FakeDefinitions(Faults):
    """Implements ``ports.Definitions``; disks are those that the hypervisor's VMs have."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        super().__init__()
        self._hypervisor = hypervisor
        self.snapshot_names: dict[str, set[str]] = {}
        """By the VM's UUID."""
        self.running: dict[tuple[str, str], DiskSource] = {}
        """What a VM was started with, by UUID and target, where that is not what it has now."""

    @faulty
    def image_uses(self) -> tuple[ImageUse, ...]:
        return tuple(
            ImageUse(vm.uuid, vm.name, target, source.file)
            for vm in self._hypervisor.machines.values()
            for target, source in _sources(vm).items()
            if source.file
        )

    @faulty
    def snapshots(self, uuid: str) -> tuple[str, ...]:
        return tuple(sorted(self.snapshot_names.get(self._find(uuid).uuid, ())))

    @faulty
    def disk_source(self, uuid: str, target: str, *, running: bool = False) -> DiskSource | None:
        vm = self._find(uuid)
        if not running:
            return _sources(vm).get(target)
        if vm.state not in QEMU_RUNS:
            return None
        return self.running.get((uuid, target)) or _sources(vm).get(target)

    @faulty
    def switch_disk(self, uuid: str, target: str, old: DiskSource, new: DiskSource) -> None:
        vm = self._find(uuid)
        now = _sources(vm).get(target)
        if now is None or now != old:
            raise Busy(f"The definition of VM {vm.name!r}", "somebody has changed it")
        if vm.state in QEMU_RUNS:
            self.running.setdefault((uuid, target), now)
        vm.disks[target].path, vm.disks[target].format = new.file, new.format

    def _find(self, uuid: str) -> FakeVm:
        if uuid not in self._hypervisor.machines:
            raise VmNotFound(uuid)
        return self._hypervisor.machines[uuid]


def _sources(vm: FakeVm) -> dict[str, DiskSource]:
    own = {t: DiskSource(disk.path, disk.format) for t, disk in vm.disks.items()}
    return own | {d.target: DiskSource(d.source, d.declared_format) for d in vm.other_disks}
