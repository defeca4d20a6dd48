"""What converting a disk and converting it back have in common."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from vm_babysitter.domain.conversion import (
    NEW_FORMAT,
    OLD_FORMAT,
    ImageFile,
    Mark,
    Note,
    Stage,
    file_obstacle,
    note_path,
)
from vm_babysitter.domain.errors import Busy, ImageUnreadable, InvalidInput, NotConverted
from vm_babysitter.domain.vm import MOST_LAYERS, Disk, PowerState, Vm
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.pace import Pace
from vm_babysitter.ports import (
    Clock,
    ConversionFiles,
    Definitions,
    DiskSource,
    Fingerprint,
    Hypervisor,
    ImageTool,
    Observer,
    OwnImages,
    Priority,
)


@dataclass(frozen=True, slots=True)
class ConvertTools:
    """The world as a conversion meets it, and who is told how it goes."""

    hypervisor: Hypervisor
    definitions: Definitions
    files: ConversionFiles
    images: ImageTool
    own_images: OwnImages
    fingerprint: Fingerprint
    clock: Clock
    observer: Observer
    cancel: Cancel
    pace: Pace
    priority: Priority = nullcontext


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion, or going back, came to."""

    vm: str
    disk: str
    image: str
    """What the definition names now."""
    kept: str
    """The image it named before, which is kept."""
    note: str
    """Path of the note."""
    undone: bool
    content_bytes: int = 0
    """Bytes written, zeros left aside."""


def find_disk(hypervisor: Hypervisor, name: str, target: str) -> tuple[Vm, Disk]:
    """Find a disk of a VM. Raises VmNotFound, InvalidInput."""
    vm = hypervisor.vm(name)
    disk = next((disk for disk in vm.disks if disk.target == target), None)
    if disk is None:
        known = ", ".join(d.target for d in vm.disks) or "none"
        raise InvalidInput("DISK", target, f"is no disk of VM {vm.name!r}", f"It has {known}.")
    return vm, disk


@contextmanager
def claimed_disk(tools: ConvertTools, name: str, target: str) -> Iterator[tuple[Vm, Disk]]:
    """Find a disk, and let nobody else exchange an image of this VM meanwhile.

    Raises:
        VmNotFound, InvalidInput, Busy.
    """
    vm, _ = find_disk(tools.hypervisor, name, target)
    with tools.files.claim(vm.uuid):
        # Once again: whoever had the claim until now may have exchanged the image.
        yield find_disk(tools.hypervisor, vm.uuid, target)


class Guard:
    """Says no where a disk must not get another image."""

    def __init__(self, tools: ConvertTools, vm: Vm, disk: Disk) -> None:
        self._tools = tools
        self._vm = vm
        self._disk = disk

    def refuse(self, reason: str, way_out: str = "") -> NotConverted:
        """Return the error that says why the disk stays as it is."""
        return NotConverted(self._vm.name, self._disk.target, reason, way_out)

    def check_vm(self) -> DiskSource:
        """Check that the VM is off and nothing of it belongs to the image it has.

        Returns what the definition says of the disk's image.
        """
        self.check_off()
        definitions, uuid = self._tools.definitions, self._vm.uuid
        if self._tools.hypervisor.belongings(uuid).managed_save:
            raise self.refuse(
                "libvirt has saved the VM's memory, which belongs to the disk as it is",
                "Start the VM, shut it down, and try again.",
            )
        snapshots = definitions.snapshots(uuid)
        if snapshots:
            raise self.refuse(
                f"the VM has snapshots, which name its images: {', '.join(snapshots)}",
                "Delete the snapshots first.",
            )
        source = definitions.disk_source(uuid, self._disk.target)
        if source is None or not source.file:
            raise self.refuse("the definition does not give it a file", "")
        if source.bound:
            raise self.refuse(
                f"its definition has settings for this image only: {', '.join(source.bound)}",
                "Such disks are not converted.",
            )
        return source

    def check_off(self) -> None:
        """Check that the VM is off."""
        state = self._tools.hypervisor.power(self._vm.uuid)
        if state is not PowerState.OFF:
            raise self.refuse(f"the VM is {state}; it has to be off", "Shut the VM down first.")

    def check_file(self, source: str, path: str) -> ImageFile:
        """Check that an image, which the definition names as ``source``, is a plain file."""
        image = self._tools.files.look(path)
        if image is None:
            raise self.refuse(f"its image {source!r} is not there", "Without it nothing is done.")
        obstacle = file_obstacle(source, image)
        if obstacle is not None:
            raise self.refuse(obstacle.reason, obstacle.way_out)
        return image

    def check_found(self, source: str, path: str, image: ImageFile) -> None:
        """Check that the definition, naming ``source``, would give the VM this very image."""
        seen = self._tools.files.look(self._tools.files.real_path(source))
        if seen is None or seen.place != image.place:
            raise self.refuse(
                f"the image {path!r} is not found under {source!r}",
                "Look for another file of this name in the share.",
            )

    def check_unused(self, path: str, image: ImageFile) -> None:
        """Check that nobody else has to do with an image of this disk."""
        use = self.other_use(path, image)
        if use:
            raise self.refuse(
                f"its image {path!r} is used by {use}, too", "Take it from there first."
            )
        writer = self._tools.files.writer(path)
        if writer:
            raise Busy(f"The disk image {path!r}", f"{writer} has it open for writing")

    def other_use(self, path: str, image: ImageFile) -> str:
        """Return which other disk names an image or builds on it, in words; empty if none."""
        files, seen = self._tools.files, set[str]()
        for use in self._tools.definitions.image_uses():
            if (use.vm_uuid, use.target) == (self._vm.uuid, self._disk.target):
                continue
            for name in self._layers(files.real_path(use.source)):
                if name in seen:
                    break
                seen.add(name)
                found = files.look(name)
                if name == path or (found is not None and found.place == image.place):
                    return f"disk {use.target!r} of VM {use.vm!r}"
        return ""

    def _layers(self, path: str) -> Iterator[str]:
        """Return an image and what it builds on, as far as images tell."""
        for _ in range(MOST_LAYERS):
            yield path
            try:
                below = self._tools.images.info(Path(path)).backing_file
            except ImageUnreadable:
                return
            if below is None:
                return
            path = self._tools.files.real_path(str(Path(path).parent / below))


class Switch:
    """Exchanges the image that the definition of a VM gives a disk."""

    def __init__(self, tools: ConvertTools, guard: Guard) -> None:
        self._tools = tools
        self._guard = guard
        self._definitions = tools.definitions
        self._files = tools.files

    def forth(self, note: Note) -> Note:
        """Have the definition name the new image, unless the VM was started meanwhile.

        While QEMU is kept from opening the old image, a VM that is being started either has
        it open already, which is seen before, or fails to start.

        Raises:
            NotConverted, Busy: the definition is as it was.
            HypervisorError, HypervisorUnreachable: it may be so or so.
        """
        self._tools.observer.step("switch")
        self._guard.check_off()  # tells more than that the image is open
        with self._files.fence(note.old_path):
            self._guard.check_vm()
            self._check_untouched(note.old_path, note.old)
            self._exchange(note, old_to_new=True)
            self._tools.observer.step("look again")
            return self.settle(note)

    def settle(self, note: Note) -> Note:
        """See to it that no VM has used the old image since the definition names the new one.

        Raises:
            Busy: one has, and the definition names the old image again.
            NotConverted: which image is right cannot be told; the definition names the new one.
        """
        running = self._definitions.disk_source(note.vm_uuid, note.target, running=True)
        runs_on = None if running is None else running.file
        old, new = self._files.look(note.old_path), self._files.look(note.new_path)
        # Whoever has removed the old image since has nothing but the new one.
        touched = old is not None and old.mark != note.old
        on_old = runs_on == note.old_source or (runs_on is None and touched)
        if on_old and note.copied(old) and note.made(new):
            with self._files.fence(note.new_path):  # nor may one begin to use that
                self._exchange(note, old_to_new=False)
            raise Busy(
                f"VM {note.vm_name!r}",
                "it was started with its old image meanwhile, and its definition names that again",
            )
        written = old is not None and not old.mark.same_content(note.old)
        if written or runs_on not in {None, note.new_source}:
            raise self._guard.refuse(
                f"{note.old_source!r} is in use, or was written to or replaced since the "
                "conversion began, and only you can say whether that or "
                f"{note.new_source!r} is right",
                f"The definition names {note.new_source!r}, and nothing is deleted. If that is "
                "wrong, give the VM the other one.",
            )
        done = replace(note, stage=Stage.DONE, switched=self._tools.clock.now())
        self._write(done)
        return done

    def back(self, note: Note, old: ImageFile, new: ImageFile) -> Note:
        """Have the definition name the old image, unless the VM was started meanwhile.

        ``old`` and ``new`` are the images as they were when it was decided to go back.
        """
        self._tools.observer.step("switch")
        with self._files.fence(note.new_path), self._files.fence(note.old_path):
            self._guard.check_vm()
            self._check_untouched(note.new_path, new.mark)
            self._check_untouched(note.old_path, old.mark)
            self._exchange(note, old_to_new=False)
            self._tools.observer.step("look again")
            running = self._definitions.disk_source(note.vm_uuid, note.target, running=True)
            if running is not None and running.file != note.old_source:
                self._exchange(note, old_to_new=True)
                raise Busy(f"VM {note.vm_name!r}", "it was started meanwhile, and keeps its image")
        return self.mark_undone(note)

    def mark_undone(self, note: Note) -> Note:
        """Put down that the definition names the old image again."""
        undone = replace(note, stage=Stage.UNDONE, undone=self._tools.clock.now())
        self._write(undone)
        return undone

    def _exchange(self, note: Note, *, old_to_new: bool) -> None:
        old = DiskSource(note.old_source, OLD_FORMAT)
        new = DiskSource(note.new_source, NEW_FORMAT)
        before, after = (old, new) if old_to_new else (new, old)
        self._definitions.switch_disk(note.vm_uuid, note.target, before, after)

    def _check_untouched(self, path: str, mark: Mark) -> None:
        found = self._files.look(path)
        if found is None or found.mark != mark:
            raise Busy(f"The disk image {path!r}", "it was written to meanwhile")

    def _write(self, note: Note) -> None:
        self._files.write_note(note_path(note.new_path), note)
