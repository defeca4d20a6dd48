"""The backup of one VM: of one moment, tried again if it is started or switched off meanwhile."""

from dataclasses import dataclass, replace

from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    Cancelled,
    VmInUse,
    VmNotFound,
    VmStopped,
)
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import Access, Vm, access_of
from vm_babysitter.engine.after_crash import AfterCrash
from vm_babysitter.engine.alive import check_nobody
from vm_babysitter.engine.attempt import PointMaker, Wishes
from vm_babysitter.engine.mending import Mender
from vm_babysitter.engine.quiesce import thaw_leftovers
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.tools import Tools
from vm_babysitter.engine.unchanged import Unchanged
from vm_babysitter.ports import Store

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


class Backup:
    """Makes the next restore point of a VM."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._tools = tools
        self._store = store
        self._observer = tools.observer
        self._reconciler = Reconciler(tools, store)
        self._mender = Mender(tools, store)
        self._unchanged = Unchanged(tools.sight, store)
        self._after_crash = AfterCrash(tools, store)
        self._maker = PointMaker(tools, store, self._reconciler, self._unchanged)

    def run(
        self,
        name: str,
        *,
        force_full: bool = False,
        reread_runs: int = DEFAULT_RUNS,
        track_snapshots: bool = False,
        longest: float | None = None,
    ) -> BackedUp:
        """Back up one VM. One that is started or switched off meanwhile is backed up again.

        Args:
            name: its name or UUID.
            force_full: begin a new chain.
            reread_runs: backups within which each block is read again that change tracking
                calls unchanged; 0 means never.
            track_snapshots: have change tracking in images with internal snapshots, too.
            longest: seconds that the copying may take, unless it is a full backup.

        Raises:
            BabysitterError: nothing that was there before has changed.
        """
        wishes = Wishes(force_full, reread_runs, track_snapshots, longest)
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
            not_noted = self._after_crash.note(result.point.vm_uuid)
        seconds = (self._tools.clock.now() - started).total_seconds()
        self._observer.step("done")
        return replace(
            result,
            seconds=seconds,
            left=result.left or not_noted,
            vm_resumed=self._reconciler.resumed,
        )

    def _once(self, name: str, wishes: Wishes) -> BackedUp:
        hypervisor = self._tools.hypervisor
        self._observer.step("look")
        thaw_leftovers(hypervisor, self._tools.guard, self._observer)
        outline = hypervisor.outline(name)
        check_nobody(self._tools.places, outline.name, self._store.chains(outline.uuid))
        self._mender.mend(outline.uuid)
        self._after_crash.check(name)
        known = None if wishes.force_full else self._unchanged.find(name)
        if known is not None:
            chain, point = known
            return BackedUp(chain.directory, point, 0.0, self._note_again(*known), unchanged=True)
        vm = self._settled(name)
        try:
            made = self._maker.make(vm, wishes)
        except BabysitterError as error:
            moved = self._moved(vm, error)
            if moved is not None:
                raise moved from error
            raise
        return BackedUp(made.chain.directory, made.point, 0.0, made.left, unchanged=not made.added)

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

    def _note_again(self, chain: Chain, point: Point) -> str:
        """Note that the VM is still what the point holds. Returns what failed."""
        try:
            self._unchanged.note_again(chain, point, self._tools.clock.now())
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""
