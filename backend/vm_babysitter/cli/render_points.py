"""Restore points as text for people and as plain data for programs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from vm_babysitter.cli.render import stored_bytes, table
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import StoredVm


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


def points_data(vms: Sequence[tuple[StoredVm, Sequence[Chain]]]) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "vm": vm.names[-1],
            "uuid": vm.uuid,
            "point": point_name(chain, stored.point.seq),
            "chain_state": chain.state,
            "problem": chain.broken.get(stored.point.seq, ""),
            "current_as_of": _current_as_of(chain, stored.point),
            "manifest": msgspec.to_builtins(stored.point),
        }
        for vm, chains in vms
        for chain in chains
        for stored in chain.points
    ] + [
        {
            "vm": vm.names[-1],
            "uuid": vm.uuid,
            "point": point_name(chain, unreadable.seq),
            "chain_state": chain.state,
            "problem": unreadable.problem,
            "current_as_of": None,
            "manifest": None,
        }
        for vm, chains in vms
        for chain in chains
        for unreadable in chain.unreadable
    ]


def _current_as_of(chain: Chain, point: Point) -> datetime | None:
    current = chain.current
    return None if current is None or current.seq != point.seq else current.as_of


def _chain_words(chain: Chain, point: Point) -> str:
    if chain.why:
        return "archived"
    until = _current_as_of(chain, point)
    return "" if until is None else f"unchanged until {until:%Y-%m-%d %H:%M:%S}"


def _name(vm: StoredVm) -> str:
    return vm.names[-1]


def _point_columns(vm: StoredVm, chain: Chain, point: Point) -> tuple[str, str, str, str, str]:
    taken = f"{point.taken:%Y-%m-%d %H:%M:%S}"
    kind = "full" if point.level == "full" else "increment"
    return _name(vm), point_name(chain, point.seq), taken, kind, format_bytes(stored_bytes(point))
