"""VMs and plans as text for people."""

from collections.abc import Sequence

from msgspec import UNSET

from vm_babysitter.cli.render import table
from vm_babysitter.cli.render_health import diagnosis_text
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.point import Method
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.views import PlanView, VmView

METHOD_WORDS = {
    Method.FULL: "read and stored as a whole",
    Method.BITMAP: "only what changed is read",
    Method.SCAN: "compared with the whole disk",
}


def vms_text(vms: Sequence[VmView]) -> str:
    """Say which VMs there are and what of each would be backed up."""
    if not vms:
        return "There is no persistent VM."
    rows = []
    for vm in vms:
        name, state = vm.name, str(vm.state)
        for disk in vm.disks:
            size = format_bytes(disk.virtual_size) if disk.virtual_size else "-"
            rows.append((name, state, disk.target, size, f"{disk.verdict}: {disk.reason}"))
            name = state = ""
        if not vm.disks:
            rows.append((name, state, "-", "-", "has no disk"))
    return table(("VM", "STATE", "DISK", "SIZE", "BACKUP"), rows)


def plan_text(view: PlanView, suggest: Suggest) -> str:
    """Say how the backups are, then what the next one would do and why."""
    lines = []
    if view.diagnosis.points or view.diagnosis.findings:
        lines.append(diagnosis_text(view.diagnosis, suggest))
    if view.unchanged_since:
        lines.append(
            f"The next backup of {view.vm!r} has nothing to do: it is off and has not changed "
            f"since restore point {view.unchanged_since}."
        )
    if view.level is not None:
        lines.append(_next_text(view, suggest))
    return "\n".join(lines)


def _next_text(view: PlanView, suggest: Suggest) -> str:
    kind = "a full backup, in a new backup series" if view.new_chain is True else "an increment"
    lines = [f"The next backup of {view.vm!r} is {kind}:"]
    lines += [f"  {reason}" for reason in view.reasons or ()]
    lines += [f"  warning: {warning}" for warning in view.warnings or ()]
    lines += [f"  note: {note}" for note in view.notes or ()]
    lines += [f"  foreign: {thing}" for thing in view.foreign or ()]
    disks = view.disks or ()
    rows = [(d.target, _amount(d.read_bytes), METHOD_WORDS[d.method], d.reason) for d in disks]
    lines += [table(("DISK", "READS ABOUT", "HOW", "WHY"), rows), _cost_text(view)]
    lines += [
        f"Disk {d.target} can be converted so that only its changes are read, while the VM is off: "
        + suggest.command("convert", view.vm, d.target)
        for d in disks
        if d.convertible
    ]
    return "\n".join(lines)


def _amount(amount: int | None) -> str:
    return "not known yet" if amount is None else format_bytes(amount)


def _cost_text(view: PlanView) -> str:
    read = 0 if view.read_bytes is UNSET else view.read_bytes
    seconds = 0.0 if view.seconds is UNSET else view.seconds
    speed = 0 if view.bytes_per_second is UNSET else view.bytes_per_second
    least = "" if view.read_bytes_complete is True else "at least "
    assumed = f"assuming {speed / 1e6:.0f} MB/s"
    basis = "at the speed of the last backup" if view.speed_measured is True else assumed
    time = "less than a second" if seconds < 1 else f"about {format_duration(seconds)}"
    return f"It reads {least}about {format_bytes(read)}, which takes {time} ({basis})."
