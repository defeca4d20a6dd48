"""What was done, as text for people."""

from collections.abc import Sequence

import click

from vm_babysitter.cli.colours import bad, good, warning
from vm_babysitter.cli.render import stored_text
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.engine.conversion import Converted
from vm_babysitter.engine.release import Released
from vm_babysitter.engine.verify import Verified
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.views import BackupView, RestoreView


def backup_text(result: BackupView) -> str:
    """Say what a backup came to."""
    point = result.manifest
    if result.unchanged:
        lines = [
            f"{point.vm_name!r} is off and has not changed: restore point "
            f"{result.point} is current, no new one was needed."
        ]
        return "\n".join([*lines, *_backup_warnings(result)])
    read = sum(d.read_bytes for d in point.disks)
    zeroed = sum(d.zeroed_bytes for d in point.disks)
    emptied = f"{format_bytes(zeroed)} have become zero, " if zeroed else ""
    kind = "full backup" if point.level == "full" else "increment"
    state = " (off)" if point.off else ""
    lines = [
        f"Restore point {result.point} of {point.vm_name!r}{state} is complete: "
        f"{kind}, {format_bytes(read)} read, {stored_text(point)}, {emptied}"
        f"{format_duration(result.seconds)}."
    ]
    if not point.quiesced:
        lines.append(f"Not paused cleanly for the backup: {point.quiesce_note}.")
    lines += [f"Note: {note}." for note in point.notes]
    lines += [warning(f"Warning: {each}.") for each in point.warnings]
    return "\n".join([*lines, *_backup_warnings(result)])


def _backup_warnings(result: BackupView) -> list[str]:
    lines = []
    if result.vm_resumed:
        words = "QEMU had paused the VM for a while: a disk error, or too little space."
        lines.append(warning(f"Warning: {words}"))
    if result.left:
        words = f"cleaning up is left to the next backup. {result.left}"
        lines.append(warning(f"Warning: {words}"))
    return lines


def verify_text(results: Sequence[Verified]) -> str:
    """Say what was found of each point."""
    lines = []
    for result in results:
        if result.good:
            words = "data correct" if result.content else "files complete"
            lines.append(f"{result.point}  {good('good')}: {words}")
        else:
            lines += [f"{result.point}  {bad('BAD')}: {problem}" for problem in result.problems]
    return "\n".join(lines)


def restore_text(result: RestoreView) -> str:
    """Say what was restored."""
    lines = [f"Restored {result.point}: {format_bytes(result.content_bytes)} of content, checked."]
    lines += [f"  {click.format_filename(path)}" for path in result.files]
    lines += [f"Note: {note}." for note in result.notes]
    return "\n".join(lines)


def convert_text(result: Converted, suggest: Suggest) -> str:
    """Say what image a disk has now, where the other one is, and how to go back."""
    image, kept = click.format_filename(result.image), click.format_filename(result.kept)
    if result.undone:
        return (
            f"Disk {result.disk!r} of VM {result.vm!r} has its raw image {image} again.\n"
            f"The qcow2 image {kept} is kept. Delete it, and the note "
            f"{click.format_filename(result.note)}, when you no longer need it."
        )
    amount = f": {format_bytes(result.content_bytes)} of content" if result.content_bytes else ""
    return (
        f"Disk {result.disk!r} of VM {result.vm!r} is now qcow2{amount}, compared with the raw "
        f"image.\n  {image}\n"
        f"The raw image is kept until you delete it, best when the VM has run well for a while:\n"
        f"  {kept}\n"
        f"To go back: {suggest.command('convert', result.vm, result.disk, options=['--undo'])}"
    )


def release_text(result: Released) -> str:
    """Say what giving a VM back came to."""
    lines = [f"VM {result.vm!r}: {result.summary}"]
    lines += [f"Note: {note}" for note in result.notes]
    lines += [warning(f"Warning: {each}") for each in result.left]
    return "\n".join(lines)
