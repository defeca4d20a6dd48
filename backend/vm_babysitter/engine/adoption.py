"""A plan whose bitmaps libvirt has found valid."""

from functools import partial

from vm_babysitter.domain.trust import Distrust
from vm_babysitter.domain.vm import Access, Vm, access_of
from vm_babysitter.engine.planning import Planned, Planner
from vm_babysitter.engine.tools import Sight
from vm_babysitter.ports import Store

_TRIES = 8


def plan_adopted(
    sight: Sight, store: Store, vm: Vm, *, force_full: bool, track_snapshots: bool
) -> Planned:
    """Plan, and have libvirt validate every bitmap that the plan trusts.

    It can do so only while QEMU runs. Of a VM that is off the image itself tells enough:
    what QEMU has stored in good order is whole. Checkpoints that libvirt is told of here
    are forgotten again by ``Reconciler.forget``.

    Raises:
        Busy, VmNotEligible, HypervisorError, ImageUnreadable.
    """
    plan = partial(
        Planner(sight, store).plan, vm, force_full=force_full, track_snapshots=track_snapshots
    )
    if access_of(vm.state) is Access.OFF:
        return plan()
    distrusted: set[Distrust] = set()
    for _ in range(_TRIES):
        planned = plan(distrusted=distrusted)
        refused = [
            Distrust(disk.target, disk.since.name)
            for disk in planned.plan.disks
            if disk.since is not None and not sight.hypervisor.adopt_checkpoint(vm.uuid, disk.since)
        ]
        if not refused:
            return planned
        distrusted |= set(refused)
    everything = {
        Distrust(d.target, d.since.name) for d in planned.plan.disks if d.since is not None
    }
    return plan(distrusted=distrusted | everything)
