"""VMs and plans as text for people and as plain data for programs."""

from collections.abc import Sequence
from typing import Any

import msgspec

from vm_babysitter.cli.render import table
from vm_babysitter.cli.render_health import diagnosis_data, diagnosis_text
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.cost import Cost, estimate
from vm_babysitter.domain.point import Method, Point
from vm_babysitter.domain.repair_plan import plan_repair
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import Vm, judge_disk
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.engine.planning import Planned
from vm_babysitter.lib.units import format_bytes, format_duration

METHOD_WORDS = {
    Method.FULL: "read and stored as a whole",
    Method.BITMAP: "only what changed is read",
    Method.SCAN: "compared with the whole disk",
}


def vms_text(vms: Sequence[Vm]) -> str:
    """Say which VMs there are and what of each would be backed up."""
    if not vms:
        return "There is no persistent VM."
    rows = []
    for vm in vms:
        name, state = vm.name, str(vm.state)
        for verdict in map(judge_disk, vm.disks):
            size = format_bytes(verdict.disk.virtual_size) if verdict.disk.virtual_size else "-"
            words = f"{verdict.verdict}: {verdict.reason}"
            rows.append((name, state, verdict.disk.target, size, words))
            name = state = ""
        if not vm.disks:
            rows.append((name, state, "-", "-", "has no disk"))
    return table(("VM", "STATE", "DISK", "SIZE", "BACKUP"), rows)


def vms_data(vms: Sequence[Vm]) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "name": vm.name,
            "uuid": vm.uuid,
            "state": vm.state,
            "disks": [
                {
                    **msgspec.to_builtins(verdict.disk),
                    "verdict": verdict.verdict,
                    "reason": verdict.reason,
                }
                for verdict in map(judge_disk, vm.disks)
            ],
        }
        for vm in vms
    ]


def plan_text(found: Diagnosed, suggest: Suggest) -> str:
    """Say how the backups are, then what the next one would do and why."""
    diagnosis = found.diagnosis
    lines = []
    if diagnosis.points or diagnosis.findings:
        lines.append(diagnosis_text(diagnosis, plan_repair(diagnosis), suggest))
    if found.current is not None:
        lines.append(_unchanged_text(*found.current))
    if found.planned is not None:
        lines.append(_next_text(diagnosis.facts.name, found.planned, suggest))
    return "\n".join(lines)


def _next_text(vm: str, planned: Planned, suggest: Suggest) -> str:
    plan, cost = planned.plan, _cost(planned)
    kind = "a full backup, in a new backup series" if plan.new_chain else "an increment"
    lines = [f"The next backup of {vm!r} is {kind}:"]
    lines += [f"  {reason}" for reason in plan.reasons]
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    lines += [f"  note: {note}" for note in plan.notes]
    lines += [f"  foreign: {thing}" for thing in plan.foreign]
    rows = [
        (d.target, _amount(c.read_bytes), METHOD_WORDS[d.method], d.reason)
        for d, c in zip(plan.disks, cost.disks, strict=True)
    ]
    lines += [table(("DISK", "READS ABOUT", "HOW", "WHY"), rows), _cost_text(cost)]
    lines += [
        f"Disk {c.target} can be converted so that only its changes are read, while the VM is off: "
        + suggest.command("convert", vm, c.target)
        for c in cost.disks
        if c.convertible
    ]
    return "\n".join(lines)


def plan_data(found: Diagnosed) -> dict[str, Any]:
    """Return the same as plain data."""
    diagnosis = found.diagnosis
    data = {"diagnosis": diagnosis_data(diagnosis, plan_repair(diagnosis))}
    if found.planned is None:
        since = diagnosis.facts.current or None
        next_backup: dict[str, Any] = {"level": None, "unchanged_since": since}
    else:
        next_backup = _next_data(found.planned)
    return {"vm": diagnosis.facts.name, "uuid": diagnosis.facts.uuid, **next_backup, **data}


def _next_data(planned: Planned) -> dict[str, Any]:
    plan, cost = planned.plan, _cost(planned)
    return {
        "level": plan.level,
        "new_chain": plan.new_chain,
        "parent": None if plan.parent is None else plan.parent.seq,
        "reasons": list(plan.reasons),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
        "read_bytes": cost.read_bytes,
        "read_bytes_complete": cost.complete,
        "seconds": round(cost.seconds, 1),
        "bytes_per_second": round(cost.bytes_per_second),
        "speed_measured": cost.measured,
        "foreign": list(plan.foreign),
        "disks": [
            {
                "target": d.target,
                "method": d.method,
                "reason": d.reason,
                "since": None if d.since is None else d.since.name,
                "tracked": d.track,
                "read_bytes": c.read_bytes,
                "convertible": c.convertible,
            }
            for d, c in zip(plan.disks, cost.disks, strict=True)
        ],
    }


def _amount(amount: int | None) -> str:
    return "not known yet" if amount is None else format_bytes(amount)


def _cost(planned: Planned) -> Cost:
    return estimate(
        planned.plan, planned.disks, planned.states, planned.chain, reread_runs=DEFAULT_RUNS
    )


def _cost_text(cost: Cost) -> str:
    least = "" if cost.complete else "at least "
    assumed = f"assuming {cost.bytes_per_second / 1e6:.0f} MB/s"
    speed = "at the speed of the last backup" if cost.measured else assumed
    amount, time = format_bytes(cost.read_bytes), f"about {format_duration(cost.seconds)}"
    if cost.seconds < 1:
        time = "less than a second"
    return f"It reads {least}about {amount}, which takes {time} ({speed})."


def _unchanged_text(chain: Chain, point: Point) -> str:
    return (
        f"The next backup of {point.vm_name!r} has nothing to do: it is off and has not changed "
        f"since restore point {point_name(chain, point.seq)}."
    )
