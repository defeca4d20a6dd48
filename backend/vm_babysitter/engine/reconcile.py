"""Cleans up what an earlier attempt left: only what is provably ours."""

import threading
from pathlib import Path

from vm_babysitter.domain.bitmaps import (
    belongs_to,
    bitmaps_of,
    removable_bitmaps,
)
from vm_babysitter.domain.chain import Attempt, Chain, ChainState, live_chain
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.findings import STUCK
from vm_babysitter.domain.point import checkpoint_name, checkpoint_prefix
from vm_babysitter.domain.vm import (
    Access,
    PowerState,
    Verdict,
    Vm,
    access_of,
    eligible_disks,
    judge_disk,
)
from vm_babysitter.engine.alive import check_free, check_nobody, check_really_off, unmarked
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import JobKind, Store


class Reconciler:
    """Undoes attempts and removes change tracking that serves nothing any more."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._hypervisor = tools.hypervisor
        self._offline = tools.offline
        self._bitmaps = tools.bitmaps
        self._places = tools.places
        self._host = tools.host
        self._clock = tools.clock
        self._observer = tools.observer
        self._store = store
        self._ending = threading.Lock()
        self.resumed = False
        """Whether a VM was found paused for want of space and made to go on."""

    def reconcile(self, vm: Vm) -> None:
        """Undo every unfinished attempt at a backup of this VM in this store.

        Raises:
            Busy: a process is at one of them, which is in this store as a copy, or another libvirt
                has its job. Nothing is done.
            BabysitterError.
        """
        chains = self._store.chains(vm.uuid)
        check_nobody(self._places, vm.name, chains)
        check_really_off(self._places, self._host, self._hypervisor.uri, vm, chains)
        for chain in chains:
            for attempt in chain.attempts:
                if not self.undo(vm, chain, attempt):
                    continue
                what = "was completed" if _committed(chain, attempt) else "was undone"
                name = f"{chain.directory}/{attempt.seq:06d}"
                self._observer.note(f"The backup {name}, which was interrupted, {what}.")
        self._end_unmarked_job(vm)
        self.forget(vm)
        self._store.remove_empty_chains(vm.uuid)
        self._archive_older(vm)
        self._places.remove_abandoned()

    def _end_unmarked_job(self, vm: Vm) -> None:
        """End the job of an attempt whose mark in the store is damaged or lost."""
        job = self._hypervisor.active_job(vm.uuid)
        if job is None or job.kind is not JobKind.BACKUP or not job.socket:
            return
        states = self._hypervisor.disk_states(vm.uuid)
        found = unmarked(self._places, self._store.chains(vm.uuid), states, job)
        if found is None:
            return
        chain, seq, nonce = found
        check_free(self._places, vm.name, nonce)
        self.end_job(vm, self._as_marked(vm, chain, seq, nonce))
        name = f"{chain.directory}/{seq:06d}"
        self._observer.note(f"The job of the interrupted backup {name} was ended.")
        if self._hypervisor.power(vm.uuid) is PowerState.STUCK:
            # Whether it ran before was in the mark.
            self._observer.note(f"{STUCK[0].upper()}{STUCK[1:]}.")

    def _as_marked(self, vm: Vm, chain: Chain, seq: int, nonce: str) -> Attempt:
        """Return what the lost mark of an attempt has said, as far as it matters for its job."""
        scratch = (self._places.scratch_path(d.path, nonce, d.target) for d in vm.disks)
        return Attempt(
            vm_uuid=vm.uuid,
            chain_id=chain.id,
            seq=seq,
            level="inc",
            nonce=nonce,
            checkpoint=checkpoint_name(chain.id, seq, nonce),
            socket=self._places.socket_path(nonce),
            scratch=tuple(scratch),
            started=self._clock.now(),
        )

    def _archive_older(self, vm: Vm) -> None:
        """Do what a backup that died after its new full was to do: let only one chain grow."""
        chains = self._store.chains(vm.uuid)
        newest = live_chain(chains)
        if newest is None or not newest.points:  # a full that was never completed closes nothing
            return
        for chain in chains:
            older = (chain.created, chain.directory) < (newest.created, newest.directory)
            if chain.state is ChainState.LIVE and older:
                self._store.archive(vm.uuid, chain, "a newer backup series was begun")

    def forget(self, vm: Vm) -> None:
        """Have libvirt forget the checkpoints of this VM's chains; their bitmaps stay."""
        for chain in self._store.chains(vm.uuid):
            self._hypervisor.forget_checkpoints(vm.uuid, checkpoint_prefix(chain.id))

    def undo(self, vm: Vm, chain: Chain, attempt: Attempt) -> bool:
        """End an attempt: of one that was committed, only its job and working files remain.

        The attempt's mark in the store goes last: killed in between, the next run does it again.
        It stays where bitmaps of the attempt cannot be removed now: without it nobody would
        know whose they are.

        Returns whether nothing is left to be done.
        """
        return self.clear(vm, chain, attempt, self.end_job(vm, attempt))

    def clear(self, vm: Vm, chain: Chain, attempt: Attempt, access: Access) -> bool:
        """Remove the bitmaps and the files of an attempt whose job has ended, then its mark.

        Returns whether nothing is left to be done.
        """
        done = _committed(chain, attempt) or self._remove_bitmaps(vm, attempt, access)
        self._store.sweep(attempt, keep_mark=not done)
        return done

    def end_job(self, vm: Vm, attempt: Attempt) -> Access:
        """End an attempt as far as the host goes: its job, metadata, scratch and socket.

        A VM that QEMU paused for want of space goes on, once the scratch files are gone. Needs
        no store, which may be what has failed. Returns how the VM's disks can be reached.
        """
        with self._ending:  # the guard of a backup may be at it, too
            return self._end_job(vm, attempt)

    def _end_job(self, vm: Vm, attempt: Attempt) -> Access:
        if attempt.socket:  # else it was to read the images of a VM that is off
            job = self._hypervisor.active_job(vm.uuid)
            if job is not None and job.kind is JobKind.BACKUP and job.socket == attempt.socket:
                self._hypervisor.end_backup(vm.uuid)
            self._places.remove(attempt.socket, attempt.nonce)
        self._hypervisor.forget_checkpoints(vm.uuid, checkpoint_prefix(attempt.chain_id))
        for path in attempt.scratch:
            self._places.remove(path, attempt.nonce)
        if attempt.ran and self._hypervisor.power(vm.uuid) is PowerState.STUCK:
            self._hypervisor.resume(vm.uuid)
            self.resumed = True
            self._observer.note(
                "QEMU had paused the VM because of a disk error during the backup, for want of "
                "working space most likely; it goes on now."
            )
        return access_of(self._hypervisor.power(vm.uuid))

    def tidy(self, vm: Vm, *, track_snapshots: bool = False) -> None:
        """Remove our bitmaps that no further backup will use, or that are in the user's way."""
        states = self._hypervisor.disk_states(vm.uuid)
        chains = self._store.chains(vm.uuid)
        for name, targets in removable_bitmaps(states, chains, track_snapshots=track_snapshots):
            self._hypervisor.remove_bitmaps(vm.uuid, name, targets)

    def _remove_bitmaps(self, vm: Vm, attempt: Attempt, access: Access) -> bool:
        """Remove the bitmaps that an attempt made. Returns whether none is left."""
        if access is Access.WAIT:
            return False
        if access is Access.OFF:
            return self._remove_from_images(vm, attempt)
        states = self._hypervisor.disk_states(vm.uuid)
        for name, targets in bitmaps_of(states, attempt.checkpoint):
            self._hypervisor.remove_bitmaps(vm.uuid, name, targets)
        return True

    def _remove_from_images(self, vm: Vm, attempt: Attempt) -> bool:
        """Do so while the VM is off, if nobody has the images open; else it waits.

        Mostly there are none: QEMU stores the bitmaps that a job made only when it ends well.
        """
        if any(judge_disk(disk).verdict is Verdict.REFUSED for disk in vm.disks):
            return False  # an image that is away for now may have some
        try:
            for verdict in eligible_disks(vm):
                state = self._offline.look(verdict.disk).state
                for layer in state.layers:
                    for bitmap in layer.bitmaps:
                        if belongs_to(bitmap.name, attempt.checkpoint):
                            self._bitmaps.remove(Path(layer.path), bitmap.name)
        except BabysitterError as error:
            self._observer.note(f"Removing change tracking waits until the VM runs: {error}")
            return False
        return True


def _committed(chain: Chain, attempt: Attempt) -> bool:
    stored = chain.find(attempt.seq)
    return stored is not None and stored.point.nonce == attempt.nonce
