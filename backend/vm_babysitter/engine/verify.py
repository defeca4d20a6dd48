"""Proves restore points: files complete (structure) and data correct (content)."""

from dataclasses import dataclass

from vm_babysitter.domain.chain import Chain, Point, PointDisk
from vm_babysitter.domain.errors import BabysitterError, Cancelled, ImageUnreadable
from vm_babysitter.engine.catalog import FoundPoint, find_point, find_vm, point_name
from vm_babysitter.engine.checked_reading import CheckedReading, Mismatch, Part, content_bytes
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.tools import ReadTools
from vm_babysitter.ports import Store, StoredVm


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one restore point."""

    point: str
    """``<chain>/<seq>``."""
    problems: tuple[str, ...]
    content: bool
    """Whether the content was read too."""

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


class Verify:
    """Verifies points of one store; reads only."""

    def __init__(self, store: Store, tools: ReadTools) -> None:
        self._store = store
        self._tools = tools
        self._images = tools.images
        self._observer = tools.observer
        self._cancel = tools.cancel
        self._own: dict[tuple[str, int], tuple[str, ...]] = {}

    def one(self, vm: str, point: str, *, structure_only: bool = False) -> Verified:
        """Verify one point. Raises VmNotFound, PointNotFound, InvalidInput, Damaged."""
        found = find_point(self._store, vm, point)
        with self._tools.priority():
            return self._verify(found, structure_only=structure_only)

    def all(self, vm_name: str, *, structure_only: bool = False) -> tuple[Verified, ...]:
        """Verify all points of a VM, in order; each file is read once for its digest.

        Raises:
            VmNotFound, Cancelled.
        """
        with self._tools.priority():
            return self._verify_all(find_vm(self._store, vm_name), structure_only=structure_only)

    def _verify_all(self, vm: StoredVm, *, structure_only: bool) -> tuple[Verified, ...]:
        results = []
        for chain in self._store.chains(vm.uuid):
            for unreadable in chain.unreadable:
                name = point_name(chain, unreadable.seq)
                results.append(Verified(name, (unreadable.problem,), content=False))
            for stored in chain.points:
                found = FoundPoint(vm, chain, stored.point)
                results.append(self._verify(found, structure_only=structure_only))
        return tuple(sorted(results, key=lambda result: result.point))

    def _verify(self, found: FoundPoint, *, structure_only: bool) -> Verified:
        self._observer.step(f"verify {found.name}")
        meter = Meter(self._observer)
        problems = self._structure(found, meter)
        if problems or structure_only:
            return Verified(found.name, problems, content=False)
        return Verified(found.name, self._content(found, meter), content=True)

    def _structure(self, found: FoundPoint, meter: Meter) -> tuple[str, ...]:
        """Check the files of a point and of all it builds on."""
        broken = found.chain.broken.get(found.point.seq)
        if broken is not None:
            return (broken,)
        problems: list[str] = []
        todo = [p for p in found.lineage if (found.chain.id, p.seq) not in self._own]
        meter.expect(sum(disk.file_size for point in todo for disk in point.disks))
        for point in found.lineage:
            key = (found.chain.id, point.seq)
            if key not in self._own:
                self._own[key] = tuple(self._check_files(found.vm, found.chain, point, meter))
            prefix = "" if point is found.point else f"it builds on {point.seq:06d}: "
            problems += [prefix + problem for problem in self._own[key]]
        return tuple(problems)

    def _check_files(self, vm: StoredVm, chain: Chain, point: Point, meter: Meter) -> list[str]:
        def passed(amount: int) -> None:
            meter.add(amount)
            self._tools.pace.take(amount)

        problems = []
        for disk in point.disks:
            path = self._store.image_path(vm.uuid, chain, point, disk)
            index = self._store.file_path(vm.uuid, chain, point, disk.index)
            wrong = self._store.check_file(path, disk.digest, image=True, passed=passed)
            wrong = wrong or self._check_image(vm, chain, point, disk)
            if wrong:
                problems.append(f"{disk.file}: {wrong}")
            wrong = self._store.check_file(index, disk.index_digest, image=False)
            if wrong:
                problems.append(f"{disk.index}: {wrong}")
        for file in point.files:
            path = self._store.file_path(vm.uuid, chain, point, file.name)
            wrong = self._store.check_file(path, file.digest, image=False)
            if wrong:
                problems.append(f"{file.name}: {wrong}")
        return problems

    def _check_image(self, vm: StoredVm, chain: Chain, point: Point, disk: PointDisk) -> str:
        """Check what the image says of itself: format, size, backing link, QEMU's own check."""
        path = self._store.image_path(vm.uuid, chain, point, disk)
        try:
            info, wrong = self._images.info(path), self._images.check(path)
        except ImageUnreadable as error:
            return error.reason
        if info.format != "qcow2" or info.virtual_size != disk.virtual_size:
            return f"it is {info.format} of {info.virtual_size} bytes"
        if info.backing_file != disk.backing:
            return f"it builds on {info.backing_file!r}, not on {disk.backing!r}"
        return wrong

    def _content(self, found: FoundPoint, meter: Meter) -> tuple[str, ...]:
        problems = []
        for disk in found.point.disks:
            try:
                self._read_disk(found, disk, meter)
            except Cancelled:
                raise
            except (Mismatch, BabysitterError) as error:
                problems.append(f"disk {disk.target}: {error}")
        return tuple(problems)

    def _read_disk(self, found: FoundPoint, disk: PointDisk, meter: Meter) -> None:
        layers = found.layers(disk.target)
        uuid, chain = found.vm.uuid, found.chain
        paths = [(self._store.image_path(uuid, chain, p, d), "qcow2") for p, d in layers]
        with self._store.open_index(uuid, chain, layers) as index:
            meter.expect(content_bytes(index, disk.virtual_size))
        with (
            self._store.open_index(uuid, chain, layers) as index,
            self._images.open_for_reading(paths) as reader,
        ):

            def take(_number: int, parts: list[Part]) -> None:
                meter.add(sum(len(part.data) for part in parts))

            CheckedReading(reader, index, take, self._tools).run()
