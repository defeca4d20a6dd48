"""One attempt at a restore point: planned, begun, copied and committed, or undone."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from vm_babysitter.domain.bitmaps import bitmaps_in_the_way
from vm_babysitter.domain.chain import Attempt, Chain
from vm_babysitter.domain.errors import BabysitterError, VmNotFound
from vm_babysitter.domain.offline import Evidence
from vm_babysitter.domain.point import Checkpoint, Point, SavedFile, checkpoint_name
from vm_babysitter.domain.vm import Access, PowerState, Vm, access_of
from vm_babysitter.engine.adoption import plan_adopted
from vm_babysitter.engine.beside import DEFINITION_FILE, Beside, Kept
from vm_babysitter.engine.disks import CopiedDisks, PointCopier, Terms
from vm_babysitter.engine.live import LiveSource
from vm_babysitter.engine.off import OffSource
from vm_babysitter.engine.planning import Planned, check_idle
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.source import Source, Taken
from vm_babysitter.engine.space_guard import SpaceGuard
from vm_babysitter.engine.time_limit import within
from vm_babysitter.engine.tools import Tools
from vm_babysitter.engine.unchanged import Unchanged, adds_nothing
from vm_babysitter.ports import PointDraft, Store


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a backup, see ``Backup.run``."""

    force_full: bool
    reread_runs: int
    track_snapshots: bool
    longest: float | None = None
    """Seconds that the copying of an increment may take; None: as long as it likes."""


@dataclass(frozen=True, slots=True)
class Made:
    """What an attempt came to."""

    chain: Chain
    point: Point
    """The newest point there is now."""
    added: bool
    """Whether that one was made; False where it would have added nothing to the one before."""
    left: str
    """What of the cleaning up failed and is left to the next backup; empty if nothing."""


@dataclass(frozen=True, slots=True)
class _Copied:
    """A point whose content is in the store."""

    point: Point
    evidence: Evidence | None
    confirmed: datetime
    """When the disks were known last to be what the point holds."""
    committed: bool
    """False where it would have added nothing."""


class PointMaker:
    """Makes the next point of a VM, or leaves everything as it was."""

    def __init__(
        self, tools: Tools, store: Store, reconciler: Reconciler, unchanged: Unchanged
    ) -> None:
        self._tools = tools
        self._store = store
        self._observer = tools.observer
        self._reconciler = reconciler
        self._space = SpaceGuard(tools.hypervisor, tools.places, store, tools.cancel)
        self._unchanged = unchanged

    def make(self, vm: Vm, wishes: Wishes) -> Made:
        """Make the next point of a VM as it was found; fails if it starts or stops meanwhile.

        Raises:
            BabysitterError: the attempt was undone, or the next run does so.
        """
        hypervisor = self._tools.hypervisor
        self._reconciler.reconcile(vm)
        if self._reconciler.resumed:
            vm = hypervisor.vm(vm.uuid)
        check_idle(hypervisor, vm)
        self._observer.step("plan")
        with ExitStack() as held:
            return self._make(vm, wishes, held)

    def _make(self, vm: Vm, wishes: Wishes, held: ExitStack) -> Made:
        """Do so; ``held`` shows that we are at the attempt until it is undone or complete."""
        try:
            planned = plan_adopted(
                self._tools.sight,
                self._store,
                vm,
                force_full=wishes.force_full,
                track_snapshots=wishes.track_snapshots,
            )
            self._observer.step("adopted")
            chain, attempt = self._new_attempt(vm, planned)
            held.enter_context(self._tools.places.hold(attempt.nonce))
        except BaseException:
            self._leave(vm)
            raise
        try:
            self._observer.step("mark")
            longest = None if planned.plan.parent is None else wishes.longest
            with within(longest, self._tools.cancel):
                copied = self._copy(vm, planned, chain, attempt, wishes)
        except BaseException:
            self._roll_back(vm, attempt)
            raise
        left = self._finish(vm, planned, chain, attempt, copied)
        if access_of(vm.state) is Access.LIVE:
            left = left or self._tidy(vm, wishes)
        parent = planned.plan.parent
        kept = copied.point if copied.committed or parent is None else parent
        return Made(chain, kept, copied.committed, left)

    def _new_attempt(self, vm: Vm, planned: Planned) -> tuple[Chain, Attempt]:
        clock, places = self._tools.clock, self._tools.places
        started = clock.now()
        if planned.plan.new_chain or planned.chain is None:
            chain = self._store.new_chain(vm, clock.new_id(), started)
        else:
            chain = planned.chain
        nonce, seq = clock.new_nonce(), chain.next_seq
        live = access_of(vm.state) is Access.LIVE
        disks = planned.plan.disks if live else ()
        return chain, Attempt(
            vm_uuid=vm.uuid,
            chain_id=chain.id,
            seq=seq,
            level=planned.plan.level,
            nonce=nonce,
            checkpoint=checkpoint_name(chain.id, seq, nonce),
            socket=places.socket_path(nonce) if live else "",
            scratch=tuple(places.scratch_path(d.path, nonce, d.target) for d in disks),
            started=started,
            ran=vm.state is PowerState.RUNNING,
            boot_id=self._tools.host.boot_id,
        )

    def _source(self, vm: Vm, planned: Planned, attempt: Attempt, wishes: Wishes) -> Source:
        plans = planned.plan.disks
        if access_of(vm.state) is Access.LIVE:
            return LiveSource(self._tools, self._space, self._reconciler, vm, plans, attempt)
        reachable = {disk.target for disk in vm.disks if disk.direct}
        tops = [
            replace(state, layers=state.layers[:1])
            for target, state in planned.states.items()
            if target in reachable
        ]
        chains, tracked = self._store.chains(vm.uuid), wishes.track_snapshots
        in_the_way = bitmaps_in_the_way(tops, chains, track_snapshots=tracked)
        return OffSource(self._tools, self._space, vm, plans, attempt, in_the_way)

    def _copy(
        self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt, wishes: Wishes
    ) -> _Copied:
        draft = self._store.begin(chain, attempt)
        source = self._source(vm, planned, attempt, wishes)
        source.prepare()
        beside = Beside(self._tools, vm.uuid, first=planned.plan.new_chain)
        taken = source.begin()
        with source.watching():
            kept = beside.save(draft)
            definition = self._tools.hypervisor.definition(vm.uuid)
            self._observer.step("copy")
            terms = Terms(wishes.reread_runs, source.reserve())
            copier = self._copier(planned, chain, draft, terms)
            with self._tools.priority():
                copied = copier.copy(vm, planned.plan.disks, source)
            self._observer.step("save")
            files = (draft.save(DEFINITION_FILE, definition.encode()), *kept.files)
            point = _manifest(vm, planned, attempt, taken, copied)
            point = _with_beside(point, files, kept)
            self._observer.step("confirm")
            confirmed = self._tools.clock.now()  # before the looks: what comes later shows later
            source.confirm()
            if point.off and adds_nothing(point, planned.plan):
                return _Copied(point, taken.evidence, confirmed, False)
            self._observer.step("commit")
            self._tools.cancel.check()
            draft.commit(replace(point, finished=self._tools.clock.now()))
        self._observer.step("committed")
        return _Copied(point, taken.evidence, confirmed, True)

    def _copier(
        self, planned: Planned, chain: Chain, draft: PointDraft, terms: Terms
    ) -> PointCopier:
        parent = planned.plan.parent
        lineage = () if parent is None else chain.lineage(parent.seq)
        return PointCopier(self._tools, self._store, chain, lineage, draft, terms)

    def _finish(
        self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt, copied: _Copied
    ) -> str:
        """End the job of a committed point. Returns what failed; the next run does it again."""
        try:
            self._reconciler.undo(vm, _as_stored(self._store, vm, chain), attempt)
            self._observer.step("ended")
            if planned.plan.new_chain and planned.chain is not None:
                why = planned.plan.reasons[0]
                self._store.archive(vm.uuid, planned.chain, why)
            point = copied.point if copied.committed else planned.plan.parent
            if copied.evidence is not None and point is not None:
                self._unchanged.note(chain, point, copied.evidence, copied.confirmed)
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""

    def _tidy(self, vm: Vm, wishes: Wishes) -> str:
        """Remove bitmaps that serve nothing any more. Returns what failed."""
        self._observer.step("tidy")
        try:
            self._reconciler.tidy(vm, track_snapshots=wishes.track_snapshots)
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""

    def _leave(self, vm: Vm) -> None:
        """Give up before the attempt began: what libvirt was told is all there is to undo."""
        try:
            self._reconciler.forget(vm)
            self._store.remove_empty_chains(vm.uuid)
        except (BabysitterError, OSError) as error:
            self._left(error)

    def _roll_back(self, vm: Vm, attempt: Attempt) -> None:
        """Undo an attempt, first at the VM, then in the store: either may have failed.

        What cannot be undone now is undone by the next run.
        """
        self._observer.step("roll back")
        try:
            access = self._reconciler.end_job(vm, attempt)
        except VmNotFound:
            access = Access.WAIT
        except (BabysitterError, OSError) as error:
            self._left(error)
            return
        try:
            for chain in self._store.chains(vm.uuid):
                if attempt in chain.attempts:
                    self._reconciler.clear(vm, chain, attempt, access)
            self._store.remove_empty_chains(vm.uuid)
        except (BabysitterError, OSError) as error:
            self._left(error)

    def _left(self, error: Exception) -> None:
        self._observer.note(f"Cleaning up is left to the next backup: {error}")


def _as_stored(store: Store, vm: Vm, chain: Chain) -> Chain:
    return next((c for c in store.chains(vm.uuid) if c.id == chain.id), chain)


def _manifest(
    vm: Vm, planned: Planned, attempt: Attempt, taken: Taken, copied: CopiedDisks
) -> Point:
    parent, created = planned.plan.parent, int(taken.at.timestamp())
    checkpoint = Checkpoint(attempt.checkpoint, created, taken.tracked, per_disk=True)
    return Point(
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        chain_id=attempt.chain_id,
        seq=attempt.seq,
        nonce=attempt.nonce,
        level=attempt.level,
        parent=None if parent is None else parent.seq,
        started=attempt.started,
        taken=taken.at,
        finished=taken.at,
        disks=copied.disks,
        files=(),
        checkpoint=checkpoint if taken.tracked else None,
        quiesced=taken.quiesced,
        quiesce_note=taken.note,
        warnings=(*planned.plan.warnings, *taken.warnings, *copied.warnings),
        versions=taken.versions,
        notes=planned.plan.notes,
        parent_nonce="" if parent is None else parent.nonce,
        off=access_of(vm.state) is Access.OFF,
    )


def _with_beside(point: Point, files: Sequence[SavedFile], kept: Kept) -> Point:
    warnings = (*point.warnings, *kept.warnings)
    return replace(point, files=tuple(files), warnings=warnings, autostart=kept.autostart)
