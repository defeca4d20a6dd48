"""Finds VMs, chains and points in a store by the words of a user."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vm_babysitter.domain.chain import Chain, live_chain
from vm_babysitter.domain.errors import Damaged, InvalidInput, PointNotFound, VmNotFound
from vm_babysitter.domain.point import Point, PointDisk
from vm_babysitter.ports import Store, StoredVm

LATEST = "latest"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """A restore point with the chain it lies in."""

    vm: StoredVm
    chain: Chain
    point: Point

    @property
    def name(self) -> str:
        """As a user writes it: ``<chain>/<seq>``."""
        return point_name(self.chain, self.point.seq)

    @property
    def lineage(self) -> tuple[Point, ...]:
        """The point and all it builds on, newest first."""
        return self.chain.lineage(self.point.seq)

    def layers(self, target: str) -> tuple[tuple[Point, PointDisk], ...]:
        """The images that a disk of this point is made of, newest first."""
        return self.chain.layers(self.point.seq, target)


def point_name(chain: Chain, seq: int) -> str:
    """Return how a user names a point: ``<chain>/<seq>``."""
    return f"{chain.directory}/{seq:06d}"


def find_vm(store: Store, name: str) -> StoredVm:
    """Return a VM with backups by its UUID, its present name or one it had.

    Where the folder of another VM cannot be read, only by its UUID: that one may be called so.

    Raises:
        VmNotFound: none.
        InvalidInput: a name that several VMs have, or had.
        UnsupportedFormat, StoreFailed.
    """
    known = store.vm(name) if _UUID.fullmatch(name) else None
    if known is not None:
        return known
    vms = store.vms()
    for matches in (
        [vm for vm in vms if vm.uuid == name],
        [vm for vm in vms if vm.names[-1:] == (name,)],
        [vm for vm in vms if name in vm.names],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            uuids = ", ".join(vm.uuid for vm in matches)
            raise InvalidInput("VM", name, "is the name of several VMs", f"Give a UUID: {uuids}.")
    raise VmNotFound(name)


def find_point(store: Store, vm_name: str, wanted: str) -> FoundPoint:
    """Return the point that ``<chain>/<seq>`` or ``latest`` names.

    Raises:
        VmNotFound, PointNotFound, InvalidInput.
        Damaged: it is there and its manifest cannot be read.
    """
    vm = find_vm(store, vm_name)
    chains = store.chains(vm.uuid)
    if wanted == LATEST:
        return _latest(vm, chains, vm_name)
    directory, slash, number = wanted.partition("/")
    if not slash or not _NUMBER.fullmatch(number):
        raise InvalidInput(
            "POINT",
            wanted,
            "is no name of a restore point",
            f"Write <series>/<number> or {LATEST}.",
        )
    for chain in chains:
        if chain.directory == directory:
            found = _in_chain(vm, chain, int(number))
            if found is not None:
                return found
    raise PointNotFound(vm_name, wanted)


def _latest(vm: StoredVm, chains: Sequence[Chain], vm_name: str) -> FoundPoint:
    """Return the newest point by order, not by time: a clock may have been wrong."""
    chain = live_chain(chains) or max(
        (c for c in chains if c.points), key=lambda c: (c.created, c.directory), default=None
    )
    if chain is None or not chain.points:
        raise PointNotFound(vm_name, LATEST)
    newest = max(chain.points, key=lambda stored: stored.point.seq)
    found = FoundPoint(vm, chain, newest.point)
    for unreadable in chain.unreadable:
        if unreadable.seq > newest.point.seq and not unreadable.unfinished:
            path = f"{vm.directory}/{chain.directory}/{unreadable.directory}"
            way_out = f"The newest restore point that can be read is {found.name}."
            raise Damaged(path, unreadable.problem, way_out)
    return found


def _in_chain(vm: StoredVm, chain: Chain, seq: int) -> FoundPoint | None:
    stored = chain.find(seq)
    if stored is not None:
        return FoundPoint(vm, chain, stored.point)
    for unreadable in chain.unreadable:
        if unreadable.seq == seq:
            path = f"{vm.directory}/{chain.directory}/{unreadable.directory}"
            raise Damaged(path, unreadable.problem)
    return None
