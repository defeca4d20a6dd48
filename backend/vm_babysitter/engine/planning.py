"""Gathers the facts of a VM and has the next backup planned."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from vm_babysitter.domain.backup_plan import BackupPlan, plan_backup
from vm_babysitter.domain.chain import Chain, Flaw, live_chain
from vm_babysitter.domain.errors import Busy, PointDamaged, VmNotEligible
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.sharing import shared_with
from vm_babysitter.domain.trust import Distrust
from vm_babysitter.domain.vm import (
    Access,
    DiskState,
    DiskVerdict,
    Verdict,
    Vm,
    access_of,
    eligible_disks,
    judge_disk,
)
from vm_babysitter.engine.surroundings import Surroundings
from vm_babysitter.engine.tools import Sight
from vm_babysitter.engine.unchanged import Unchanged
from vm_babysitter.ports import ActiveJob, Hypervisor, JobKind, Store


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with the chain and the disk states it was made from."""

    plan: BackupPlan
    chain: Chain | None
    disks: tuple[DiskVerdict, ...]
    states: dict[str, DiskState]


def check_eligible(vm: Vm) -> tuple[DiskVerdict, ...]:
    """Return the disks that a backup of this VM contains. Raises VmNotEligible."""
    for verdict in map(judge_disk, vm.disks):
        if verdict.verdict is Verdict.REFUSED:
            raise VmNotEligible(
                vm.name,
                f"disk {verdict.disk.target}: {verdict.reason}",
                f"See to it that {verdict.disk.source!r} is there and can be read, or take that "
                "disk out of the VM.",
            )
    disks = eligible_disks(vm)
    if not disks:
        raise VmNotEligible(
            vm.name, "it has no disk that can be backed up", "`vm-babysitter vms` says why."
        )
    return disks


def check_idle(hypervisor: Hypervisor, vm: Vm) -> None:
    """Raise Busy if a job is under way that a backup would wait for in vain."""
    job = hypervisor.active_job(vm.uuid)
    if job is not None:
        raise busy_with(vm, job)


def busy_with(vm: Vm, job: ActiveJob) -> Busy:
    """Return what a backup fails with that meets a job which is none of its own."""
    reason = f"{job.kind} is running ({job.detail})"
    if job.kind is JobKind.BACKUP:
        # It may be that of an interrupted backup into another folder, which only knows it.
        reason += "; should nobody be at it any more, `virsh domjobabort` ends it"
    return Busy(f"VM {vm.name!r}", reason)


class Planner:
    """Plans the next backup of a VM; changes nothing."""

    def __init__(self, sight: Sight, store: Store | None) -> None:
        """``store`` is None where there is no backup folder yet."""
        self._sight = sight
        self._hypervisor = sight.hypervisor
        self._store = store

    def unchanged(self, name: str) -> tuple[Chain, Point] | None:
        """Return chain and point that make a backup needless, see ``Unchanged.find``."""
        return None if self._store is None else Unchanged(self._sight, self._store).find(name)

    def plan(
        self,
        vm: Vm,
        *,
        force_full: bool = False,
        distrusted: Collection[Distrust] = (),
        track_snapshots: bool = False,
        chains: Sequence[Chain] | None = None,
    ) -> Planned:
        """Plan the next backup, after the indexes it would build on were checked.

        Args:
            vm: as libvirt and its images tell it.
            force_full: see ``plan_backup``.
            distrusted: see ``plan_backup``.
            track_snapshots: see ``plan_backup``.
            chains: those of the VM as they are going to be, None for as they are.

        Raises:
            Busy: its disks cannot be looked at now.
            VmNotEligible, ImageUnreadable, UnsupportedFormat, Damaged.
        """
        disks = check_eligible(vm)
        left_out = [v for v in map(judge_disk, vm.disks) if v.verdict is Verdict.LEFT_OUT]
        access = access_of(vm.state)
        job = self._hypervisor.active_job(vm.uuid)
        if job is not None and job.kind is JobKind.MIGRATION:  # QEMU has given its images up
            raise busy_with(vm, job)
        states = self._states(vm, disks, access)
        chain = live_chain(self._chains(vm.uuid) if chains is None else chains)
        while True:
            plan = plan_backup(
                disks,
                states,
                chain,
                access=access,
                force_full=force_full,
                distrusted=distrusted,
                left_out=left_out,
                track_snapshots=track_snapshots,
            )
            damage = self._damaged_index(vm, chain, plan)
            if damage is None or chain is None:
                around = Surroundings(self._hypervisor, self._store)
                notes = (*around.notes(vm, chain, plan), *plan.notes)
                foreign = around.foreign(vm, tuple(states.values()), job)
                plan = replace(plan, notes=notes, foreign=foreign)
                return Planned(plan, chain, disks, states)
            index, _, reason = damage.reason.partition(": ")
            chain = chain.with_flaws(damage.seq, Flaw(index, reason))

    def _chains(self, vm_uuid: str) -> Sequence[Chain]:
        return () if self._store is None else self._store.chains(vm_uuid)

    def _states(self, vm: Vm, disks: Sequence[DiskVerdict], access: Access) -> dict[str, DiskState]:
        if access is Access.WAIT:
            raise Busy(f"VM {vm.name!r}", f"it is {vm.state}")
        if access is Access.LIVE:
            return {s.target: s for s in self._hypervisor.disk_states(vm.uuid)}
        self._check_unused(vm)
        return {d.disk.target: self._sight.offline.look(d.disk).state for d in disks}

    def _check_unused(self, vm: Vm) -> None:
        """Raise Busy if another VM that runs has an image of this one, which is off."""
        others = [o for o in self._hypervisor.outlines() if access_of(o.state) is not Access.OFF]
        for shared in shared_with(vm, others):
            reason = f"its disk {shared.target} is in use by VM {shared.vm!r}, which runs"
            raise Busy(f"VM {vm.name!r}", reason)

    def _damaged_index(self, vm: Vm, chain: Chain | None, plan: BackupPlan) -> PointDamaged | None:
        """Return what is wrong with the block indexes that the plan builds on, if anything."""
        if self._store is None or chain is None or plan.parent is None:
            return None
        for disk in plan.disks:
            if disk.parent is None:
                continue
            try:
                layers = chain.layers(plan.parent.seq, disk.parent.target)
                with self._store.open_index(vm.uuid, chain, layers):
                    pass
            except PointDamaged as error:
                return error
        return None
