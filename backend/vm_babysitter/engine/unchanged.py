"""A VM that is off and has not changed since its newest point needs no new one."""

from dataclasses import replace
from datetime import datetime

from vm_babysitter.domain.backup_plan import BackupPlan
from vm_babysitter.domain.chain import Chain, live_chain
from vm_babysitter.domain.errors import ImageUnreadable
from vm_babysitter.domain.offline import Current, Evidence, is_same, is_settled
from vm_babysitter.domain.point import Method, Point, PointDisk
from vm_babysitter.domain.vm import Access, access_of
from vm_babysitter.engine.beside import beside_mark
from vm_babysitter.engine.tools import Sight
from vm_babysitter.ports import Store


class Unchanged:
    """Tells so by what the file systems say of the images, which are not opened."""

    def __init__(self, sight: Sight, store: Store) -> None:
        self._sight = sight
        self._store = store

    def find(self, name: str) -> tuple[Chain, Point] | None:
        """Return chain and newest point of a VM that is off and still is what that point holds.

        None where it is not, or nothing tells.

        Raises:
            VmNotFound, HypervisorError.
        """
        vm = self._sight.hypervisor.outline(name)
        chains = self._store.chains(vm.uuid)
        chain = live_chain(chains)
        if chain is None or any(c.attempts for c in chains):
            return None
        point, current = chain.newest_intact, chain.current
        if point is None or current is None or access_of(vm.state) is not Access.OFF:
            return None
        old = current.evidence
        paths = {disk.target: disk.path for disk in vm.disks if disk.target in old.disks}
        try:
            now = {
                target: self._sight.offline.stamps([stamp.path for stamp in stamps])
                for target, stamps in old.disks.items()
            }
        except ImageUnreadable:
            return None
        new = Evidence(now, beside_mark(self._sight, vm.uuid))
        return (chain, point) if is_same(old, paths, new) else None

    def note(self, chain: Chain, point: Point, evidence: Evidence, at: datetime) -> None:
        """Note that a point is what the VM had at this time, when the evidence was seen last.

        Raises:
            StoreFailed.
        """
        if is_settled(evidence, at):
            self._store.note_current(
                point.vm_uuid, chain, Current(point.seq, point.nonce, at, evidence)
            )

    def note_again(self, chain: Chain, point: Point, now: datetime) -> None:
        """Note that what was found before is still so.

        Raises:
            StoreFailed.
        """
        if chain.current is not None:
            current = replace(chain.current, as_of=now)
            self._store.note_current(point.vm_uuid, chain, current)


def adds_nothing(new: Point, plan: BackupPlan) -> bool:
    """Whether a point would hold nothing that its parent does not hold.

    Not where it would be the first to tell of a bitmap, or has something to tell.
    """
    old = plan.parent
    if old is None or new.seq != old.seq + 1 or new.checkpoint is not None:
        return False
    if not set(new.warnings) <= set(old.warnings):
        return False
    beside = (old.files, old.autostart) == (new.files, new.autostart)
    same_disks = [d.target for d in old.disks] == [d.target for d in new.disks]
    return beside and same_disks and all(map(_adds_nothing, old.disks, new.disks))


def _adds_nothing(old: PointDisk, new: PointDisk) -> bool:
    """Whether a disk is what it was; one that grew or shrank is not, though nothing is stored."""
    same_size = old.virtual_size == new.virtual_size
    stored = new.method is Method.FULL or new.written_bytes or new.zeroed_bytes
    return same_size and not stored
