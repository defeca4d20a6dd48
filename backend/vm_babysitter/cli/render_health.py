"""Diagnoses and repairs as text for people."""

from collections.abc import Sequence

from vm_babysitter.cli.render import table
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.diagnosis import Diagnosis, Health, PointHealth
from vm_babysitter.domain.errors import Exit
from vm_babysitter.domain.findings import Code, Finding, Weight
from vm_babysitter.domain.repair_plan import By, RepairPlan, Step, StepKind
from vm_babysitter.engine.repair import Repaired
from vm_babysitter.lib.units import format_bytes, format_duration

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


def diagnosis_text(
    diagnosis: Diagnosis, plan: RepairPlan, suggest: Suggest, *, known: bool = True
) -> str:
    """Say whether the backups of a VM are good, what is wrong, what is done, and what is lost.

    ``known`` is whether there is a backup folder to look into.
    """
    facts = diagnosis.facts
    sentence = _HEALTH_SENTENCES[diagnosis.health] if known else _NOT_KNOWN
    lines = [sentence.format(vm=facts.name)]
    for finding in diagnosis.findings:
        lines += _finding_lines(finding, suggest)
    steps = [step for step in plan.steps if step.kind is not StepKind.BACKUP]
    if steps:
        lines.append("What is done about it:")
        texts = [_step_text(step, facts.name, suggest) for step in steps]
        lines += [f"  {number}. {text}" for number, text in enumerate(texts, start=1)]
    if known and (diagnosis.findings or diagnosis.lost):
        lines.append(_loss_text(diagnosis))
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


def _loss_text(diagnosis: Diagnosis) -> str:
    waiting = [point for point in diagnosis.points if point.waits and not point.problem]
    if not diagnosis.lost and not waiting:
        return _nothing_lost(diagnosis)
    sentences = []
    if diagnosis.lost:
        sentences.append(f"Lost, as a whole: {_names(diagnosis.lost)}.")
    if waiting:
        only = "" if diagnosis.lost else "Nothing is known to be lost. "
        sentences.append(f"{only}Whole only once the above is done: {_names(waiting)}.")
    return "\n".join(sentences)


def _names(points: Sequence[PointHealth]) -> str:
    names = [point.name for point in points]
    shown = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if names[_MANY:] else "")
    return f"{len(names)} restore {'point' if len(names) == 1 else 'points'}: {shown}"


def _nothing_lost(diagnosis: Diagnosis) -> str:
    if any(finding.code is Code.OUT_OF_REACH for finding in diagnosis.findings):
        return "Whether anything is lost cannot be told now."
    if any(finding.code is Code.UNREADABLE for finding in diagnosis.findings):
        return "Which restore points are lost cannot be told."
    if any(point.problem for point in diagnosis.points):
        return "No disk is lost."
    return "Nothing is lost."


def status_text(
    found: Sequence[tuple[Diagnosis, RepairPlan]], suggest: Suggest, *, known: bool = True
) -> str:
    """Say of each VM how its backups are, then what is wrong with those that are not good.

    ``known`` is whether there is a backup folder to look into.
    """
    if not found:
        return "There is no VM, and no backup of one." if known else "There is no VM."
    rows = []
    for diagnosis, _ in found:
        vm = diagnosis.facts.vm
        state = "gone" if vm is None else str(vm.state)
        newest = "-" if diagnosis.newest is None else diagnosis.newest.name
        words = _health_words(diagnosis) if known else "not known: no backup folder"
        rows.append((diagnosis.facts.name, state, newest, words))
    lines = [table(("VM", "STATE", "NEWEST POINT", "BACKUPS"), rows)]
    for diagnosis, plan in found:
        if _worth_telling(diagnosis):
            lines += ["", diagnosis_text(diagnosis, plan, suggest, known=known)]
    return "\n".join(lines)


def _health_words(diagnosis: Diagnosis) -> str:
    words = HEALTH_WORDS[diagnosis.health]
    lost = len(diagnosis.lost)
    return f"{words}, {lost} lost" if lost and diagnosis.health is not Health.LOST else words


def _worth_telling(diagnosis: Diagnosis) -> bool:
    return any(
        finding.weight is not Weight.NOTE or finding.code in _TOLD for finding in diagnosis.findings
    )


def status_exit(found: Sequence[Diagnosis]) -> Exit:
    """Return how `status` ends: integrity if all of a VM is lost, warnings if all is not well.

    Points that were lost earlier, and that backups have gone on without, are no news.
    """
    if any(diagnosis.health is Health.LOST for diagnosis in found):
        return Exit.INTEGRITY
    wrong = any(
        diagnosis.health not in {Health.GOOD, Health.NONE}
        or any(finding.weight is Weight.PERSON for finding in diagnosis.findings)
        for diagnosis in found
    )
    return Exit.WARNINGS if wrong else Exit.OK


def repair_text(result: Repaired, suggest: Suggest) -> str:
    """Say what was repaired, and how the backups are now."""
    lines = [f"Done: {step.what}." for step in result.done]
    lines += [f"Not done yet: {step.what}." for step in result.left]
    lines += [f"Tried in vain, more is wrong: {step.what}." for step in result.failed]
    if not lines:
        lines = ["Nothing was to be repaired."]
    return "\n".join([*lines, diagnosis_text(result.after.diagnosis, result.plan, suggest)])


def repair_exit(result: Repaired) -> Exit:
    """Return how `repair` ends: as `status` would, had it no more to tell than what is left."""
    after = result.after.diagnosis
    if after.health is Health.LOST:
        return Exit.INTEGRITY
    troubled = result.left or result.failed or after.health is Health.UNKNOWN
    return Exit.WARNINGS if troubled else Exit.OK
