"""Pausing a guest's file systems for the moment of a backup, and surely thawing them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.errors import VmNotFound
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.ports import FreezeGuard, Hypervisor, Observer

_THAW_TRIES = 3
_NOBODY_ANSWERS = {
    PowerState.PAUSED: "the VM is paused",
    PowerState.STUCK: "the VM is paused",
    PowerState.SUSPENDED: "the VM is suspended by the guest",
    PowerState.CRASHED: "the VM has crashed",
}
"""Why no agent is asked at all."""
_NOT_HELD = "the file systems did not stay frozen until the backup had begun"


@dataclass(slots=True)
class Quiesced:
    """Whether the guest's file systems were frozen, and why not; final when the context ends."""

    done: bool
    note: str


@contextlib.contextmanager
def quiesced(
    hypervisor: Hypervisor, guard: FreezeGuard, observer: Observer, vm: Vm
) -> Iterator[Quiesced]:
    """Freeze the guest by its agent, if it has one, for the time of the context.

    No agent, a refusal or a time-out is a note, never a failure. The guard thaws if we die, or
    where the agent does not tell us that it has.
    """
    missing = _NOBODY_ANSWERS.get(vm.state) or hypervisor.agent_missing(vm.uuid)
    if missing:
        yield Quiesced(False, missing)
        return
    with guard.watch(vm.uuid) as watch:
        if watch.unfit:
            yield Quiesced(False, watch.unfit)
            return
        frozen = AgentAnswer(refusal="interrupted", unknown=True)
        state = Quiesced(False, "")
        observer.step("freeze")
        try:
            frozen = hypervisor.freeze(vm.uuid)
            state.done, state.note = not frozen.refusal, frozen.refusal
            observer.step("frozen")
            yield state
        finally:
            # Always, a refused freeze too: an agent that answered too late may have frozen.
            answers = _thaw(hypervisor, vm.uuid, 1 if frozen.refusal else _THAW_TRIES)
            thawed = answers[-1]
            if not thawed.refusal or not (frozen.count or frozen.unknown):
                watch.thawed()
            else:
                observer.note(
                    f"The guest's file systems may still be frozen: {thawed.refusal}. "
                    "Thawing is tried again in the background."
                )
            # The guest may have thawed by itself: Windows does so after 10 seconds.
            if state.done and not thawed.count and not thawed.unknown:
                state.done, state.note = False, answers[0].refusal or _NOT_HELD


def _thaw(hypervisor: Hypervisor, uuid: str, tries: int) -> list[AgentAnswer]:
    """Thaw, and return the answers to all tries."""
    answers: list[AgentAnswer] = []
    while len(answers) < tries and (not answers or answers[-1].refusal):
        answers.append(hypervisor.thaw(uuid))
    return answers


def thaw_leftovers(hypervisor: Hypervisor, guard: FreezeGuard, observer: Observer) -> None:
    """Thaw the guests that a process which is gone had frozen."""
    for uuid in guard.leftovers():
        try:
            answer = hypervisor.thaw(uuid)
        except VmNotFound:
            guard.forget(uuid)
            continue
        if answer.count:
            observer.note("A guest left frozen by an earlier run was thawed.")
        elif answer.refusal:
            observer.note(
                f"A guest left frozen by an earlier run could not be thawed: {answer.refusal}."
            )
        if not answer.unknown:
            guard.forget(uuid)
