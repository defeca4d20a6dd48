"""Restore points as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.render import table
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import StoredVm
from vm_babysitter.views.points import current_as_of, stored_bytes


def points_text(vms: Sequence[tuple[StoredVm, Sequence[Chain]]]) -> str:
    """List the restore points of VMs."""
    rows = []
    for vm, chains in vms:
        for chain in chains:
            broken = chain.broken
            for stored in chain.points:
                point = stored.point
                state = broken.get(point.seq) or _chain_words(chain, point)
                rows.append((*_point_columns(vm, chain, point), state))
            rows += [
                (_name(vm), point_name(chain, u.seq), "-", "-", "-", f"damaged: {u.problem}")
                for u in chain.unreadable
            ]
    if not rows:
        return "There is no restore point."
    rows.sort(key=lambda row: (row[0], row[1]))
    return table(("VM", "POINT", "TAKEN (UTC)", "KIND", "STORED", "STATE"), rows)


def _chain_words(chain: Chain, point: Point) -> str:
    if chain.why:
        return "archived"
    until = current_as_of(chain, point)
    return "" if until is None else f"unchanged until {until:%Y-%m-%d %H:%M:%S}"


def _name(vm: StoredVm) -> str:
    return vm.names[-1]


def _point_columns(vm: StoredVm, chain: Chain, point: Point) -> tuple[str, str, str, str, str]:
    taken = f"{point.taken:%Y-%m-%d %H:%M:%S}"
    kind = "full" if point.level == "full" else "increment"
    return _name(vm), point_name(chain, point.seq), taken, kind, format_bytes(stored_bytes(point))
