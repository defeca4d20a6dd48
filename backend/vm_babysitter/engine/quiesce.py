"""Pausing a guest's file systems for the moment of a backup, and surely thawing them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.ports import FreezeGuard, Hypervisor, Observer

_THAW_TRIES = 3


@dataclass(frozen=True, slots=True)
class Quiesced:
    """Whether the guest's file systems were frozen, and why not."""

    done: bool
    note: str


@contextlib.contextmanager
def quiesced(
    hypervisor: Hypervisor, guard: FreezeGuard, observer: Observer, vm: Vm
) -> Iterator[Quiesced]:
    """Freeze the guest by its agent, if it has one, for the time of the context.

    No agent, a refusal or a time-out is a note, never a failure. The guard thaws if we die.
    """
    missing = hypervisor.agent_missing(vm.uuid)
    if vm.state is PowerState.PAUSED:
        missing = "the VM is paused"
    if missing:
        yield Quiesced(False, missing)
        return
    with guard.watch(vm.uuid):
        observer.step("freeze")
        try:
            refusal = hypervisor.freeze(vm.uuid)
            observer.step("frozen")
            yield Quiesced(not refusal, refusal)
        finally:
            # Always, a refused freeze too: an agent that answered too late may have frozen.
            failure = _thaw(hypervisor, vm)
            if failure and not refusal:
                observer.note(f"The guest's file systems could not be thawed: {failure}.")


def _thaw(hypervisor: Hypervisor, vm: Vm) -> str:
    failure = ""
    for _ in range(_THAW_TRIES):
        failure = hypervisor.thaw(vm.uuid)
        if not failure:
            break
    return failure


def thaw_leftovers(hypervisor: Hypervisor, guard: FreezeGuard, observer: Observer) -> None:
    """Thaw the guests that a process which is gone had frozen."""
    for uuid in guard.leftovers():
        failure = hypervisor.thaw(uuid)
        observer.note(
            f"A guest left frozen by an earlier run could not be thawed: {failure}."
            if failure
            else "A guest left frozen by an earlier run was thawed."
        )
        guard.forget(uuid)
