"""What was written last before a host went down hard is read again before anything builds on it.

A disk that lies about having stored what it was told to store loses it in a power cut, whatever
we fsync. So once after each such cut the newest restore point is held against its digests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from vm_babysitter.domain.bitmaps import tracking_damaged
from vm_babysitter.domain.chain import Chain, Flaw, live_chain
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.errors import BabysitterError, StoreFailed
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Seen, Since, since
from vm_babysitter.domain.vm import Access, DiskState, Vm, access_of, eligible_disks
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import Store, ThisHost


class AfterCrash:
    """Finds out what happened to a VM's host since its last backup, and what that has spoilt."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._tools = tools
        self._store = store
        self._observer = tools.observer
        self._seen: dict[str, Seen] = {}  # by UUID, as the VM was found

    def check(self, name: str) -> None:
        """Read the newest points of a VM once after a crash, and note what is damaged.

        To be asked before attempts are undone, which tell of it.

        Raises:
            VmNotFound, HypervisorError, StoreFailed, Cancelled.
        """
        vm = self._tools.hypervisor.outline(name)
        tried_again = vm.uuid in self._seen  # it was started or switched off meanwhile
        if self.remember(vm) and not tried_again:
            self._read_newest(vm)

    def remember(self, vm: Vm) -> bool:
        """Find out whether the host went down hard, and note it for the next backup.

        For all that undo attempts: nothing else may tell of it afterwards.
        """
        new, old = self._look(vm), self._store.seen(vm.uuid)
        self._seen[vm.uuid] = new
        return self._remember(vm.uuid, old or new, self.since(vm, old, new))

    def remember_gone(self, uuid: str) -> None:
        """Do as ``remember`` for a VM that libvirt has no more: it may come back."""
        new, old = seen_now(self._tools.host, "", self._tools.clock.now()), self._store.seen(uuid)
        chains = self._store.chains(uuid)
        self._remember(uuid, old or new, since_last(old, new, chains, tracking_damaged=False))

    def _remember(self, uuid: str, seen: Seen, since: Since) -> bool:
        if since is not Since.WENT_DOWN_HARD:
            return False
        if self._store.chains(uuid):
            self._store.note_seen(uuid, replace(seen, crashed=True))
        return True

    def since(self, vm: Vm, old: Seen | None, new: Seen) -> Since:
        """Say what happened since the last backup of a VM."""
        rebooted = old is not None and old.boot_id != new.boot_id
        damaged = rebooted and self._tracking_damaged(vm)
        return since_last(old, new, self._store.chains(vm.uuid), tracking_damaged=damaged)

    def note(self, vm_uuid: str) -> str:
        """Note how the VM was found, after a backup of it. Returns what failed."""
        try:
            if vm_uuid in self._seen:
                self._store.note_seen(vm_uuid, self._seen[vm_uuid])
        except (BabysitterError, OSError) as error:
            return str(error)
        return ""

    def _look(self, vm: Vm) -> Seen:
        started = self._tools.hypervisor.started(vm.uuid)
        return seen_now(self._tools.host, started, self._tools.clock.now())

    def _tracking_damaged(self, vm: Vm) -> bool:
        """Whether change tracking of ours is broken; what cannot be looked at tells nothing."""
        try:
            states = self._states(vm)
        except BabysitterError:
            return False
        return tracking_damaged(states, self._store.chains(vm.uuid))

    def _states(self, vm: Vm) -> tuple[DiskState, ...]:
        access, hypervisor = access_of(vm.state), self._tools.hypervisor
        if access is Access.LIVE:
            return hypervisor.disk_states(vm.uuid)
        disks = eligible_disks(hypervisor.vm(vm.uuid)) if access is Access.OFF else ()
        return tuple(self._tools.offline.look(found.disk).state for found in disks)

    def _read_newest(self, vm: Vm) -> None:
        """Read points from the newest one down to the first that is whole."""
        chain = live_chain(self._store.chains(vm.uuid))
        while chain is not None and (point := chain.newest_intact) is not None:
            name = point_name(chain, point.seq)
            self._observer.step(f"check {name}")
            self._observer.note(
                f"{Since.WENT_DOWN_HARD} What was written last, restore point {name}, is read "
                "once more before anything builds on it."
            )
            with self._tools.priority():
                flaws = tuple(self._find_flaws(chain, point))
            if not flaws:
                break
            noted = tuple(flaw for flaw in _known_flaws(chain, point) if flaw.found is not None)
            note = DamageNote(point.seq, point.nonce, self._tools.clock.now(), (*noted, *flaws))
            self._store.note_damage(vm.uuid, chain, point, note)
            chain = chain.with_flaws(point.seq, *flaws)
            passed = " and is passed over" if point.seq in chain.unfit else ""
            self._observer.note(f"Restore point {name} is damaged{passed}: {flaws[0]}.")
            if not passed:  # its disks are what they were
                break

    def _find_flaws(self, chain: Chain, point: Point) -> Iterator[Flaw]:
        """Read the files of a point of which nothing is known, up to a disk that is not whole.

        Raises StoreFailed where one is out of reach.
        """
        known = {flaw.file for flaw in _known_flaws(chain, point)}
        meter = Meter(self._observer)
        meter.expect(sum(disk.file_size for disk in point.disks))

        def passed(amount: int) -> None:
            meter.add(amount)
            self._tools.cancel.check()
            self._tools.pace.take(amount)

        files = [(d.index, d.index_digest, False) for d in point.disks]
        files += [(d.file, d.digest, True) for d in point.disks]
        beside = {f.name for f in point.files}
        files += [(f.name, f.digest, False) for f in point.files]
        for name, digest, image in files:
            if name in known:
                continue
            path = self._store.file_path(point.vm_uuid, chain, point, name)
            check = self._store.check_file(path, digest, image=image, passed=passed)
            if check.evidence:
                yield Flaw(name, check.wrong, self._tools.clock.now())
                if name not in beside:
                    return  # nothing can build on it
            elif check.wrong:
                raise StoreFailed(str(path), check.wrong)


def _known_flaws(chain: Chain, point: Point) -> tuple[Flaw, ...]:
    stored = chain.find(point.seq)
    return () if stored is None else stored.flaws


def seen_now(host: ThisHost, started: str, now: datetime) -> Seen:
    """Return in what runs of this host, and of its own, a VM is seen."""
    return Seen(host.id, host.name, host.boot_id, started, now)


def since_last(
    old: Seen | None, new: Seen, chains: Sequence[Chain], *, tracking_damaged: bool
) -> Since:
    """Say what happened since the last backup of a VM with these chains."""
    attempts = [attempt for chain in chains for attempt in chain.attempts]
    other = any(a.boot_id and a.boot_id != new.boot_id for a in attempts)
    return since(old, new, attempt_of_other_boot=other, tracking_damaged=tracking_damaged)
