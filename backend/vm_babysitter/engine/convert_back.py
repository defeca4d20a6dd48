"""Gives a converted disk its raw image back, if nothing the VM wrote is lost by it."""

import shlex
from pathlib import Path

from vm_babysitter.domain.conversion import (
    NEW_FORMAT,
    OLD_FORMAT,
    ImageFile,
    Note,
    Stage,
    new_name,
    note_path,
)
from vm_babysitter.domain.vm import Disk, Vm
from vm_babysitter.engine.conversion import Converted, ConvertTools, Guard, Switch, claimed_disk

_LOSE_CHANGES = ("vm-babysitter", "convert", "--undo", "--lose-changes")


class ConvertBack:
    """Undoes conversions."""

    def __init__(self, tools: ConvertTools) -> None:
        self._tools = tools
        self._files = tools.files

    def run(self, name: str, target: str, *, lose_changes: bool = False) -> Converted:
        """Have the definition of a VM name the raw image of a disk again; the qcow2 is kept.

        Args:
            name: name or UUID of the VM.
            target: the disk, by its target.
            lose_changes: do so even if the VM has written since the conversion.

        Raises:
            VmNotFound, InvalidInput: the VM, the disk.
            NotConverted, Busy, Cancelled: the VM has the image it had.
            ConversionFailed, HypervisorError, HypervisorUnreachable: it has one or the other,
                and both are whole.
        """
        self._tools.observer.step("look")
        with claimed_disk(self._tools, name, target) as (vm, disk):
            guard = Guard(self._tools, vm, disk)
            switch = Switch(self._tools, guard)
            note = self._note(vm, disk, guard)
            if disk.source == note.old_source:  # killed before it was put down
                return _result(switch.mark_undone(note))
            guard.check_vm()
            old = guard.check_file(note.old_source, note.old_path)
            new = guard.check_file(note.new_source, note.new_path)
            guard.check_found(note.old_source, note.old_path, old)
            guard.check_unused(note.new_path, new)
            guard.check_unused(note.old_path, old)
            if not lose_changes and not self._same(note, old, new):
                command = shlex.join([*_LOSE_CHANGES, "--", name, target])
                raise guard.refuse(
                    f"since its conversion{_since(note)} it was written to; all that would be lost "
                    f"with the old image {note.old_source!r}",
                    "Leave it as it is, or give up what was written since: "
                    f"`{command}`. The qcow2 image is kept either way.",
                )
            if old.size < note.old.size:
                raise guard.refuse(
                    f"its old image {note.old_source!r} is shorter than it was, so it is not whole",
                    "Leave the disk as it is.",
                )
            self._tools.cancel.check()
            note = switch.back(note, old, new)
        self._tools.observer.step("done")
        return _result(note)

    def _note(self, vm: Vm, disk: Disk, guard: Guard) -> Note:
        """Find the note on the conversion of a disk, whichever of both images it has now."""
        is_new = disk.declared_format == NEW_FORMAT
        new_path = disk.path if is_new else new_name(disk.path)
        note = self._files.read_note(note_path(new_path)) if disk.source_type == "file" else None
        if note is None or not note.is_of(vm.uuid, disk.target, new_path):
            raise guard.refuse(
                f"there is no note on its conversion at {note_path(new_path)!r}",
                "Only what `convert` has made can be undone by it.",
            )
        if disk.source not in {note.old_source, note.new_source}:
            raise guard.refuse(
                f"its image is {disk.source!r}, not {note.new_source!r} as after its conversion",
                "Only what `convert` has made can be undone by it.",
            )
        if disk.source == note.old_source and note.stage not in {Stage.DONE, Stage.UNDONE}:
            raise guard.refuse(
                "its conversion was never finished, and it has its old image",
                "There is nothing to undo; `convert` cleans up and converts it.",
            )
        return note

    def _same(self, note: Note, old: ImageFile, new: ImageFile) -> bool:
        """Whether both images hold the same: nothing has touched them, or by comparing them."""
        if old.mark == note.old and note.made(new):
            return True
        tools = self._tools
        tools.observer.step("compare")
        with tools.priority():
            return tools.images.same_content(
                (Path(note.old_path), OLD_FORMAT),
                (Path(note.new_path), NEW_FORMAT),
                tools.cancel.check,
            )


def _since(note: Note) -> str:
    return "" if note.switched is None else f" on {note.switched:%Y-%m-%d at %H:%M} UTC"


def _result(note: Note) -> Converted:
    return Converted(
        vm=note.vm_name,
        disk=note.target,
        image=note.old_source,
        kept=note.new_source,
        note=note_path(note.new_path),
        undone=True,
    )
