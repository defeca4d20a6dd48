"""Proves restore points: files complete (structure) and data correct (content)."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.chain import Chain, Flaw, StoredPoint
from vm_babysitter.domain.damage import Checked, DamageNote, remembered
from vm_babysitter.domain.errors import BabysitterError, Cancelled, ImageUnreadable, StoreFailed
from vm_babysitter.domain.point import Point, PointDisk
from vm_babysitter.engine.catalog import FoundPoint, find_point, find_vm, point_name
from vm_babysitter.engine.checked_reading import CheckedReading, Mismatch, Part, content_bytes
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.tools import ReadTools
from vm_babysitter.ports import Clock, FileCheck, Store, StoredVm


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


@dataclass(frozen=True, slots=True)
class _Own:
    """What is wrong with the files of one point, and what of it is to be remembered."""

    problems: tuple[tuple[str, str], ...]
    """Names of files, empty for the point as a whole, and what is wrong with each."""
    checked: Checked


class Verify:
    """Verifies points of one store.

    It changes nothing there but the notes of what it found: so no backup builds on a point that is
    known to be damaged. It believes no note itself.
    """

    def __init__(self, store: Store, tools: ReadTools, clock: Clock) -> None:
        self._store = store
        self._tools = tools
        self._clock = clock
        self._images = tools.images
        self._observer = tools.observer
        self._cancel = tools.cancel
        self._own: dict[tuple[str, int], _Own] = {}

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
            for unreadable in (u for u in chain.unreadable if not u.unfinished):
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
        files = _needed(found.chain, found.point)
        line = [stored for stored in found.chain.points if stored.point.seq in files]
        line.sort(key=lambda stored: -stored.point.seq)
        todo = [s.point for s in line if (found.chain.id, s.point.seq) not in self._own]
        meter.expect(sum(disk.file_size for point in todo for disk in point.disks))
        problems: list[str] = []
        for stored in line:
            seq = stored.point.seq
            key = (found.chain.id, seq)
            if key not in self._own:
                self._own[key] = self._check_point(found.vm, found.chain, stored, meter)
            own = self._own[key].problems
            if seq == found.point.seq:
                problems += [words for _, words in own]
            else:
                needed = ("", *files[seq])
                problems += [f"it builds on {seq:06d}: {w}" for file, w in own if file in needed]
        if not problems:
            problems += _gaps(found.chain, found.point)
        return tuple(problems)

    def _check_point(self, vm: StoredVm, chain: Chain, stored: StoredPoint, meter: Meter) -> _Own:
        """Check the files of one point, and note what is damaged."""
        looked = {flaw.file: flaw for flaw in stored.flaws if flaw.found is None}
        if "" in looked:  # then its manifest is not to be trusted with names of files
            return _Own((("", str(looked[""])),), Checked(()))
        problems, flaws, undecided = [], [], set(looked)
        for file, check in self._check_files(vm, chain, stored.point, set(looked), meter):
            flaw = looked.get(file) or Flaw(file, check.wrong, self._clock.now())
            if check.wrong:
                problems.append((file, str(replace(flaw, found=None))))
                if check.evidence:
                    flaws.append(flaw)
                else:
                    undecided.add(file)
        own = _Own(tuple(problems), Checked(tuple(flaws), frozenset(undecided)))
        self._note(vm, chain, stored.point, own.checked)
        return own

    def _check_files(
        self, vm: StoredVm, chain: Chain, point: Point, looked: set[str], meter: Meter
    ) -> Iterator[tuple[str, FileCheck]]:
        """Check each file of a point but those ``looked`` at, which are known not to be whole."""

        def passed(amount: int) -> None:
            meter.add(amount)
            self._tools.pace.take(amount)

        def check(name: str, digest: str, *, image: bool = False) -> FileCheck:
            if name in looked:
                return FileCheck("seen by a look", evidence=False)
            path = self._store.file_path(vm.uuid, chain, point, name)
            return self._store.check_file(path, digest, image=image, passed=passed)

        for disk in point.disks:
            found = check(disk.file, disk.digest, image=True)
            yield disk.file, found if found.wrong else self._check_image(vm, chain, point, disk)
            yield disk.index, check(disk.index, disk.index_digest)
        for file in point.files:
            yield file.name, check(file.name, file.digest)

    def _check_image(self, vm: StoredVm, chain: Chain, point: Point, disk: PointDisk) -> FileCheck:
        """Check what the image says of itself: format, size, backing link, QEMU's own check."""
        path = self._store.image_path(vm.uuid, chain, point, disk)
        try:
            info, wrong = self._images.info(path), self._images.check(path)
        except ImageUnreadable as error:  # its bytes are right: something else is amiss
            return FileCheck(error.reason, evidence=False)
        if info.format != "qcow2" or info.virtual_size != disk.virtual_size:
            wrong = f"it is {info.format} of {info.virtual_size} bytes"
        elif info.backing_file != disk.backing:
            wrong = f"it builds on {info.backing_file!r}, not on {disk.backing!r}"
        return FileCheck(wrong, evidence=bool(wrong))

    def _content(self, found: FoundPoint, meter: Meter) -> tuple[str, ...]:
        problems = []
        for disk in found.point.disks:
            try:
                self._read_disk(found, disk, meter)
            except Cancelled:
                raise
            except Mismatch as error:
                problems.append(f"disk {disk.target}: {error}")
                self._note_content(found, disk, error)
            except BabysitterError as error:
                problems.append(f"disk {disk.target}: {error}")
        if not problems:
            own = self._own[found.chain.id, found.point.seq]
            self._note(found.vm, found.chain, found.point, replace(own.checked, proven=True))
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

    def _note_content(self, found: FoundPoint, disk: PointDisk, error: Mismatch) -> None:
        """Note a wrong block at the point whose image has it, else at the one that was read."""
        block = error.offset // BLOCK_SIZE
        owner, file = found.point, disk.file
        for point, layer in found.layers(disk.target):
            with self._store.open_index(found.vm.uuid, found.chain, [(point, layer)]) as index:
                if index.touched(block, 1):
                    owner, file = point, layer.file
                    break
        key = (found.chain.id, owner.seq)
        flaw = Flaw(file, str(error), self._clock.now(), content=True)
        checked = self._own[key].checked
        checked = replace(checked, flaws=(*checked.flaws, flaw))
        self._own[key] = replace(self._own[key], checked=checked)
        self._note(found.vm, found.chain, owner, checked)

    def _note(self, vm: StoredVm, chain: Chain, point: Point, checked: Checked) -> None:
        """Remember what was found of a point, as far as the store takes it."""
        stored = chain.find(point.seq)
        noted = tuple(f for f in stored.flaws if f.found is not None) if stored else ()
        flaws = remembered(noted, checked)
        if not flaws and not noted:
            return
        note = DamageNote(point.seq, point.nonce, self._clock.now(), flaws)
        with suppress(StoreFailed):  # it may be read-only, or on its way out
            self._store.note_damage(vm.uuid, chain, point, note)


def _needed(chain: Chain, point: Point) -> dict[int, set[str]]:
    """Return which files of which points the disks of a point are read from, as far as known."""
    files: dict[int, set[str]] = {point.seq: set()}
    for disk in point.disks:
        for below, layer in chain.known_layers(point.seq, disk.target):
            files.setdefault(below.seq, set()).update((layer.file, layer.index))
    return files


def _gaps(chain: Chain, point: Point) -> Iterator[str]:
    """Say which points that the disks of a point need are missing, or cannot be read."""
    found = (trouble for d in point.disks for trouble in chain.troubles(point.seq, d.target))
    yield from dict.fromkeys(trouble.words for trouble in found if trouble.flaw is None)
