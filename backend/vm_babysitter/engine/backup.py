"""The backup of one VM: of one moment, copied, checked, committed or undone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from vm_babysitter.domain.backup_plan import Distrust
from vm_babysitter.domain.bitmaps import bitmaps_in_the_way
from vm_babysitter.domain.chain import (
    Attempt,
    Chain,
    Checkpoint,
    Point,
    SavedFile,
    checkpoint_name,
)
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    Cancelled,
    VmInUse,
    VmNotFound,
    VmStopped,
)
from vm_babysitter.domain.offline import Evidence
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import Access, PowerState, Vm, access_of
from vm_babysitter.engine.beside import DEFINITION_FILE, Beside, Kept
from vm_babysitter.engine.disks import CopiedDisks, PointCopier, Terms
from vm_babysitter.engine.live import LiveSource
from vm_babysitter.engine.off import OffSource
from vm_babysitter.engine.planning import Planned, Planner, check_idle
from vm_babysitter.engine.quiesce import thaw_leftovers
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.source import Source, Taken
from vm_babysitter.engine.space_guard import SpaceGuard
from vm_babysitter.engine.tools import Tools
from vm_babysitter.engine.unchanged import Unchanged, adds_nothing
from vm_babysitter.ports import PointDraft, Store

_ADOPT_TRIES = 8
_TRIES = 3
"""Attempts at a VM that is started or switched off meanwhile."""
_PATIENCE = 60.0
"""Seconds that a VM has to shut down."""
_POLL = 0.5


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup came to."""

    chain: str
    point: Point
    seconds: float
    left: str = ""
    """What of the cleaning up failed and is left to the next backup; empty if nothing."""
    vm_resumed: bool = False
    """Whether QEMU had paused the VM for want of working space, in this backup or one before."""
    unchanged: bool = False
    """Whether the VM, which is off, still is what ``point`` holds: no new one was made."""


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What is asked of a backup, see ``Backup.run``."""

    force_full: bool
    reread_runs: int
    track_snapshots: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """A point as an attempt made it."""

    point: Point
    evidence: Evidence | None
    confirmed: datetime
    """When the disks were known last to be what the point holds."""
    committed: bool
    """False where it would have added nothing."""


class Backup:
    """Makes the next restore point of a VM."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._tools = tools
        self._store = store
        self._observer = tools.observer
        self._reconciler = Reconciler(tools, store)
        self._space = SpaceGuard(tools.hypervisor, tools.places, store, tools.cancel)
        self._unchanged = Unchanged(tools.sight, store)

    def run(
        self,
        name: str,
        *,
        force_full: bool = False,
        reread_runs: int = DEFAULT_RUNS,
        track_snapshots: bool = False,
    ) -> BackedUp:
        """Back up one VM. One that is started or switched off meanwhile is backed up again.

        Args:
            name: its name or UUID.
            force_full: begin a new chain.
            reread_runs: backups within which each block is read again that change tracking
                calls unchanged; 0 means never.
            track_snapshots: have change tracking in images with internal snapshots, too.

        Raises:
            BabysitterError: nothing that was there before has changed.
        """
        wishes = _Wishes(force_full, reread_runs, track_snapshots)
        started = self._tools.clock.now()
        with self._store.lock():
            for left in reversed(range(_TRIES)):
                try:
                    result = self._once(name, wishes)
                    break
                except (VmInUse, VmStopped) as error:
                    if not left:
                        raise
                    self._observer.note(f"{error.message} It is backed up once more.")
                    self._tools.cancel.recover()
                    self._tools.cancel.check()  # who said stop gets no other try
        seconds = (self._tools.clock.now() - started).total_seconds()
        self._observer.step("done")
        return replace(result, seconds=seconds, vm_resumed=self._reconciler.resumed)

    def _once(self, name: str, wishes: _Wishes) -> BackedUp:
        hypervisor = self._tools.hypervisor
        self._observer.step("look")
        thaw_leftovers(hypervisor, self._tools.guard, self._observer)
        known = None if wishes.force_full else self._unchanged.find(name)
        if known is not None:
            chain, point = known
            return BackedUp(chain.directory, point, 0.0, self._note_again(*known), unchanged=True)
        vm = self._settled(name)
        try:
            return self._make(vm, wishes)
        except BabysitterError as error:
            moved = self._moved(vm, error)
            if moved is not None:
                raise moved from error
            raise

    def _make(self, vm: Vm, wishes: _Wishes) -> BackedUp:
        """Make the next point of a VM as it was found; fails if it starts or stops meanwhile."""
        hypervisor = self._tools.hypervisor
        self._reconciler.reconcile(vm)
        if self._reconciler.resumed:
            vm = hypervisor.vm(vm.uuid)
        check_idle(hypervisor, vm)
        self._observer.step("plan")
        try:
            planned = self._adopt(vm, wishes)
            self._observer.step("adopted")
            chain, attempt = self._new_attempt(vm, planned)
        except BaseException:
            self._leave(vm)
            raise
        try:
            self._observer.step("mark")
            made = self._attempt(vm, planned, chain, attempt, wishes)
        except BaseException:
            self._roll_back(vm, attempt)
            raise
        left = self._finish(vm, planned, chain, attempt, made)
        if access_of(vm.state) is Access.LIVE:
            left = left or self._tidy(vm, wishes)
        kept = made.point if made.committed or planned.plan.parent is None else planned.plan.parent
        return BackedUp(chain.directory, kept, 0.0, left, unchanged=not made.committed)

    def _moved(self, vm: Vm, error: BabysitterError) -> BabysitterError | None:
        """Return what explains an error: that the VM was started or switched off meanwhile."""
        if isinstance(error, Cancelled | VmInUse | VmNotFound):
            return None
        try:
            now = access_of(self._tools.hypervisor.power(vm.uuid))
        except BabysitterError:
            return None
        if now is access_of(vm.state):
            return None
        was_off = access_of(vm.state) is Access.OFF
        return VmInUse(vm.name, "it was started") if was_off else VmStopped(vm.name)

    def _settled(self, name: str) -> Vm:
        """Return a VM that neither starts nor stops: one that shuts down is waited for.

        Raises:
            Busy: it does not come to rest.
        """
        hypervisor, waited = self._tools.hypervisor, 0.0
        vm = hypervisor.vm(name)
        while access_of(vm.state) is Access.WAIT:
            while access_of(hypervisor.power(vm.uuid)) is Access.WAIT:
                if waited >= _PATIENCE:
                    raise Busy(f"VM {vm.name!r}", f"it is {vm.state}")
                self._tools.cancel.wait(_POLL)
                waited += _POLL
            vm = hypervisor.vm(vm.uuid)
        return vm

    def _adopt(self, vm: Vm, wishes: _Wishes) -> Planned:
        """Plan, and have libvirt validate every bitmap that the plan trusts.

        It can do so only while QEMU runs. Of a VM that is off the image itself tells enough:
        what QEMU has stored in good order is whole.
        """
        plan = partial(
            Planner(self._tools.sight, self._store).plan,
            vm,
            force_full=wishes.force_full,
            track_snapshots=wishes.track_snapshots,
        )
        if access_of(vm.state) is Access.OFF:
            return plan()
        distrusted: set[Distrust] = set()
        for _ in range(_ADOPT_TRIES):
            planned = plan(distrusted=distrusted)
            refused = [
                Distrust(disk.target, disk.since.name)
                for disk in planned.plan.disks
                if disk.since is not None
                and not self._tools.hypervisor.adopt_checkpoint(vm.uuid, disk.since)
            ]
            if not refused:
                return planned
            distrusted |= set(refused)
        everything = {
            Distrust(d.target, d.since.name) for d in planned.plan.disks if d.since is not None
        }
        return plan(distrusted=distrusted | everything)

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
        )

    def _source(self, vm: Vm, planned: Planned, attempt: Attempt, wishes: _Wishes) -> Source:
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

    def _attempt(
        self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt, wishes: _Wishes
    ) -> _Made:
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
                return _Made(point, taken.evidence, confirmed, False)
            self._observer.step("commit")
            self._tools.cancel.check()
            draft.commit(replace(point, finished=self._tools.clock.now()))
        self._observer.step("committed")
        return _Made(point, taken.evidence, confirmed, True)

    def _copier(
        self, planned: Planned, chain: Chain, draft: PointDraft, terms: Terms
    ) -> PointCopier:
        parent = planned.plan.parent
        lineage = () if parent is None else chain.lineage(parent.seq)
        return PointCopier(self._tools, self._store, chain, lineage, draft, terms)

    def _finish(self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt, made: _Made) -> str:
        """End the job of a committed point. Returns what failed; the next run does it again."""
        try:
            self._reconciler.undo(vm, _as_stored(self._store, vm, chain), attempt)
            self._observer.step("ended")
            if planned.plan.new_chain and planned.chain is not None:
                why = planned.plan.reasons[0]
                self._store.archive(vm.uuid, planned.chain, why)
            point = made.point if made.committed else planned.plan.parent
            if made.evidence is not None and point is not None:
                self._unchanged.note(chain, point, made.evidence, made.confirmed)
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""

    def _tidy(self, vm: Vm, wishes: _Wishes) -> str:
        """Remove bitmaps that serve nothing any more. Returns what failed."""
        self._observer.step("tidy")
        try:
            self._reconciler.tidy(vm, track_snapshots=wishes.track_snapshots)
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""

    def _note_again(self, chain: Chain, point: Point) -> str:
        """Note that the VM is still what the point holds. Returns what failed."""
        try:
            self._unchanged.note_again(chain, point, self._tools.clock.now())
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
        off=access_of(vm.state) is Access.OFF,
    )


def _with_beside(point: Point, files: Sequence[SavedFile], kept: Kept) -> Point:
    warnings = (*point.warnings, *kept.warnings)
    return replace(point, files=tuple(files), warnings=warnings, autostart=kept.autostart)
