"""Repairs the backups of a VM: all that is not left to the next backup."""

from dataclasses import dataclass

from vm_babysitter.domain.diagnosis import Diagnosis
from vm_babysitter.domain.findings import Unlinked
from vm_babysitter.domain.repair_plan import (
    NO_CONSENT,
    By,
    RepairPlan,
    RepairPolicy,
    Step,
    StepKind,
    plan_repair,
)
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.after_crash import AfterCrash
from vm_babysitter.engine.alive import check_nobody, out_of_sight
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.engine.mending import Mender
from vm_babysitter.engine.quiesce import thaw_leftovers
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import Store


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to."""

    before: Diagnosis
    done: tuple[Step, ...]
    """What was to be done and is: it came to what it was for."""
    left: tuple[Step, ...]
    """What was to be done and still is; the next backup, or repair, tries again."""
    failed: tuple[Step, ...]
    """What was tried in vain, and is not tried again: more is wrong than was thought."""
    after: Diagnosed
    plan: RepairPlan
    """What is still to be done, the next backup included."""


class Repair:
    """Repairs the backups of one VM in one store."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._tools = tools
        self._store = store
        self._diagnoser = Diagnoser(tools.sight, store)
        self._mender = Mender(tools, store)
        self._reconciler = Reconciler(tools, store)

    def run(self, name: str, policy: RepairPolicy = NO_CONSENT) -> Repaired:
        """Take the steps that ``plan_repair`` gives to `repair`.

        Args:
            name: name or UUID of the VM, which libvirt need not have any more.
            policy: what the user agrees to.

        Raises:
            VmNotFound, StoreRefused, StoreFailed, UnsupportedFormat, Busy, HypervisorError:
                what was done until then stays done, and running it again goes on.
        """
        with self._store.lock():
            thaw_leftovers(self._tools.hypervisor, self._tools.guard, self._tools.observer)
            self._tools.observer.step("look")
            found = self._diagnoser.diagnose(name)
            uuid = found.diagnosis.facts.uuid
            called = found.diagnosis.facts.name
            check_nobody(self._tools.places, called, self._store.chains(uuid))
            planned = plan_repair(found.diagnosis, policy).of(By.BOTH, By.REPAIR)
            self._tools.observer.step("mend")
            self._mender.mend(uuid)
            if found.vm is None:
                AfterCrash(self._tools, self._store).remember_gone(uuid)
                self._sweep(uuid, called)
            else:
                AfterCrash(self._tools, self._store).remember(found.vm)
                self._reconciler.reconcile(self._as_it_is(found.vm))
            self._remove(uuid, planned, policy)
            self._tools.observer.step("look again")
            after = self._diagnoser.diagnose(uuid)
        return _result(found.diagnosis, planned, after, plan_repair(after.diagnosis, policy))

    def _as_it_is(self, vm: Vm) -> Vm:
        """Return the VM with what its images say, which an outline lacks."""
        return self._tools.hypervisor.vm(vm.uuid)

    def _sweep(self, uuid: str, name: str) -> None:
        """Remove what is left of attempts at a VM that libvirt has no more.

        Its job went with it, unless something on this host tells otherwise. Should it come back
        with bitmaps of such an attempt in its images, its next backup removes them by their names.
        """
        for chain in self._store.chains(uuid):
            for attempt in chain.attempts:
                places, uri = self._tools.places, self._tools.hypervisor.uri
                why = out_of_sight(places, self._tools.host, uri, name, attempt)
                if why:
                    self._tools.observer.note(
                        f"{why[0].upper()}{why[1:]}. What the interrupted backup "
                        f"{chain.directory}/{attempt.seq:06d} left is left alone."
                    )
                    continue
                for path in (attempt.socket, *attempt.scratch):
                    if path:
                        self._tools.places.remove(path, attempt.nonce)
                self._store.sweep(attempt)
        self._tools.places.remove_abandoned()
        self._store.remove_empty_chains(uuid)

    def _remove(self, uuid: str, steps: tuple[Step, ...], policy: RepairPolicy) -> None:
        """Remove lost points, if the user agreed to it; not what mending has brought back."""
        if not any(step.kind is StepKind.REMOVE_LOST for step in steps):
            return
        still = plan_repair(self._diagnoser.diagnose(uuid).diagnosis, policy).of(By.REPAIR)
        for step in (step for step in still if step.kind is StepKind.REMOVE_LOST):
            for chain in self._store.chains(uuid):
                if chain.directory == step.chain:
                    self._tools.observer.step("remove")
                    self._store.remove_points(uuid, chain, step.seqs)
        self._store.remove_empty_chains(uuid)


def _result(
    before: Diagnosis, planned: tuple[Step, ...], after: Diagnosed, plan: RepairPlan
) -> Repaired:
    """Tell what was done from what is still to be done, and both from what was tried in vain."""
    waiting = {_key(step) for step in plan.of(By.BOTH, By.REPAIR)}
    left = tuple(step for step in planned if _key(step) in waiting)
    over = [step for step in planned if _key(step) not in waiting]
    achieved = {id(step) for step in over if _achieved(step, before, after.diagnosis)}
    done = tuple(step for step in over if id(step) in achieved)
    failed = tuple(step for step in over if id(step) not in achieved)
    return Repaired(before, done, left, failed, after, plan)


def _key(step: Step) -> tuple[StepKind, str, tuple[int, ...]]:
    return step.kind, step.chain, step.seqs


def _achieved(step: Step, before: Diagnosis, after: Diagnosis) -> bool:
    """Whether a step that is not to be done any more came to what it was for.

    Its finding may only have become another one: a header that could not be put back is damage.
    """
    facts = after.facts
    if step.kind is StepKind.RESUME:
        return facts.vm is None or facts.vm.state is not PowerState.STUCK
    if step.kind not in {StepKind.RELINK, StepKind.RENAME, StepKind.REMOVE_LOST}:
        return True
    chains = [chain for chain in facts.chains if chain.directory == step.chain]
    there = {stored.point.seq: stored for chain in chains for stored in chain.points}
    if step.kind is StepKind.REMOVE_LOST:
        return not there.keys() & set(step.seqs)
    if not there.keys() >= set(step.seqs):
        return False
    if step.kind is StepKind.RENAME:
        return not {each.seq for chain in chains for each in chain.renamed} & set(step.seqs)
    files = {
        (link.seq, link.file)
        for link in before.facts.unlinked
        if link.chain == step.chain and link.seq in step.seqs and _names(step, link)
    }
    flawed = {(seq, flaw.file) for seq, stored in there.items() for flaw in stored.flaws}
    return not files & flawed


def _names(step: Step, link: Unlinked) -> bool:
    """Whether a step is about this image: several disks of one point have a step each."""
    return f"{link.chain}/{link.seq:06d}/{link.file}" in step.what
