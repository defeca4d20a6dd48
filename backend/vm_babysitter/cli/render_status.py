"""How everything is, on one screen."""

from collections.abc import Sequence

from vm_babysitter.cli.colours import bad, by_health, good, plain, warning
from vm_babysitter.cli.render import local, shortened, table, vm_labels
from vm_babysitter.cli.render_jobs import doing
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import Exit
from vm_babysitter.views import (
    JobView,
    NextRunView,
    PartState,
    PartView,
    ScheduleView,
    StatusView,
    VmStatusView,
)

_FEW = 3
_TODO = 6
_LEAST = 4
"""Lines that are always there for VMs."""
_FINE = frozenset({Health.GOOD, Health.NONE})


def status_text(view: StatusView, suggest: Suggest, height: int | None = None) -> str:
    """Say whether everything is fine, what there is to do, what runs, what is next, then each VM.

    ``height`` is that of the screen, in lines; None where all may be told.
    """
    lines = [(good if view.fine else warning)(view.sentence)]
    lines += _todo(view, suggest, None if height is None else _TODO)
    lines += _jobs("Now", view.running)
    lines += _jobs("Queued", view.queued)
    lines += [_next(view.next)]
    if view.vms:
        room = None if height is None else max(_LEAST, height - len(lines) - 3)
        lines += ["", _vms(view.vms, room)]
    return "\n".join(lines)


def status_exit(view: StatusView) -> Exit:
    """Return how `status` ends, as for the health of all VMs."""
    if any(vm.backed_up and vm.health is Health.LOST for vm in view.vms):
        return Exit.INTEGRITY
    return Exit.OK if view.fine else Exit.WARNINGS


_PARTS = {
    PartState.OK: good,
    PartState.WAITS: plain,
    PartState.WARNING: warning,
    PartState.FAILED: bad,
}


def self_check_text(parts: Sequence[PartView]) -> str:
    """One line for each thing: its state, a tab, what it is, a tab, and what is to be said."""
    return "\n".join(
        "\t".join((_PARTS[part.state](part.state), part.name, _in_a_line(part))) for part in parts
    )


def _in_a_line(part: PartView) -> str:
    return " ".join(f"{part.text} {part.hint}".split())


def schedules_text(schedules: Sequence[ScheduleView]) -> str:
    """List the schedules, and what is odd about them."""
    if not schedules:
        return "Nothing is done by schedule."
    rows = [
        (
            each.name,
            each.kind,
            each.words,
            ", ".join(each.vms) or "all that are backed up",
            local(each.last),
            local(each.next) if each.enabled else "off",
        )
        for each in schedules
    ]
    lines = [table(("SCHEDULE", "KIND", "WHEN", "VMS", "LAST", "NEXT"), rows)]
    lines += [warning(f"{each.name}: {text}") for each in schedules for text in each.warnings]
    return "\n".join(lines)


def _todo(view: StatusView, suggest: Suggest, room: int | None) -> list[str]:
    if not view.todo:
        return []
    told = []
    for todo in view.todo:
        if todo.what != view.sentence:
            told.append(f"  - {bad(todo.what)}")
        if todo.hint:
            told.append(f"      -> {suggest.completed(todo.hint)}")
    if room is not None:
        command = suggest.command("status")
        told = shortened(told, room, f"lines; `{command} | less` shows all")
    return ["To do:", *told]


def _jobs(when: str, jobs: Sequence[JobView]) -> list[str]:
    told = [f"job {job.id}, {job.kind} of {job.vm!r}: {doing(job)}" for job in jobs]
    return [f"{when + ':':8}{line}" for line in shortened(told, _FEW, "jobs")]


def _next(runs: Sequence[NextRunView]) -> str:
    if not runs:
        return "Next:   nothing is scheduled"
    told = [f"{run.schedule} ({run.kind}) {local(run.at)}" for run in runs]
    return f"Next:   {'; '.join(shortened(told, _FEW, 'schedules'))}"


def _vms(vms: Sequence[VmStatusView], room: int | None) -> str:
    ordered = vms if room is None or len(vms) <= room else sorted(vms, key=_is_fine)
    labels = vm_labels((vm.vm, vm.uuid) for vm in vms)
    rows = [
        (
            labels[vm.uuid],
            "gone" if vm.state is None else str(vm.state),
            local(vm.current_as_of or vm.newest_taken),
            by_health(vm.health, vm.words) if vm.backed_up else f"not backed up: {vm.why_not}",
        )
        for vm in ordered
    ]
    lines = table(("VM", "STATE", "BACKED UP", "BACKUPS"), rows).split("\n")
    return "\n".join(lines if room is None else shortened(lines, room + 1, "VMs"))


def _is_fine(vm: VmStatusView) -> bool:
    return not vm.backed_up or vm.health in _FINE
