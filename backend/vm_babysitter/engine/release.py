"""Gives a VM back: nothing of ours is left in its images. Its restore points stay."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.domain.bitmaps import Found, is_ours, our_bitmaps
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import BabysitterError, Busy, VmNotFound
from vm_babysitter.domain.vm import Access, Disk, DiskState, Verdict, Vm, access_of, judge_disk
from vm_babysitter.engine.catalog import find_vm
from vm_babysitter.engine.planning import check_idle
from vm_babysitter.engine.quiesce import thaw_leftovers
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import Store

_TRIES = 3
"""For a VM that is started or switched off meanwhile."""
_GONE = (
    "libvirt has no such VM any more. Should its images still be kept, change tracking may be in "
    "them; it does no harm."
)


@dataclass(frozen=True, slots=True)
class Removed:
    """Change tracking that was removed."""

    disk: str
    bitmap: str


@dataclass(frozen=True, slots=True)
class Released:
    """What giving a VM back came to."""

    vm: str
    uuid: str
    removed: tuple[Removed, ...]
    left: tuple[str, ...]
    """What of ours is still there, and why; releasing the VM again removes it."""
    notes: tuple[str, ...]
    """What was found beside."""

    @property
    def summary(self) -> str:
        """What it came to, one sentence or two."""
        disks = ", ".join(sorted({each.disk for each in self.removed}))
        said = (
            f"Change tracking was removed from {disks}."
            if disks
            else "No change tracking was there."
        )
        if self.left:
            said = (
                f"{said.removesuffix('.')}, but not all."
                if disks
                else "No change tracking was removed."
            )
        return f"{said} Its restore points stay."


class _Moved(Exception):
    """The VM was started, or switched off, while it was cleared."""


class Release:
    """Removes what backups of ours put into VMs: change tracking, and what a killed one left."""

    def __init__(self, tools: Tools, store: Store | None) -> None:
        """``store`` is None where there is no backup folder: nothing is told to be ours then."""
        self._tools = tools
        self._hypervisor = tools.hypervisor
        self._observer = tools.observer
        self._store = store

    def run(self, name: str, *, any_folder: bool = False) -> Released:
        """Remove all that is ours from the images of a VM, running or off.

        Killed at any moment, it is done again by running it again. The backups that are there
        restore as before, and the next one, if there is to be one, compares all disks.

        Args:
            name: name or UUID of the VM.
            any_folder: remove the change tracking of all backup folders of ours, which may be
                gone, and not just that of this one.

        Raises:
            VmNotFound: neither libvirt nor the backup folder has it.
            Busy: a backup of it is running, or it does not come to rest.
            BabysitterError.
        """
        with self._lock():
            thaw_leftovers(self._hypervisor, self._tools.guard, self._observer)
            self._observer.step("look")
            try:
                uuid = self._hypervisor.outline(name).uuid
            except VmNotFound:
                return self._gone(name)
            removed: list[Removed] = []
            for _ in range(_TRIES):
                try:
                    return self._once(uuid, removed, any_folder=any_folder)
                except _Moved:
                    self._observer.note("The VM was started or switched off; once more.")
        raise Busy(f"VM {name!r}", "it is started and switched off again and again")

    def _lock(self) -> AbstractContextManager[object]:
        return nullcontext() if self._store is None else self._store.lock()

    def _gone(self, name: str) -> Released:
        if self._store is None:
            raise VmNotFound(name)
        stored = find_vm(self._store, name)
        return Released(stored.names[-1], stored.uuid, (), (), (_GONE,))

    def _once(self, uuid: str, removed: list[Removed], *, any_folder: bool) -> Released:
        vm = self._hypervisor.vm(uuid)
        chains = () if self._store is None else self._store.chains(uuid)
        if access_of(vm.state) is Access.WAIT:
            raise Busy(f"VM {vm.name!r}", f"it is {vm.state}")
        if self._store is not None:
            Reconciler(self._tools, self._store).reconcile(vm)
        check_idle(self._hypervisor, vm)
        work = _Clearing(self._tools, vm, chains, removed, any_folder=any_folder)
        work.clear()
        self._observer.step("done")
        return Released(vm.name, uuid, tuple(removed), tuple(work.left), tuple(work.notes))


class _Clearing:
    """Clears one VM in the state in which it was found."""

    def __init__(
        self,
        tools: Tools,
        vm: Vm,
        chains: Sequence[Chain],
        removed: list[Removed],
        *,
        any_folder: bool,
    ) -> None:
        """``removed`` is added to."""
        self._tools = tools
        self._hypervisor = tools.hypervisor
        self._vm = vm
        self._chains = chains
        self._removed = removed
        self._any_folder = any_folder
        self.left: list[str] = []
        self.notes: list[str] = []

    def clear(self) -> None:
        """Remove metadata of checkpoints and bitmaps.

        Raises:
            _Moved, BabysitterError.
        """
        uuid = self._vm.uuid
        for name in filter(self._ours, self._hypervisor.checkpoints(uuid)):
            self._hypervisor.forget_checkpoints(uuid, name)
        if access_of(self._vm.state) is Access.LIVE:
            self._clear_live()
        else:
            self._clear_images()

    def _ours(self, name: str) -> bool:
        if is_ours(name, self._chains, any_folder=self._any_folder):
            return True
        if is_ours(name, (), any_folder=True):
            self._note(
                f"{name!r} is of another backup folder of VM Babysitter, and stays; "
                "--any-folder removes it, too."
            )
        return False

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _clear_live(self) -> None:
        states, failed = self._states(), set[str]()
        for name in sorted({b.name for s in states for layer in s.layers for b in layer.bitmaps}):
            self._ours(name)  # has those of other folders told
        for name, targets in self._found(states):
            self._step(*targets)
            try:
                self._hypervisor.remove_bitmaps(self._vm.uuid, name, targets)
            except BabysitterError as error:
                self._check_unmoved(error)
                failed.add(name)
                for target in targets:
                    self._leave(target, error)
            else:
                self._removed.extend(Removed(target, name) for target in targets)
        for name, targets in self._found(self._states()):
            if name not in failed:
                self.left += [f"Disk {target}: {name!r} is still there." for target in targets]

    def _states(self) -> tuple[DiskState, ...]:
        try:
            return self._hypervisor.disk_states(self._vm.uuid)
        except BabysitterError as error:
            self._check_unmoved(error)
            raise

    def _found(self, states: Sequence[DiskState]) -> Found:
        return our_bitmaps(states, self._chains, any_folder=self._any_folder)

    def _clear_images(self) -> None:
        for found in map(judge_disk, self._vm.disks):
            if found.verdict is Verdict.REFUSED:
                self.left.append(f"Disk {found.disk.target}: {found.reason}.")
            elif found.verdict is not Verdict.LEFT_OUT:
                self._clear_disk(found.disk)

    def _clear_disk(self, disk: Disk) -> None:
        try:
            layers = self._tools.offline.look(disk).state.layers
        except BabysitterError as error:
            self._check_unmoved(error)
            self._leave(disk.target, error)
            return
        for layer in layers:
            for name in (bitmap.name for bitmap in layer.bitmaps if self._ours(bitmap.name)):
                self._step(disk.target)
                try:
                    self._tools.bitmaps.remove(Path(layer.path), name)
                except BabysitterError as error:
                    self._check_unmoved(error)
                    self._leave(disk.target, error)
                    break  # the others of this image would fail for the same reason
                self._removed.append(Removed(disk.target, name))

    def _step(self, *targets: str) -> None:
        self._check_unmoved(None)
        self._tools.cancel.check()
        self._tools.observer.step(f"clear {', '.join(targets)}")

    def _leave(self, target: str, error: BabysitterError) -> None:
        self.left.append(f"Disk {target}: {error.message} {error.hint}".rstrip())

    def _check_unmoved(self, error: BabysitterError | None) -> None:
        """Raise _Moved if the VM was started or switched off meanwhile."""
        if access_of(self._hypervisor.power(self._vm.uuid)) is not access_of(self._vm.state):
            raise _Moved from error
