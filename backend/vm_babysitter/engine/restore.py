"""Brings the disks of a restore point back as image files, or nothing at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.errors import ImageUnreadable, InvalidInput, PointDamaged
from vm_babysitter.domain.point import Point, PointDisk, SavedFile
from vm_babysitter.engine.beside import DEFINITION_FILE, where_they_belong
from vm_babysitter.engine.catalog import FoundPoint, find_point
from vm_babysitter.engine.checked_reading import CheckedReading, Mismatch, Part, content_bytes
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.ordering import InOrder
from vm_babysitter.engine.tools import ReadTools
from vm_babysitter.ports import (
    ImageWriter,
    OwnImages,
    RawWriter,
    RestoreFiles,
    RestorePlace,
    Store,
)

FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to."""

    point: str
    files: tuple[Path, ...]
    content_bytes: int
    """Bytes written, zeros left aside."""
    notes: tuple[str, ...] = ()
    """What is to be known to put it in place, as sentences."""


class Restore:
    """Restores points of one store."""

    def __init__(
        self, store: Store, tools: ReadTools, own_images: OwnImages, place: RestorePlace
    ) -> None:
        self._store = store
        self._tools = tools
        self._own_images = own_images
        self._place = place
        self._observer = tools.observer

    def run(
        self, vm: str, point: str, targets: Sequence[str] = (), format: str | None = None
    ) -> Restored:
        """Restore the disks named and the definition; if none is named, all there is.

        Args:
            vm: name or UUID of the VM.
            point: ``<chain>/<seq>`` or ``latest``.
            targets: the disks, by their targets.
            format: ``qcow2`` or ``raw``; None keeps each disk's own.

        A disk that is named needs to be whole, with all that it builds on; what else the point
        holds does not matter then.

        Raises:
            VmNotFound, PointNotFound, InvalidInput: the point, a disk, the place.
            PointDamaged: any doubt about the data; nothing is left behind.
            NotEnoughSpace, TransferFailed, StoreFailed, Cancelled.
        """
        found = find_point(self._store, vm, point)
        disks = _choose_disks(found, targets)
        self._refuse_broken(found, disks, whole=not targets)
        needed = self._content(found, disks)
        with self._tools.priority(), self._place.fill(sum(needed)) as place:
            meter = Meter(self._observer)
            meter.expect(sum(needed))
            files = []
            for disk in disks:
                try:
                    files.append(self._restore_disk(found, disk, format, place, meter))
                except Mismatch as error:
                    raise self._damaged(
                        found, f"disk {disk.target}: {error}", disk.target
                    ) from error
                except ImageUnreadable as error:
                    reason = f"disk {disk.target}: {error.reason}"
                    raise self._damaged(found, reason, disk.target) from error
            notes = () if targets else _notes(found.point)
            for file in _choose_files(found, targets):
                self._observer.step(f"restore {file.name}")
                wrong = self._check_source(found, file) if targets else ""
                if wrong:  # whoever wants a disk gets it, even if its machine is lost
                    notes += (f"{file.name} is damaged and was not restored: {wrong}",)
                    continue
                files.append(self._restore_file(found, file.name, file.digest, place))
            self._observer.step("finish")
        return Restored(found.name, tuple(files), sum(needed), notes)

    def _refuse_broken(self, found: FoundPoint, disks: Sequence[PointDisk], *, whole: bool) -> None:
        """Refuse what a look tells is damaged, but nothing for what it does not need.

        What a verify had found may be in blocks that this point does not need, or be mended: each
        block is checked on the way anyhow.
        """
        seq = found.point.seq
        chain = found.chain.without_notes()
        stored = chain.find(seq)
        if whole and stored is not None and stored.problem:
            raise self._damaged(found, stored.problem)
        for target in (disk.target for disk in disks):
            problem = chain.disk_problem(seq, target)
            if problem:
                raise self._damaged(found, f"disk {target}: {problem}", target)
            noted = found.chain.disk_problem(seq, target)
            if noted:
                self._observer.note(f"Disk {target} may not come back: {noted}. Trying it.")

    def _damaged(self, found: FoundPoint, reason: str, target: str = "") -> PointDamaged:
        """Say that a point is not whole, in a disk or elsewhere, and what can still be had."""
        name, seq = found.point.vm_name, found.point.seq
        error = PointDamaged(name, found.name, seq, reason)
        there = found.chain.disk_problem
        whole = [d.target for d in found.point.disks if d.target != target]
        whole = [other for other in whole if not there(seq, other)]
        if whole:
            options = " ".join(f"--disk {other}" for other in whole)
            error.way_out = f"What may still be had of it: `restore` with {options}. " + (
                error.way_out
            )
        return error

    def _content(self, found: FoundPoint, disks: Sequence[PointDisk]) -> list[int]:
        """Return how many bytes each disk holds."""
        self._observer.step("measure")
        amounts = []
        for disk in disks:
            layers = found.layers(disk.target)
            try:
                with self._store.open_index(found.vm.uuid, found.chain, layers) as index:
                    amounts.append(content_bytes(index, disk.virtual_size))
            except PointDamaged as error:
                here = error.seq == found.point.seq
                reason = error.reason if here else f"it builds on {error.seq:06d}: {error.reason}"
                raise self._damaged(found, f"disk {disk.target}: {reason}", disk.target) from error
        return amounts

    def _restore_disk(
        self,
        found: FoundPoint,
        disk: PointDisk,
        format: str | None,
        place: RestoreFiles,
        meter: Meter,
    ) -> Path:
        self._observer.step(f"restore {disk.target}")
        chosen = format or (disk.source_format if disk.source_format in FORMATS else "qcow2")
        path = place.begin(f"{disk.target}.{chosen}")
        layers = found.layers(disk.target)
        uuid, chain = found.vm.uuid, found.chain
        paths = [self._store.image_path(uuid, chain, p, d) for p, d in layers]
        with (
            self._store.open_index(uuid, chain, layers) as index,
            self._own_images.open_for_reading(paths) as reader,
        ):
            if reader.size != disk.virtual_size:
                reason = f"disk {disk.target} has {reader.size} bytes, not {disk.virtual_size}"
                raise self._damaged(found, reason, disk.target)
            sink = self._sink(chosen, path, disk.virtual_size)
            try:

                def take(number: int, parts: list[Part]) -> None:
                    sink.take(number, parts)
                    meter.add(sum(len(part.data) for part in parts))

                CheckedReading(reader, index, take, self._tools).run()
                sink.finish()
            finally:
                sink.discard()
        return place.final(path)

    def _sink(self, format: str, path: Path, size: int) -> "_Qcow2Sink | _RawSink":
        if format == "raw":
            return _RawSink(self._own_images.raw(path, size))
        return _Qcow2Sink(self._own_images.qcow2(path, size))

    def _check_source(self, found: FoundPoint, file: SavedFile) -> str:
        path = self._store.file_path(found.vm.uuid, found.chain, found.point, file.name)
        return self._store.check_file(path, file.digest, image=False).wrong

    def _restore_file(self, found: FoundPoint, name: str, digest: str, place: RestoreFiles) -> Path:
        source = self._store.file_path(found.vm.uuid, found.chain, found.point, name)
        path = place.begin(name)
        place.copy(source, path)
        wrong = self._store.check_file(path, digest, image=False).wrong
        if wrong:
            raise self._damaged(found, f"{name}: {wrong}")
        return place.final(path)


class _RawSink:
    """Puts each block where it belongs."""

    def __init__(self, image: RawWriter) -> None:
        self._image = image
        self.finish, self.discard = image.finish, image.discard

    def take(self, _number: int, parts: list[Part]) -> None:
        for part in parts:
            self._image.write(part.block * BLOCK_SIZE, part.data)


class _Qcow2Sink:
    """Appends blocks as they come, and maps them in the order of the disk."""

    def __init__(self, image: ImageWriter) -> None:
        self._image = image
        self._in_order: InOrder[list[tuple[int, int, int]]] = InOrder(self._map)
        self.discard = image.discard

    def take(self, number: int, parts: list[Part]) -> None:
        append = self._image.append
        mapping = [(p.block, append(p.data, p.hashes), len(p.hashes)) for p in parts]
        self._in_order.put(number, mapping)

    def finish(self) -> None:
        self._in_order.end()
        self._image.finish()

    def _map(self, mapping: list[tuple[int, int, int]]) -> None:
        for block, place, count in mapping:
            self._image.map_data(block, place, count)


def _choose_files(found: FoundPoint, targets: Sequence[str]) -> tuple[SavedFile, ...]:
    """Return the files beside the disks; who asks for some disks wants data, not the machine."""
    return tuple(f for f in found.point.files if not targets or f.name == DEFINITION_FILE)


def _notes(point: Point) -> tuple[str, ...]:
    """Say what else there is to do to have the whole VM back."""
    autostart = ("the VM was set to start with the host",) if point.autostart else ()
    decrypted = (
        f"disk {disk.target} was encrypted on the host; what was restored is not, so remove "
        f"<encryption> of that disk from {DEFINITION_FILE}, or encrypt it again"
        for disk in point.disks
        if disk.encrypted
    )
    return (*where_they_belong(point.files), *autostart, *decrypted)


def _choose_disks(found: FoundPoint, targets: Sequence[str]) -> tuple[PointDisk, ...]:
    if not targets:
        return found.point.disks
    chosen = []
    for target in dict.fromkeys(targets):
        disk = found.point.disk(target)
        if disk is None:
            known = ", ".join(d.target for d in found.point.disks)
            raise InvalidInput(
                "--disk", target, f"is not in restore point {found.name}", f"It has {known}."
            )
        chosen.append(disk)
    return tuple(chosen)
