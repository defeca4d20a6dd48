"""A VM that runs: its disks are read through one atomic backup job of its QEMU."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from vm_babysitter.domain.backup_plan import DiskPlan
from vm_babysitter.domain.chain import Attempt
from vm_babysitter.domain.errors import ScratchUnfit
from vm_babysitter.domain.point import bitmap_name, checkpoint_prefix
from vm_babysitter.domain.space import Scratch
from vm_babysitter.domain.vm import Vm
from vm_babysitter.engine.quiesce import Quiesced, quiesced
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.source import Taken
from vm_babysitter.engine.space_guard import SpaceGuard
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import BackupRequest, DiskReader, DiskRequest, Export


class LiveSource:
    """Implements ``source.Source``."""

    def __init__(
        self,
        tools: Tools,
        space: SpaceGuard,
        reconciler: Reconciler,
        vm: Vm,
        plans: Sequence[DiskPlan],
        attempt: Attempt,
    ) -> None:
        self._tools = tools
        self._space = space
        self._reconciler = reconciler
        self._vm = vm
        self._plans = plans
        self._attempt = attempt
        self._scratch: list[Scratch] = []
        self._exports: dict[str, Export] = {}

    def prepare(self) -> None:
        """See ``source.Source``."""
        self._tools.observer.step("probe")
        for path in self._attempt.scratch:
            reason = self._tools.places.probe(path)
            if reason:
                raise ScratchUnfit(path, reason)
        targets = [plan.target for plan in self._plans]
        paths = list(zip(targets, self._attempt.scratch, strict=True))
        self._scratch = self._space.check(self._vm, paths)

    def begin(self) -> Taken:
        """Start the job, the guest frozen for its start if an agent is there."""
        hypervisor, vm, clock = self._tools.hypervisor, self._vm, self._tools.clock
        state = Quiesced(False, "")
        at = clock.now()

        @contextmanager
        def moment() -> Iterator[None]:
            nonlocal state, at
            with quiesced(hypervisor, self._tools.guard, self._tools.observer, vm) as state:
                self._tools.observer.step("begin")
                yield
                at = clock.now()

        exports = hypervisor.begin_backup(vm.uuid, self._request(), moment)
        self._exports = {export.target: export for export in exports}
        self._tools.observer.step("begun")
        # Right away: metadata that a crash leaves would break removing the VM in Unraid's GUI.
        hypervisor.forget_checkpoints(vm.uuid, checkpoint_prefix(self._attempt.chain_id))
        versions = {**self._tools.versions, **hypervisor.versions()}
        tracked = tuple(plan.target for plan in self._plans if plan.track)
        return Taken(at, state.done, state.note, versions, tracked)

    def _request(self) -> BackupRequest:
        attempt = self._attempt
        disks = tuple(
            DiskRequest(
                plan.target,
                scratch,
                None if plan.since is None else plan.since.name,
                bitmap_name(attempt.checkpoint, plan.target) if plan.track else None,
            )
            for plan, scratch in zip(self._plans, attempt.scratch, strict=True)
        )
        return BackupRequest(attempt.socket, disks)

    def watching(self) -> AbstractContextManager[None]:
        """See ``source.Source``."""
        end = partial(self._reconciler.end_job, self._vm, self._attempt)
        return self._space.watching(self._vm, self._scratch, end)

    def reserve(self) -> int:
        """See ``source.Source``."""
        return self._space.reserve(self._scratch)

    def open(self, plan: DiskPlan) -> AbstractContextManager[DiskReader]:
        """See ``source.Source``."""
        export = self._exports[plan.target]
        return self._tools.exports.open(self._attempt.socket, export.name, export.bitmap)

    def confirm(self) -> None:
        """See ``source.Source``: the job itself keeps the moment, and ends with the VM."""
