"""Restore points as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.colours import bad
from vm_babysitter.cli.render import table, vm_labels
from vm_babysitter.domain.chain import ChainState
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.views import PointView
from vm_babysitter.views.points import stored_bytes


def points_text(points: Sequence[PointView]) -> str:
    """List restore points."""
    if not points:
        return "There is no restore point."
    labels = vm_labels((view.vm, view.uuid) for view in points)
    ordered = sorted(points, key=lambda view: (labels[view.uuid], view.point))
    rows = [(labels[view.uuid], view.point, *_cells(view)) for view in ordered]
    return table(("VM", "POINT", "TAKEN (UTC)", "KIND", "STORED", "STATE"), rows)


def _cells(view: PointView) -> tuple[str, ...]:
    point = view.manifest
    if point is None:
        return "-", "-", "-", bad(f"damaged: {view.problem}")
    taken = f"{point.taken:%Y-%m-%d %H:%M:%S}"
    kind = "full" if point.level == "full" else "increment"
    stored = format_bytes(stored_bytes(point))
    return taken, kind, stored, _state(view)


def _state(view: PointView) -> str:
    if view.problem:
        return bad(view.problem)
    if view.chain_state is ChainState.ARCHIVED:
        return "archived"
    until = view.current_as_of
    return "" if until is None else f"unchanged until {until:%Y-%m-%d %H:%M:%S}"
