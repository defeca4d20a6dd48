"""The backup of one running VM: one atomic job, copied, checked, committed or undone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from vm_babysitter.domain.backup_plan import DiskPlan, Distrust
from vm_babysitter.domain.chain import (
    Attempt,
    Chain,
    Checkpoint,
    Point,
    bitmap_name,
    checkpoint_name,
    checkpoint_prefix,
)
from vm_babysitter.domain.errors import (
    BabysitterError,
    Cancelled,
    ScratchUnfit,
    VmNotFound,
    VmStopped,
)
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.beside import DEFINITION_FILE, Beside
from vm_babysitter.engine.disks import CopiedDisks, PointCopier, Terms
from vm_babysitter.engine.planning import Planned, Planner, check_idle
from vm_babysitter.engine.quiesce import Quiesced, quiesced, thaw_leftovers
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.space_guard import SpaceGuard
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import BackupRequest, DiskRequest, Export, PointDraft, Store

_ADOPT_TRIES = 8


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


@dataclass(frozen=True, slots=True)
class _Running:
    """A job under way and what is known of its moment."""

    attempt: Attempt
    exports: tuple[Export, ...]
    taken: datetime
    quiesced: Quiesced
    versions: dict[str, str]


class Backup:
    """Makes the next restore point of a VM."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._tools = tools
        self._store = store
        self._observer = tools.observer
        self._reconciler = Reconciler(tools.hypervisor, store, tools.places, tools.observer)
        self._space = SpaceGuard(tools.hypervisor, tools.places, store, tools.cancel)

    def run(
        self, name: str, *, force_full: bool = False, reread_runs: int = DEFAULT_RUNS
    ) -> BackedUp:
        """Back up one VM.

        Args:
            name: its name or UUID.
            force_full: begin a new chain.
            reread_runs: backups within which each block is read again that change tracking
                calls unchanged; 0 means never.

        Raises:
            BabysitterError: nothing that was there before has changed.
        """
        hypervisor = self._tools.hypervisor
        started = self._tools.clock.now()
        with self._store.lock():
            self._observer.step("look")
            vm = hypervisor.vm(name)
            planner = Planner(hypervisor, self._store)
            thaw_leftovers(hypervisor, self._tools.guard, self._observer)
            self._reconciler.reconcile(vm)
            if self._reconciler.resumed:
                vm = hypervisor.vm(vm.uuid)
            check_idle(hypervisor, vm)
            self._observer.step("plan")
            try:
                planned = self._adopt(planner, vm, force_full=force_full)
                self._observer.step("adopted")
                chain, attempt = self._new_attempt(vm, planned, started)
            except BaseException:
                self._leave(vm)
                raise
            try:
                self._observer.step("mark")
                point = self._attempt(vm, planned, chain, attempt, reread_runs)
            except BaseException as error:
                stopped = self._roll_back(vm, attempt)
                if (
                    stopped
                    and isinstance(error, BabysitterError)
                    and not isinstance(error, Cancelled)
                ):
                    raise VmStopped(vm.name) from error
                raise
            left = self._finish(vm, planned, chain, attempt)
        seconds = (self._tools.clock.now() - started).total_seconds()
        self._observer.step("done")
        resumed = self._reconciler.resumed
        return BackedUp(chain.directory, point, seconds, left, resumed)

    def _adopt(self, planner: Planner, vm: Vm, *, force_full: bool) -> Planned:
        """Plan, and have libvirt validate every bitmap that the plan trusts."""
        distrusted: set[Distrust] = set()
        for _ in range(_ADOPT_TRIES):
            planned = planner.plan(vm, force_full=force_full, distrusted=distrusted)
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
        return planner.plan(vm, force_full=force_full, distrusted=distrusted | everything)

    def _new_attempt(self, vm: Vm, planned: Planned, started: datetime) -> tuple[Chain, Attempt]:
        clock, places = self._tools.clock, self._tools.places
        if planned.plan.new_chain or planned.chain is None:
            chain = self._store.new_chain(vm, clock.new_id(), started)
        else:
            chain = planned.chain
        nonce, seq = clock.new_nonce(), chain.next_seq
        return chain, Attempt(
            vm_uuid=vm.uuid,
            chain_id=chain.id,
            seq=seq,
            level=planned.plan.level,
            nonce=nonce,
            checkpoint=checkpoint_name(chain.id, seq, nonce),
            socket=places.socket_path(nonce),
            scratch=tuple(places.scratch_path(d.path, nonce, d.target) for d in planned.plan.disks),
            started=started,
            ran=vm.state is PowerState.RUNNING,
        )

    def _attempt(
        self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt, reread_runs: int
    ) -> Point:
        draft = self._store.begin(chain, attempt)
        self._probe(attempt)
        targets = [disk.target for disk in planned.plan.disks]
        scratch = self._space.check(vm, list(zip(targets, attempt.scratch, strict=True)))
        beside = Beside(self._tools, vm.uuid, first=planned.plan.new_chain)
        running = self._begin(vm, planned.plan.disks, attempt)
        with self._space.watching(vm, scratch, partial(self._reconciler.end_job, vm, attempt)):
            kept = beside.save(draft)
            definition = self._tools.hypervisor.definition(vm.uuid)
            self._observer.step("copy")
            terms = Terms(reread_runs, self._space.reserve(scratch))
            copier = self._copier(planned, chain, draft, terms)
            with self._tools.priority():
                copied = copier.copy(vm, attempt.socket, planned.plan.disks, running.exports)
            self._observer.step("save")
            files = (draft.save(DEFINITION_FILE, definition.encode()), *kept.files)
            point = self._manifest(vm, planned, running, copied)
            warnings = (*point.warnings, *kept.warnings)
            point = replace(point, files=files, warnings=warnings, autostart=kept.autostart)
            self._observer.step("commit")
            self._tools.cancel.check()
            point = replace(point, finished=self._tools.clock.now())
            draft.commit(point)
        self._observer.step("committed")
        return point

    def _probe(self, attempt: Attempt) -> None:
        self._observer.step("probe")
        for path in attempt.scratch:
            reason = self._tools.places.probe(path)
            if reason:
                raise ScratchUnfit(path, reason)

    def _begin(self, vm: Vm, disks: Sequence[DiskPlan], attempt: Attempt) -> _Running:
        hypervisor = self._tools.hypervisor
        request = BackupRequest(
            attempt.socket,
            tuple(
                DiskRequest(
                    d.target,
                    scratch,
                    None if d.since is None else d.since.name,
                    bitmap_name(attempt.checkpoint, d.target) if d.track else None,
                )
                for d, scratch in zip(disks, attempt.scratch, strict=True)
            ),
        )
        state = Quiesced(False, "")
        taken = self._tools.clock.now()

        @contextmanager
        def moment() -> Iterator[None]:
            nonlocal state, taken
            with quiesced(hypervisor, self._tools.guard, self._observer, vm) as state:
                self._observer.step("begin")
                yield
                taken = self._tools.clock.now()

        exports = hypervisor.begin_backup(vm.uuid, request, moment)
        self._observer.step("begun")
        # Right away: metadata that a crash leaves would break removing the VM in Unraid's GUI.
        hypervisor.forget_checkpoints(vm.uuid, checkpoint_prefix(attempt.chain_id))
        versions = {**self._tools.versions, **hypervisor.versions()}
        return _Running(attempt, exports, taken, state, versions)

    def _copier(
        self, planned: Planned, chain: Chain, draft: PointDraft, terms: Terms
    ) -> PointCopier:
        parent = planned.plan.parent
        lineage = () if parent is None else chain.lineage(parent.seq)
        return PointCopier(self._tools, self._store, chain, lineage, draft, terms)

    def _manifest(self, vm: Vm, planned: Planned, running: _Running, copied: CopiedDisks) -> Point:
        attempt, parent = running.attempt, planned.plan.parent
        tracked = tuple(d.target for d in planned.plan.disks if d.track)
        created = int(running.taken.timestamp())
        checkpoint = Checkpoint(attempt.checkpoint, created, tracked, per_disk=True)
        return Point(
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            chain_id=attempt.chain_id,
            seq=attempt.seq,
            nonce=attempt.nonce,
            level=attempt.level,
            parent=None if parent is None else parent.seq,
            started=attempt.started,
            taken=running.taken,
            finished=running.taken,
            disks=copied.disks,
            files=(),
            checkpoint=checkpoint if tracked else None,
            quiesced=running.quiesced.done,
            quiesce_note=running.quiesced.note,
            warnings=(*planned.plan.notes, *copied.warnings),
            versions=running.versions,
        )

    def _finish(self, vm: Vm, planned: Planned, chain: Chain, attempt: Attempt) -> str:
        """End the job of a committed point. Returns what failed; the next run does it again."""
        try:
            self._reconciler.undo(vm, _with_commit(self._store, vm, chain), attempt)
            self._observer.step("ended")
            if planned.plan.new_chain and planned.chain is not None:
                why = planned.plan.reasons[0]
                self._store.archive(vm.uuid, planned.chain, why)
            self._observer.step("tidy")
            self._reconciler.tidy(vm)
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

    def _roll_back(self, vm: Vm, attempt: Attempt) -> bool:
        """Undo an attempt, first at the VM, then in the store: either may have failed.

        What cannot be undone now is undone by the next run. Returns whether the VM has stopped.
        """
        self._observer.step("roll back")
        try:
            running = self._reconciler.end_job(vm, attempt)
        except VmNotFound:
            running = False
        except (BabysitterError, OSError) as error:
            self._left(error)
            return False
        try:
            for chain in self._store.chains(vm.uuid):
                if attempt in chain.attempts:
                    self._reconciler.clear(vm, chain, attempt, running=running)
            self._store.remove_empty_chains(vm.uuid)
        except (BabysitterError, OSError) as error:
            self._left(error)
        return not running

    def _left(self, error: Exception) -> None:
        self._observer.note(f"Cleaning up is left to the next backup: {error}")


def _with_commit(store: Store, vm: Vm, chain: Chain) -> Chain:
    return next((c for c in store.chains(vm.uuid) if c.id == chain.id), chain)
