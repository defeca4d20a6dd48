"""How the VMs of a run are seen, and what they wait for, asked of libvirt and of the host."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic

from vm_babysitter.domain.autostart import Awaited, Condition, Entry, Seen
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.left_behind import Asked
from vm_babysitter.ports import Hypervisor, Probes

OpenHypervisor = Callable[[], AbstractContextManager[Hypervisor]]
"""Connects to libvirt. Raises HypervisorUnreachable, HypervisorMissing, HypervisorError."""
_log = logging.getLogger(__name__)
PROBE_SECONDS = 8.0
"""For one look at what a VM waits for; an agent that is silent takes 5."""
_LOOKS_SECONDS = 30.0
"""For all looks at images in a run."""
_OFF = frozenset({PowerState.OFF})
_UP = frozenset({PowerState.RUNNING, PowerState.PAUSED, PowerState.SUSPENDED})
_SILENT = "{} does not answer in time"


class Host:
    """One connection to libvirt, and what is asked over it and beside it."""

    def __init__(self, hypervisor: Hypervisor, probes: Probes, asked: Asked[str]) -> None:
        self.hypervisor = hypervisor
        self._probes = probes
        self._asked = asked
        self._vms: tuple[Vm, ...] = ()

    def refresh(self) -> None:
        """Have what is known of all VMs be of this moment."""
        self._vms = self.hypervisor.outlines()

    def find(self, name: str) -> Vm | None:
        """Return a VM by its name or UUID; a name counts first, as everywhere."""
        named = [vm for vm in self._vms if vm.name == name]
        by_uuid = [vm for vm in self._vms if vm.uuid.lower() == name.lower()]
        return next(iter([*named, *by_uuid]), None)

    def seen(self, entry: Entry) -> Seen:
        """Say how a VM is."""
        vm = self.find(entry.uuid)
        if vm is None:
            return Seen.GONE
        return Seen.OFF if vm.state in _OFF else Seen.ON

    def unmet(self, conditions: tuple[Condition, ...]) -> tuple[str, ...]:
        """Say why each thing that is waited for is not there."""
        found = (self._unmet(condition) for condition in conditions)
        return tuple(reason for reason in found if reason)

    def _unmet(self, condition: Condition) -> str:
        if condition.kind in {Awaited.VM, Awaited.AGENT}:
            vm = self.find(condition.target)
            if vm is None:
                return f"there is no VM {condition.target!r}"
            if vm.state not in _UP:
                return f"VM {vm.name!r} does not run"
            if condition.kind is Awaited.VM:
                return ""
            uuid, name = vm.uuid, vm.name
            return self._asked.ask(
                str(condition),
                lambda: _of_agent(self.hypervisor.agent_missing(uuid), name),
                PROBE_SECONDS,
                _SILENT.format(f"the guest agent of VM {name!r}"),
            )
        return self._asked.ask(
            str(condition),
            lambda: self._probes.unmet(condition),
            PROBE_SECONDS,
            _SILENT.format(condition.target),
        )


def _of_agent(missing: str, name: str) -> str:
    return f"VM {name!r}: {missing}" if missing else ""


class ImageLook:
    """Looks at the headers of images before a start: it tells what is wrong, and holds up nothing.

    A start goes on after ``seconds`` whatever the disks do, and after 30 in all there is no look
    any more.
    """

    def __init__(self, open_hypervisor: OpenHypervisor, seconds: float) -> None:
        self._open = open_hypervisor
        self._seconds = seconds
        self._asked: Asked[str] = Asked()
        self._left = _LOOKS_SECONDS

    def problem(self, entry: Entry) -> str:
        """Say what is wrong with the images of a VM, in a sentence's words; empty if nothing."""
        seconds = min(self._seconds, self._left)
        if seconds <= 0:
            return ""
        begun = monotonic()
        silent = "its disks do not answer in time"
        found = self._asked.ask(entry.uuid, lambda: self._look(entry.uuid), seconds, silent)
        self._left -= monotonic() - begun
        return found

    def _look(self, uuid: str) -> str:
        try:
            with self._open() as hypervisor:
                return "; ".join(
                    f"disk {disk.target}: {disk.unreadable}"
                    for disk in hypervisor.vm(uuid).disks
                    if disk.source_type == "file" and disk.source and disk.unreadable
                )
        except BabysitterError as error:
            _log.info("The images of VM %s were not looked at: %s", uuid, error)
            return ""
