"""Chains and restore points."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from vm_babysitter.domain.chain import Chain, ChainState
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.ports import StoredVm


def stored_bytes(point: Point) -> int:
    """Return what the content takes in the backup folder, tables left aside where they can be."""
    return sum(
        min(d.file_size, d.written_bytes) if d.compression else d.written_bytes for d in point.disks
    )


def current_as_of(chain: Chain, point: Point) -> datetime | None:
    """Return until when a VM that is off is known to be as this point, None if nothing tells."""
    current = chain.current
    return None if current is None or current.seq != point.seq else current.as_of


@dataclass(frozen=True, slots=True)
class PointView:
    """A restore point."""

    vm: str
    uuid: str
    point: str
    """``<chain>/<seq>``."""
    chain_state: ChainState
    problem: str
    """Why it cannot be restored as a whole; empty if it can, as far as a look tells."""
    current_as_of: datetime | None
    """Until when the VM, which is off, is known to be as this point."""
    manifest: Point | None
    """None if it cannot be read."""

    @classmethod
    def all(cls, vms: Iterable[tuple[StoredVm, Sequence[Chain]]]) -> list[Self]:
        """Show the restore points of VMs, those whose manifests cannot be read last."""
        chains = [(vm, chain) for vm, chains in vms for chain in chains]
        readable = [view for vm, chain in chains for view in cls._readable(vm, chain)]
        return readable + [view for vm, chain in chains for view in cls._unreadable(vm, chain)]

    @classmethod
    def _readable(cls, vm: StoredVm, chain: Chain) -> list[Self]:
        broken = chain.broken
        return [
            cls(
                vm=vm.names[-1],
                uuid=vm.uuid,
                point=point_name(chain, stored.point.seq),
                chain_state=chain.state,
                problem=broken.get(stored.point.seq, ""),
                current_as_of=current_as_of(chain, stored.point),
                manifest=stored.point,
            )
            for stored in chain.points
        ]

    @classmethod
    def _unreadable(cls, vm: StoredVm, chain: Chain) -> list[Self]:
        return [
            cls(vm.names[-1], vm.uuid, point_name(chain, u.seq), chain.state, u.problem, None, None)
            for u in chain.unreadable
        ]


@dataclass(frozen=True, slots=True)
class ChainView:
    """A chain: restore points that build on each other."""

    vm: str
    uuid: str
    chain: str
    """Its directory, the first part of the names of its points."""
    id: str
    state: ChainState
    why: str
    """Why it is archived; empty for a live one."""
    created: datetime
    points: int
    damaged: int
    """How many of them cannot be restored as a whole."""
    oldest: datetime | None
    """The moment that its first point brings back."""
    newest: datetime | None
    stored_bytes: int
    """What the content of all its points takes."""

    @classmethod
    def of(cls, vm: StoredVm, chain: Chain) -> Self:
        """Show a chain of a VM."""
        points = [stored.point for stored in chain.points]
        taken = sorted(point.taken for point in points)
        return cls(
            vm=vm.names[-1],
            uuid=vm.uuid,
            chain=chain.directory,
            id=chain.id,
            state=chain.state,
            why=chain.why,
            created=chain.created,
            points=len(points) + len(chain.unreadable),
            damaged=len(chain.broken) + len(chain.unreadable),
            oldest=taken[0] if taken else None,
            newest=taken[-1] if taken else None,
            stored_bytes=sum(map(stored_bytes, points)),
        )
