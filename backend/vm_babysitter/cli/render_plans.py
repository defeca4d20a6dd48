"""VMs and plans as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.render import table
from vm_babysitter.cli.render_health import diagnosis_text
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.cost import Cost
from vm_babysitter.domain.point import Method, Point
from vm_babysitter.domain.repair_plan import plan_repair
from vm_babysitter.domain.vm import Vm, judge_disk
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.engine.planning import Planned
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.views.plans import cost_of

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
    plan, cost = planned.plan, cost_of(planned)
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


def _amount(amount: int | None) -> str:
    return "not known yet" if amount is None else format_bytes(amount)


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
