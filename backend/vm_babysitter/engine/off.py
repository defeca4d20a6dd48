"""A VM that is off: its disks are read from the images, and whoever starts it comes first."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from vm_babysitter.domain.backup_plan import DiskPlan
from vm_babysitter.domain.bitmaps import Found
from vm_babysitter.domain.chain import Attempt
from vm_babysitter.domain.errors import BabysitterError, ImageUnreadable, VmInUse
from vm_babysitter.domain.offline import Evidence, changed_image
from vm_babysitter.domain.point import bitmap_name
from vm_babysitter.domain.vm import Access, Disk, Vm, access_of
from vm_babysitter.engine.beside import beside_mark
from vm_babysitter.engine.source import Taken
from vm_babysitter.engine.space_guard import SpaceGuard
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import DiskReader, OfflineDisk

_STARTED = "it was started"
_SAVED = "the memory of the VM was saved while its file systems were in use"


class OffSource:
    """Implements ``source.Source``.

    The images are read shared, so that a start of the VM succeeds at any time. It is noticed
    by looking at the VM meanwhile, and at the stamps of the images in the end: then nothing
    that was read counts.
    """

    def __init__(
        self,
        tools: Tools,
        space: SpaceGuard,
        vm: Vm,
        plans: Sequence[DiskPlan],
        attempt: Attempt,
        in_the_way: Found = (),
    ) -> None:
        """``in_the_way`` are bitmaps to be removed, see ``bitmaps_in_the_way``."""
        self._tools = tools
        self._space = space
        self._vm = vm
        self._plans = plans
        self._attempt = attempt
        self._in_the_way = in_the_way
        self._definition = {disk.target: disk for disk in vm.disks}
        self._disks: dict[str, OfflineDisk] = {}
        self._warnings: list[str] = []

    def prepare(self) -> None:
        """See ``source.Source``."""
        self._space.check(self._vm, [])
        self._check_off()

    def begin(self) -> Taken:
        """Put down a bitmap where none is left, then fix the stamps of all images."""
        tools, uuid = self._tools, self._vm.uuid
        self._clear_the_way()
        tracked = [plan.target for plan in self._plans if plan.track and self._track(plan)]
        tools.observer.step("begin")
        mark = beside_mark(tools.sight, uuid)  # what is changed after this counts as changed
        for plan in self._plans:
            self._disks[plan.target] = self._look(plan)
        at = tools.clock.now()
        self._check_definition()
        self._check_off()
        tools.observer.step("begun")
        saved = tools.hypervisor.belongings(uuid).managed_save
        return Taken(
            at=at,
            quiesced=not saved,
            note=_SAVED if saved else "the VM was off",
            versions={**tools.versions, **tools.hypervisor.versions()},
            tracked=tuple(tracked),
            warnings=tuple(self._warnings),
            evidence=Evidence({t: disk.stamps for t, disk in self._disks.items()}, mark),
        )

    def _clear_the_way(self) -> None:
        """Remove bitmaps of ours that keep the user from something; what fails can wait."""
        for name, targets in self._in_the_way:
            for target in targets:
                self._check_off()
                self._tools.observer.step(f"clear {target}")
                try:
                    self._tools.bitmaps.remove(self._image(target), name)
                except BabysitterError as error:
                    self._tools.observer.note(f"Change tracking stays in disk {target}: {error}")

    def _image(self, target: str) -> Path:
        """Return the image on top of a disk."""
        return Path(self._definition[target].path)

    def _track(self, plan: DiskPlan) -> bool:
        """Write a new bitmap: in a short call, before anything is read.

        A bitmap that is made later than a read would miss what a VM started in between wrote.
        Without a bitmap the next backup compares the whole disk, no more.
        """
        self._check_off()
        image = self._image(plan.target)
        self._tools.observer.step(f"track {plan.target}")
        try:
            self._tools.bitmaps.add(image, bitmap_name(self._attempt.checkpoint, plan.target))
        except BabysitterError as error:
            self._warnings.append(f"disk {plan.target} has no change tracking: {error.message}")
            return False
        return True

    def _look(self, plan: DiskPlan) -> OfflineDisk:
        found = self._tools.offline.look(self._definition[plan.target])
        if plan.since is not None:
            bitmap = found.state.layers[0].bitmap(plan.since.name)
            healthy = bitmap is not None and bitmap.recording and not bitmap.inconsistent
            if not healthy or len(found.state.layers) > 1:
                raise VmInUse(self._vm.name, f"the image of disk {plan.target} was changed")
        self._check_unwritten(found)
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See ``source.Source``: also ends the copying as soon as the VM is started."""
        with self._space.watching(self._vm, [], lambda: None, self._look_at_power):
            yield

    def _look_at_power(self) -> BabysitterError | None:
        if access_of(self._tools.hypervisor.power(self._vm.uuid)) is Access.OFF:
            return None
        return VmInUse(self._vm.name, _STARTED)

    def reserve(self) -> int:
        """See ``source.Source``."""
        return self._space.reserve([])

    def open(self, plan: DiskPlan) -> AbstractContextManager[DiskReader]:
        """See ``source.Source``."""
        bitmap = None if plan.since is None else plan.since.name
        return self._tools.offline.open(self._disks[plan.target], bitmap)

    def confirm(self) -> None:
        """See ``source.Source``."""
        self._check_off()
        for target, disk in self._disks.items():
            try:
                now = self._tools.offline.stamps([stamp.path for stamp in disk.stamps])
            except ImageUnreadable as error:
                raise VmInUse(self._vm.name, f"the image of disk {target} is gone") from error
            changed = changed_image(disk.stamps, now)
            if changed:
                raise VmInUse(self._vm.name, f"{changed!r} was changed")
            self._check_unwritten(disk)
        self._check_off()

    def _check_off(self) -> None:
        problem = self._look_at_power()
        if problem is not None:
            raise problem

    def _check_definition(self) -> None:
        """Make sure that what was planned and looked at still are the disks of the VM."""
        now = self._tools.hypervisor.outline(self._vm.uuid).disks
        if [_defined(disk) for disk in now] != [_defined(disk) for disk in self._vm.disks]:
            raise VmInUse(self._vm.name, "its disks were exchanged")

    def _check_unwritten(self, disk: OfflineDisk) -> None:
        image = self._tools.offline.writer(disk)
        if image:
            raise VmInUse(self._vm.name, f"another program has {image!r} open for writing")


def _defined(disk: Disk) -> Disk:
    """Return what of a disk does not come from its image."""
    return replace(
        disk,
        real_format="",
        virtual_size=0,
        allocated=None,
        compat="",
        data_file="",
        file_id="",
        unreadable="",
    )
