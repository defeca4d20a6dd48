"""What a plan should tell of a VM's surroundings: other programs, other VMs, its own past."""

from collections.abc import Sequence

from vm_babysitter.domain.backup_plan import BackupPlan
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.foreign import foreign_things
from vm_babysitter.domain.hardware import changed_vm
from vm_babysitter.domain.sharing import shared_note, shared_with
from vm_babysitter.domain.vm import DiskState, Vm
from vm_babysitter.ports import ActiveJob, Hypervisor, Store


class Surroundings:
    """Looks around a VM; changes nothing."""

    def __init__(self, hypervisor: Hypervisor, store: Store | None) -> None:
        self._hypervisor = hypervisor
        self._store = store

    def foreign(
        self, vm: Vm, states: Sequence[DiskState], job: ActiveJob | None
    ) -> tuple[str, ...]:
        """Say what other programs have on this VM, a running job last."""
        chains = self._store.chains(vm.uuid) if self._store else ()
        found = foreign_things(states, self._hypervisor.checkpoints(vm.uuid), chains)
        sockets = {attempt.socket for chain in chains for attempt in chain.attempts} - {""}
        if job is None or job.socket in sockets:
            return found
        return (
            *found,
            f"{job.kind} is running ({job.detail}): a backup is refused until it has ended",
        )

    def notes(self, vm: Vm, chain: Chain | None, plan: BackupPlan) -> tuple[str, ...]:
        """Say what of the VM itself has changed, and whose its images are as well."""
        stored = self._store.vms() if self._store is not None and chain is None else ()
        namesakes = [known.uuid for known in stored if vm.name in known.names]
        taken = {disk.target for disk in plan.disks}
        shared = [s for s in shared_with(vm, self._hypervisor.outlines()) if s.target in taken]
        return (*changed_vm(vm.uuid, vm.name, plan.parent, namesakes), *map(shared_note, shared))
