"""Diagnoses and repairs as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.colours import by_health
from vm_babysitter.cli.render import table
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import Exit
from vm_babysitter.domain.findings import Code, Finding, Weight
from vm_babysitter.domain.repair_plan import By, Step, StepKind
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.views import HealthView, RepairView

HEALTH_WORDS = {
    Health.GOOD: "good",
    Health.REPAIRABLE: "repaired by the next backup",
    Health.RESTORE_ONLY: "to restore only; the next backup is a full one",
    Health.LOST: "LOST: none can be restored as a whole",
    Health.NONE: "no backup yet",
    Health.UNKNOWN: "not known: they cannot be read now",
}
_HEALTH_SENTENCES = {
    Health.GOOD: "The backups of {vm!r} are good.",
    Health.REPAIRABLE: "The backups of {vm!r} go on; what is wrong is repaired by itself.",
    Health.RESTORE_ONLY: (
        "The backups of {vm!r} can be restored, but nothing can build on them: the next one begins "
        "a new series."
    ),
    Health.LOST: "The backups of {vm!r} are lost: no restore point can be restored as a whole.",
    Health.NONE: "There is no backup of {vm!r} yet.",
    Health.UNKNOWN: "Whether the backups of {vm!r} are good cannot be told now.",
}
_NOT_KNOWN = "Whether there are backups of {vm!r} is not known."
_MANY = 8
_TOLD = frozenset({Code.UNDER_WAY, Code.NO_BACKUP})
"""Notes without which a status would leave out what goes on just now."""


def diagnosis_text(view: HealthView, suggest: Suggest) -> str:
    """Say whether the backups of a VM are good, what is wrong, what is done, and what is lost."""
    sentence = _NOT_KNOWN if view.health is None else _HEALTH_SENTENCES[view.health]
    lines = [by_health(view.health, sentence.format(vm=view.vm))]
    for finding in view.findings:
        lines += _finding_lines(finding, suggest)
    steps = [step for step in view.steps if step.kind is not StepKind.BACKUP]
    if steps:
        lines.append("What is done about it:")
        texts = [_step_text(step, view.vm, suggest) for step in steps]
        lines += [f"  {number}. {text}" for number, text in enumerate(texts, start=1)]
    if view.health is not None and (view.findings or view.lost):
        lines.append(_loss_text(view))
    return "\n".join(lines)


def _finding_lines(finding: Finding, suggest: Suggest) -> list[str]:
    lines = [f"  - {suggest.completed(finding.what)}"]
    shown = finding.evidence[:_MANY]
    lines += [f"      {piece}" for piece in shown]
    if len(finding.evidence) > len(shown):
        lines.append(f"      and {len(finding.evidence) - len(shown)} more")
    if finding.way_out:
        lines.append(f"      -> {suggest.completed(finding.way_out)}")
    return lines


def _step_text(step: Step, vm: str, suggest: Suggest) -> str:
    words = step.what
    if step.read_bytes:
        time = f", about {format_duration(step.seconds)}" if step.seconds >= 1 else ""
        words += f" (reads {format_bytes(step.read_bytes)}{time})"
    if step.loss:
        words += f"; lost by it: {step.loss}"
    if step.needs_consent:
        command = suggest.command("repair", vm, options=["--remove-lost"])
        words += f". Only if you say so: {command}"
    elif step.by is By.BACKUP:
        words += " (the next backup)"
    return words


def _loss_text(view: HealthView) -> str:
    waiting = [point.point for point in view.points if point.waits and not point.problem]
    if not view.lost and not waiting:
        return _nothing_lost(view)
    sentences = []
    if view.lost:
        sentences.append(f"Lost, as a whole: {_names(view.lost)}.")
    if waiting:
        only = "" if view.lost else "Nothing is known to be lost. "
        sentences.append(f"{only}Whole only once the above is done: {_names(waiting)}.")
    return "\n".join(sentences)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if names[_MANY:] else "")
    return f"{len(names)} restore {'point' if len(names) == 1 else 'points'}: {shown}"


def _nothing_lost(view: HealthView) -> str:
    if any(finding.code is Code.OUT_OF_REACH for finding in view.findings):
        return "Whether anything is lost cannot be told now."
    if any(finding.code is Code.UNREADABLE for finding in view.findings):
        return "Which restore points are lost cannot be told."
    if any(point.problem for point in view.points):
        return "No disk is lost."
    return "Nothing is lost."


def status_text(views: Sequence[HealthView], suggest: Suggest, *, known: bool = True) -> str:
    """Say of each VM how its backups are, then what is wrong with those that are not good.

    ``known`` is whether there is a backup folder to look into.
    """
    if not views:
        return "There is no VM, and no backup of one." if known else "There is no VM."
    rows = [
        (
            view.vm,
            "gone" if view.state is None else str(view.state),
            view.newest or "-",
            _health_words(view),
        )
        for view in views
    ]
    lines = [table(("VM", "STATE", "NEWEST POINT", "BACKUPS"), rows)]
    for view in views:
        if _worth_telling(view):
            lines += ["", diagnosis_text(view, suggest)]
    return "\n".join(lines)


def _health_words(view: HealthView) -> str:
    if view.health is None:
        return "not known: no backup folder"
    words = HEALTH_WORDS[view.health]
    lost = len(view.lost)
    if lost and view.health is not Health.LOST:
        words = f"{words}, {lost} lost"
    return by_health(view.health, words)


def _worth_telling(view: HealthView) -> bool:
    return any(
        finding.weight is not Weight.NOTE or finding.code in _TOLD for finding in view.findings
    )


def status_exit(views: Sequence[HealthView]) -> Exit:
    """Return how `status` ends: integrity if all of a VM is lost, warnings if all is not well.

    Points that were lost earlier, and that backups have gone on without, are no news.
    """
    if any(view.health is Health.LOST for view in views):
        return Exit.INTEGRITY
    wrong = any(
        view.health not in {Health.GOOD, Health.NONE}
        or any(finding.weight is Weight.PERSON for finding in view.findings)
        for view in views
    )
    return Exit.WARNINGS if wrong else Exit.OK


def repair_text(view: RepairView, suggest: Suggest) -> str:
    """Say what was repaired, and how the backups are now."""
    lines = [f"Done: {step.what}." for step in view.done]
    lines += [f"Not done yet: {step.what}." for step in view.left]
    lines += [f"Tried in vain, more is wrong: {step.what}." for step in view.failed]
    if not lines:
        lines = ["Nothing was to be repaired."]
    return "\n".join([*lines, diagnosis_text(view.after, suggest)])


def repair_exit(view: RepairView) -> Exit:
    """Return how `repair` ends: as `status` would, had it no more to tell than what is left."""
    if view.after.health is Health.LOST:
        return Exit.INTEGRITY
    troubled = view.left or view.failed or view.after.health is Health.UNKNOWN
    return Exit.WARNINGS if troubled else Exit.OK
