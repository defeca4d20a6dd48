"""Copies all disks of a VM into a restore point."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from vm_babysitter.domain.backup_plan import DiskPlan
from vm_babysitter.domain.blocks import BlockRun, Flagged
from vm_babysitter.domain.chain import Chain, disk_layers, layers_after
from vm_babysitter.domain.errors import NotEnoughSpace
from vm_babysitter.domain.point import Method, Point, PointDisk
from vm_babysitter.domain.reread import Reread, after, this_turn
from vm_babysitter.domain.vm import Vm
from vm_babysitter.engine.copying import (
    Contradiction,
    Copied,
    DiskCopier,
    EmptyIndex,
    NewLayer,
    bytes_to_read,
    runs_to_copy,
    touched_map,
)
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.source import Source
from vm_babysitter.engine.survey import Survey, survey
from vm_babysitter.engine.tools import Tools
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import (
    BlockIndex,
    DiskReader,
    PointDraft,
    Store,
)

_METADATA_SHARE = 2000
"""A point has at most this part of its data in tables and fingerprints besides."""
Opener = Callable[[], AbstractContextManager[DiskReader]]
"""Opens the export of one disk, as often as it is called."""


@dataclass(frozen=True, slots=True)
class CopiedDisks:
    """The disks of a point, and what the user should know of them."""

    disks: tuple[PointDisk, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a user or the place asks of a copy."""

    reread_runs: int
    """Backups within which each unchanged block is read again once; 0 means never."""
    reserve: int
    """Bytes that must stay free in the store."""


class PointCopier:
    """Copies the disks of one point."""

    def __init__(
        self,
        tools: Tools,
        store: Store,
        chain: Chain,
        lineage: Sequence[Point],
        draft: PointDraft,
        terms: Terms,
    ) -> None:
        """``lineage`` is the parent point and all it builds on, newest first."""
        self._tools = tools
        self._store = store
        self._chain = chain
        self._lineage = lineage
        self._draft = draft
        self._terms = terms
        self._surveys: dict[str, Survey] = {}
        self._meter = Meter(tools.observer)
        self._warnings: list[str] = []

    def copy(self, vm: Vm, plans: Sequence[DiskPlan], source: Source) -> CopiedDisks:
        """Copy each disk from its source."""
        surely_stored = 0
        for plan in plans:
            with (
                source.open(plan) as reader,
                self._tools.cancel.interrupting(reader.abort),
            ):
                found = survey(
                    self._map(vm, plan, plan.method, reader), reader.size, self._turn(plan)
                )
            self._surveys[plan.target] = found
            self._meter.expect(found.amount)
            surely_stored += found.amount if plan.method is Method.FULL else 0
        self._check_space(surely_stored)
        disks = []
        for plan in plans:
            disks.append(self._copy_disk(vm, plan, partial(source.open, plan)))
            self._tools.observer.step(f"copied {plan.target}")
        return CopiedDisks(tuple(disks), tuple(self._warnings))

    def _check_space(self, needed: int) -> None:
        needed += self._terms.reserve + needed // _METADATA_SHARE
        room = self._store.room()
        if room.free >= needed:
            return
        if not self._tools.compress:
            raise NotEnoughSpace(str(self._store.path), room.free, needed)
        self._tools.observer.note(
            f"The disks hold up to {format_bytes(needed)}, and the backup folder has room for "
            f"{format_bytes(room.free)}. The backup goes on because it may shrink to that; "
            "if it does not, it is undone."
        )

    def _copy_disk(self, vm: Vm, plan: DiskPlan, opener: Opener) -> PointDisk:
        try:
            with opener() as reader:
                return self._copy_by(plan.method, plan.reason, vm, plan, reader)
        except Contradiction as error:
            self._draft.drop(plan.target)
            self._warnings.append(
                f"disk {plan.target}: change tracking missed a change at byte {error.offset}; "
                "the whole disk was compared instead"
            )
            self._tools.observer.note(self._warnings[-1])
        reason = "change tracking proved wrong"
        with opener() as reader:  # the other one is of no use after an error
            runs = self._runs(vm, plan, Method.SCAN, reader)
            self._meter.expect(bytes_to_read(runs, reader.size))
            return self._copy_by(Method.SCAN, reason, vm, plan, reader)

    def _copy_by(
        self, method: Method, reason: str, vm: Vm, plan: DiskPlan, reader: DiskReader
    ) -> PointDisk:
        parent = None
        if plan.parent is not None:
            parent = (self._lineage[0], plan.parent)
        image = self._draft.image(plan.target, reader.size, parent)
        index = self._draft.index(plan.target, reader.size)
        try:
            with self._parent_index(vm, plan) as known:
                copier = DiskCopier(
                    reader,
                    known,
                    NewLayer(image, index),
                    self._tools.fingerprint,
                    self._meter.add,
                    self._tools.pace,
                )
                copied = copier.copy(self._runs(vm, plan, method, reader))
            file, (index_file, entries) = image.finish(), index.finish()
        finally:
            image.discard()
            index.discard()
        return PointDisk(
            target=plan.target,
            method=method,
            file=f"{plan.target}.qcow2",
            index=f"{plan.target}.index",
            virtual_size=reader.size,
            file_size=file.size,
            digest=file.digest,
            index_digest=index_file.digest,
            index_entries=entries,
            read_bytes=copied.read_bytes,
            written_bytes=copied.written_bytes,
            zeroed_bytes=copied.zeroed_bytes,
            path=plan.path,
            identity=plan.identity,
            source_format=plan.source_format,
            reason=reason,
            parent=None if parent is None else parent[0].directory,
            parent_file=_other_file(plan),
            encrypted=plan.encrypted,
            reread=self._after_rereading(plan, method, copied),
            compression=file.compression,
        )

    def _turn(self, plan: DiskPlan) -> Reread | None:
        """Return where reading again goes on; None where nothing is read twice."""
        if plan.method is not Method.BITMAP or plan.parent is None or not self._terms.reread_runs:
            return None
        return this_turn(plan.parent.reread, self._terms.reread_runs)

    def _after_rereading(self, plan: DiskPlan, method: Method, copied: Copied) -> Reread | None:
        if method is not Method.BITMAP or plan.parent is None:
            return None  # everything was read
        turn = self._surveys[plan.target].turn
        return plan.parent.reread if turn is None else after(turn, copied.reread_until)

    def _parent_index(self, vm: Vm, plan: DiskPlan) -> AbstractContextManager[BlockIndex]:
        if plan.parent is None:
            return nullcontext(EmptyIndex())
        layers = disk_layers(self._lineage, plan.parent.target)
        return self._store.open_index(vm.uuid, self._chain, layers)

    def _runs(
        self, vm: Vm, plan: DiskPlan, method: Method, reader: DiskReader
    ) -> Iterator[BlockRun]:
        """Return what to do with a disk, from memory where the survey fitted into it."""
        if method is not plan.method:
            return self._map(vm, plan, method, reader)
        known = self._surveys[plan.target]
        kept = known.kept
        return known.marked(self._map(vm, plan, method, reader) if kept is None else kept)

    def _map(
        self, vm: Vm, plan: DiskPlan, method: Method, reader: DiskReader
    ) -> Iterator[BlockRun]:
        """Stream what is known of a disk before it is read."""
        tracked = method is Method.BITMAP
        return runs_to_copy(
            reader,
            tracked=tracked,
            parent_size=None if plan.parent is None else plan.parent.virtual_size,
            touched=self._touched(vm, plan, reader.size) if tracked else None,
        )

    def _touched(self, vm: Vm, plan: DiskPlan, size: int) -> Iterator[Flagged] | None:
        """Return what the points after that of the bitmap changed, None if there are none."""
        if plan.since is None:
            return None
        newer = layers_after(self._lineage, plan.target, plan.since.name)
        return self._stream_touched(vm, newer, size) if newer else None

    def _stream_touched(
        self, vm: Vm, layers: Sequence[tuple[Point, PointDisk]], size: int
    ) -> Iterator[Flagged]:
        with self._store.open_index(vm.uuid, self._chain, layers) as index:
            yield from touched_map(index, size)


def _other_file(plan: DiskPlan) -> str:
    """Return the name of the parent's image where the disk had another target then."""
    past = plan.parent
    return "" if past is None or past.target == plan.target else past.file
