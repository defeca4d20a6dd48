"""Turns a raw disk of a VM that is off into a qcow2 one, so that its changes can be tracked.

At every moment the definition names an image that is whole and has all that the VM wrote.
"""

import functools
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vm_babysitter.domain.conversion import (
    NEW_FORMAT,
    OLD_FORMAT,
    ImageFile,
    Mark,
    Note,
    Stage,
    disk_obstacle,
    name_too_long,
    new_name,
    note_path,
    partial_path,
    room_needed,
)
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    ConversionFailed,
    NotEnoughSpace,
)
from vm_babysitter.domain.space import scratch_reserve
from vm_babysitter.domain.vm import Disk, Vm
from vm_babysitter.engine.conversion import Converted, ConvertTools, Guard, Switch, claimed_disk
from vm_babysitter.engine.raw_copy import copy_raw


@dataclass(frozen=True, slots=True)
class _Job:
    """A disk to convert, found fit for it."""

    vm: Vm
    disk: Disk
    guard: Guard
    source: str
    image: ImageFile
    new_source: str
    new_path: str


class Convert:
    """Converts disks."""

    def __init__(self, tools: ConvertTools) -> None:
        self._tools = tools
        self._definitions = tools.definitions
        self._files = tools.files
        self._observer = tools.observer

    def run(self, name: str, target: str) -> Converted:
        """Convert one disk of a VM; what an earlier run left unfinished is finished or undone.

        Args:
            name: name or UUID of the VM.
            target: the disk, by its target.

        Raises:
            VmNotFound, InvalidInput: the VM, the disk.
            NotConverted, Busy, NotEnoughSpace, Cancelled: the VM has its old image.
            ConversionFailed, TransferFailed, HypervisorError, HypervisorUnreachable: likewise, or
                the definition names the new image, which is whole; the next run finds out.
        """
        self._observer.step("look")
        with claimed_disk(self._tools, name, target) as (vm, disk):
            guard = Guard(self._tools, vm, disk)
            earlier = self._switched_to(vm, target)
            if earlier is not None:
                return self._finish(earlier, guard)
            job = self._job(vm, disk, guard)
            self._sweep(job)
            self._check_room(job)
            return self._convert(job)

    def _switched_to(self, vm: Vm, target: str) -> Note | None:
        """Return the note on the image that the definition names, if a run broke off there."""
        source = self._definitions.disk_source(vm.uuid, target)
        if source is None or not source.file or source.format != NEW_FORMAT:
            return None
        path = self._files.real_path(source.file)
        note = self._files.read_note(note_path(path))
        if note is None or not note.is_of(vm.uuid, target, path) or note.new_source != source.file:
            return None
        return note if note.stage is Stage.SWITCHING else None

    def _finish(self, note: Note, guard: Guard) -> Converted:
        try:
            return _converted(Switch(self._tools, guard).settle(note))
        except Busy:
            self._drop(note, guard)
            raise

    def _job(self, vm: Vm, disk: Disk, guard: Guard) -> _Job:
        """Check all that can be told before anything is done."""
        obstacle = disk_obstacle(disk)
        if obstacle is not None:
            raise guard.refuse(obstacle.reason, obstacle.way_out)
        source = guard.check_vm().file
        guard.check_file(source, source)
        image = guard.check_file(source, disk.path)
        if PurePosixPath(source).name != PurePosixPath(disk.path).name:
            raise guard.refuse(
                f"its image {source!r} is really {disk.path!r}, under another name",
                "Have the definition name the file itself.",
            )
        new_source, new_path = new_name(source), new_name(disk.path)
        if name_too_long(new_path):
            raise guard.refuse(
                f"the name of its image {source!r} is too long to add to it", "Shorten the name."
            )
        guard.check_unused(disk.path, image)
        return _Job(vm, disk, guard, source, image, new_source, new_path)

    def _sweep(self, job: _Job) -> None:
        """Remove what an earlier run left, if it is provably that; else the name must be free."""
        note = self._files.read_note(note_path(job.new_path))
        if note is not None:
            if not note.is_of(job.vm.uuid, job.disk.target, job.new_path):
                raise job.guard.refuse(
                    f"{note_path(job.new_path)!r} tells of the conversion of another disk",
                    "Move it away, and the image it belongs to.",
                )
            self._observer.step("clean up")
            self._remove(note, job.guard)
        for path in (job.new_path, job.new_source):
            if self._files.look(path) is not None:
                left = note is not None and note.stage in {Stage.DONE, Stage.UNDONE}
                what = "is what an earlier conversion of this disk made" if left else "exists"
                raise job.guard.refuse(
                    f"{path!r}, which the new image is to be called, {what}",
                    "It is not overwritten: move or delete it.",
                )

    def _remove(self, note: Note, guard: Guard) -> None:
        """Remove the files of a conversion that never came to be used, and then its note."""
        self._files.remove(partial_path(note.new_path, note.nonce))
        new = self._files.look(note.new_path)
        if new is not None:
            unfinished = note.stage in {Stage.WHOLE, Stage.SWITCHING} and note.made(new)
            # Without the image it is a copy of, it may be all that is left of the disk.
            needless = unfinished and note.copied(self._files.look(note.old_path))
            if not needless or guard.other_use(note.new_path, new):
                return
            if self._files.writer(note.new_path):
                return
            self._files.remove(note.new_path)
        self._files.remove(note_path(note.new_path))

    def _check_room(self, job: _Job) -> None:
        room = self._files.room(job.new_path)
        needed = room_needed(job.image, job.disk.virtual_size)
        needed += scratch_reserve(room.total, cautious=False)
        if room.free < needed:
            raise NotEnoughSpace(str(PurePosixPath(job.new_path).parent), room.free, needed)

    def _convert(self, job: _Job) -> Converted:
        note = Note(
            vm_uuid=job.vm.uuid,
            vm_name=job.vm.name,
            target=job.disk.target,
            old_source=job.source,
            old_path=job.disk.path,
            old=job.image.mark,
            new_source=job.new_source,
            new_path=job.new_path,
            nonce=self._tools.clock.new_nonce(),
            stage=Stage.COPYING,
            begun=self._tools.clock.now(),
        )
        self._write(note)
        try:
            amount = self._make(job, note)
            note = self._name(job, note)
            self._tools.cancel.check()
            done = Switch(self._tools, job.guard).forth(note)
        except BaseException:
            self._drop(note, job.guard)
            raise
        self._observer.step("done")
        return _converted(done, amount)

    def _drop(self, note: Note, guard: Guard) -> None:
        """Remove what was made, if the definition surely does not name it."""
        with suppress(BabysitterError):
            source = self._definitions.disk_source(note.vm_uuid, note.target)
            if source is not None and source.file == note.old_source:
                last = self._files.read_note(note_path(note.new_path))
                if last is not None and last.nonce == note.nonce:
                    self._remove(last, guard)

    def _make(self, job: _Job, note: Note) -> int:
        """Copy the image under its provisional name, and prove the copy."""
        partial = partial_path(job.new_path, note.nonce)
        with self._tools.priority():
            self._observer.step("copy")
            look = functools.partial(self._check_still_fit, job)
            amount = copy_raw(self._tools, Path(job.disk.path), Path(partial), look)
            self._observer.step("compare")
            old, new = (Path(job.disk.path), OLD_FORMAT), (Path(partial), NEW_FORMAT)
            same = self._tools.images.same_content(old, new, self._tools.cancel.check)
        self._check_unchanged(job)
        if not same:
            raise job.guard.refuse(
                "the copy of its image is not what the image holds",
                "A disk or memory of this machine may be failing: have them tested.",
            )
        return amount

    def _check_still_fit(self, job: _Job) -> None:
        """Give up early where the copy cannot come to anything, or takes the VMs' last space."""
        job.guard.check_off()
        room = self._files.room(job.new_path)
        least = scratch_reserve(room.total, cautious=False)
        if room.free < least:
            raise NotEnoughSpace(str(PurePosixPath(job.new_path).parent), room.free, least)

    def _check_unchanged(self, job: _Job) -> None:
        job.guard.check_off()
        image = self._files.look(job.disk.path)
        if image is None or (image.place, image.mark) != (job.image.place, job.image.mark):
            raise Busy(f"The disk image {job.disk.path!r}", "it was written to meanwhile")

    def _name(self, job: _Job, note: Note) -> Note:
        """Give the new image its name, and see that the definition will find it there."""
        partial = partial_path(job.new_path, note.nonce)
        self._files.dress(partial, job.disk.path)
        note = replace(note, stage=Stage.WHOLE, new=self._mark(partial))
        self._write(note)
        self._observer.step("name")
        self._files.place(partial, job.new_path)
        made = job.guard.check_file(job.new_source, job.new_path)
        job.guard.check_found(job.new_source, job.new_path, made)
        note = replace(note, stage=Stage.SWITCHING, new=self._mark(job.new_path))
        self._write(note)
        return note

    def _mark(self, path: str) -> Mark:
        found = self._files.look(path)
        if found is None:
            raise ConversionFailed(path, "it has vanished")
        return found.mark

    def _write(self, note: Note) -> None:
        self._files.write_note(note_path(note.new_path), note)


def _converted(note: Note, amount: int = 0) -> Converted:
    return Converted(
        vm=note.vm_name,
        disk=note.target,
        image=note.new_source,
        kept=note.old_source,
        note=note_path(note.new_path),
        undone=False,
        content_bytes=amount,
    )
