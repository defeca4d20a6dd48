"""Looks at a VM and its backups, and says what is wrong with them. Changes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vm_babysitter.domain.bitmaps import tracking_damaged
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.cost import estimate
from vm_babysitter.domain.diagnosis import Diagnosis, diagnose
from vm_babysitter.domain.errors import BabysitterError, Busy, VmNotFound
from vm_babysitter.domain.findings import Facts
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Since
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import DiskState, Vm
from vm_babysitter.engine.after_crash import seen_now, since_last
from vm_babysitter.engine.alive import check_really_off, is_ours, out_of_sight, under_way
from vm_babysitter.engine.catalog import find_vm, point_name
from vm_babysitter.engine.mending import as_relinked, unlinked
from vm_babysitter.engine.planning import Planned, Planner, busy_with
from vm_babysitter.engine.tools import Sight
from vm_babysitter.ports import JobKind, Store, StoredVm


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the next backup would be asked for."""

    force_full: bool = False
    track_snapshots: bool = False


NO_WISHES = Wishes()
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What was found of a VM, and what its next backup would do."""

    diagnosis: Diagnosis
    vm: Vm | None
    """None if libvirt has no such VM."""
    planned: Planned | None = None
    """None where there is nothing to do, or it cannot be planned."""
    current: tuple[Chain, Point] | None = None
    """Chain and newest point of a VM that is off and has not changed since: nothing is to do."""
    error: BabysitterError | None = None
    """Why it cannot be planned."""


class Diagnoser:
    """Diagnoses VMs that libvirt has, and those that only have backups left."""

    def __init__(self, sight: Sight, store: Store | None) -> None:
        """``store`` is None where there is no backup folder yet."""
        self._hypervisor = sight.hypervisor
        self._headers = sight.headers
        self._host = sight.host
        self._places = sight.places
        self._planner = Planner(sight, store)
        self._store = store

    def all(self, *, planned: bool = True) -> Iterator[Diagnosed]:
        """Diagnose each VM, those that libvirt has first. What fails with one spares the others.

        ``planned`` is whether their next backups are planned, see ``diagnose``.
        """
        known = self._hypervisor.outlines()
        told = False
        for vm in known:
            try:
                yield self._look(vm, NO_WISHES, planned=planned)
            except BabysitterError as error:
                found = self._failed(vm.uuid, vm.name, vm, error)
                told = told or bool(found.diagnosis.facts.unread)
                yield found
        try:
            all_stored = () if self._store is None else self._store.vms()
        except BabysitterError as error:
            if not known:
                raise
            all_stored = ()
            if not told:  # it is about backups of a VM that libvirt does not have
                yield Diagnosed(diagnose(Facts("?", "", unread=str(error))), None, error=error)
        uuids = {vm.uuid for vm in known}
        for stored in (stored for stored in all_stored if stored.uuid not in uuids):
            try:
                yield self._gone(stored)
            except BabysitterError as error:
                yield self._failed(stored.uuid, stored.names[-1], None, error)

    def diagnose(self, name: str, wishes: Wishes = NO_WISHES, *, planned: bool = True) -> Diagnosed:
        """Diagnose one VM by name or UUID.

        Without its next backup being ``planned`` no image of the VM is opened, no index is read,
        and QEMU is not asked: what only that would show is not found.

        Raises:
            VmNotFound: neither libvirt nor the backup folder has it.
            UnsupportedFormat, StoreFailed, HypervisorError.
        """
        try:
            outline = self._hypervisor.outline(name)
        except VmNotFound:
            if self._store is None:
                raise
            return self._gone(find_vm(self._store, name))
        return self._look(outline, wishes, planned=planned)

    def _gone(self, stored: StoredVm) -> Diagnosed:
        name = stored.names[-1]
        facts = self._stored(stored.uuid, name)
        uri = self._hypervisor.uri
        reasons = (
            out_of_sight(self._places, self._host, uri, name, attempt)
            for chain in facts.chains
            for attempt in chain.attempts
            if attempt.nonce not in facts.under_way
        )
        found = diagnose(replace(facts, out_of_sight=next(filter(None, reasons), "")))
        return Diagnosed(found, None, error=VmNotFound(name))

    def _failed(self, uuid: str, name: str, vm: Vm | None, error: BabysitterError) -> Diagnosed:
        """Tell what is known of a VM although looking at all of it has failed."""
        try:
            facts, hindrance = self._stored(uuid, name), str(error)
        except BabysitterError as why:
            facts = Facts(name, uuid, unread=str(why))
            hindrance = "" if str(why) == str(error) else str(error)
        facts = replace(facts, vm=vm, hindrance=hindrance, transient=error.transient)
        return Diagnosed(diagnose(facts), vm, error=error)

    def _look(self, vm: Vm, wishes: Wishes, *, planned: bool) -> Diagnosed:
        facts = self._stored(vm.uuid, vm.name)
        current = None if wishes.force_full else self._planner.unchanged(vm.uuid)
        if current is not None:
            name = point_name(current[0], current[1].seq)
            found = diagnose(replace(self._around(facts, vm), current=name))
            return Diagnosed(found, vm, current=current)
        if not planned:
            return Diagnosed(diagnose(self._around(facts, vm)), vm)
        try:
            vm = self._hypervisor.vm(vm.uuid)
            plan = self._planner.plan(
                vm,
                force_full=wishes.force_full,
                track_snapshots=wishes.track_snapshots,
                chains=facts.chains,
            )
        except BabysitterError as error:
            facts = replace(
                self._around(facts, vm), hindrance=str(error), transient=error.transient
            )
            return Diagnosed(diagnose(facts), vm, error=error)
        states = tuple(plan.states.values())
        facts = replace(
            self._around(facts, vm, states),
            chains=_with(facts.chains, plan.chain),
            states=states,
            next=plan.plan,
            cost=estimate(plan.plan, plan.disks, plan.states, plan.chain, DEFAULT_RUNS),
        )
        return Diagnosed(diagnose(facts), vm, plan)

    def _stored(self, uuid: str, name: str) -> Facts:
        """Return what the backup folder tells, its chains as they are once they are mended."""
        if self._store is None:
            return Facts(name, uuid)
        chains = self._store.chains(uuid)
        at_it = under_way(self._places, chains)
        if any(attempt.nonce not in at_it for chain in chains for attempt in chain.attempts):
            chains = self._store.chains(uuid)  # one that has just ended was not interrupted
            at_it |= under_way(self._places, chains)
        links = tuple(
            link.found
            for chain in chains
            for link in unlinked(self._store, self._headers, uuid, chain)
        )
        mended = tuple(as_relinked(chain, links) for chain in chains)
        return Facts(
            name,
            uuid,
            mended,
            oddities=self._store.oddities(uuid),
            unlinked=links,
            under_way=at_it,
        )

    def _around(self, facts: Facts, vm: Vm, states: Sequence[DiskState] = ()) -> Facts:
        """Add what libvirt tells, and what became of host and VM since the last backup."""
        job = self._hypervisor.active_job(vm.uuid)
        of_backup = job is not None and job.kind is JobKind.BACKUP
        if job is not None and not is_ours(self._places, facts.chains, states, job):
            busy = busy_with(vm, job)  # as the next backup would find out
            facts = replace(facts, hindrance=str(busy), transient=busy.transient)
        try:
            check_really_off(self._places, self._host, self._hypervisor.uri, vm, facts.chains)
        except Busy as busy:
            facts = replace(facts, hindrance=str(busy), transient=busy.transient)
        return replace(
            facts,
            vm=vm,
            checkpoints=self._hypervisor.checkpoints(vm.uuid),
            job_socket=job.socket if job is not None and of_backup else "",
            since=self._since(facts, vm, states),
        )

    def _since(self, facts: Facts, vm: Vm, states: Sequence[DiskState]) -> Since:
        old = None if self._store is None else self._store.seen(vm.uuid)
        at = _EVER if old is None else old.at  # plays no part
        new = seen_now(self._host, self._hypervisor.started(vm.uuid), at)
        damaged = tracking_damaged(states, facts.chains)
        return since_last(old, new, facts.chains, tracking_damaged=damaged)


def _with(chains: Sequence[Chain], looked_at: Chain | None) -> tuple[Chain, ...]:
    """Put the chain that planning has looked at more closely in the place of the same one."""
    if looked_at is None:
        return tuple(chains)
    return tuple(looked_at if c.directory == looked_at.directory else c for c in chains)
