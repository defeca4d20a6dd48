"""The autostart switch that VMs have of their own, taken over with consent and given back."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import Busy, InvalidInput, VmNotFound
from vm_babysitter.ports import Hypervisor
from vm_babysitter.service.configuration import Configuration

OpenHypervisor = Callable[[], AbstractContextManager[Hypervisor]]
Change = Callable[[Settings], dict[tuple[str, ...], object]]
_log = logging.getLogger(__name__)
_TRIES = 3
_TAKEN, _VMS = ("autostart", "taken"), ("autostart", "vms")


class OwnAutostart:
    """Turns the switches off and on, and keeps in the settings which are to be turned on again.

    At each moment either the switch is on, or it is noted that it was: whoever is killed in
    between leaves a VM that is started twice rather than one that is never started again.
    """

    def __init__(self, configuration: Configuration, open_hypervisor: OpenHypervisor) -> None:
        self._configuration = configuration
        self._open = open_hypervisor
        self._lock = threading.Lock()

    def take_over(self, vm: VmRef) -> bool:
        """Turn a VM's own switch off; returns False if it is off already.

        Raises:
            InvalidInput: the VM is not in the autostart list, which would start it instead.
            VmNotFound, HypervisorUnreachable, HypervisorError, SettingsFailed, Busy, ...
        """
        with self._lock, self._open() as hypervisor:
            if not any(vm.called(one.vm) for one in self._configuration.settings.autostart.vms):
                rule = "is not in the autostart list"
                raise InvalidInput("VM", vm.name, rule, "Put it there first: `autostart set`.")
            if not hypervisor.own_autostart(vm.uuid):
                return False
            self._change(lambda settings: {_TAKEN: sorted({*_taken(settings), vm.uuid.lower()})})
            hypervisor.set_own_autostart(vm.uuid, on=False)
        _log.info("VM %s: its own autostart is off, the autostart list starts it.", vm.name)
        return True

    def turn_on_again(self, vm: VmRef) -> None:
        """Turn a VM's own switch on again if it was taken over; it stays in the list.

        Raises:
            VmNotFound, HypervisorUnreachable, HypervisorError, SettingsFailed, Busy, ...
        """
        with self._lock, self._open() as hypervisor:
            self._turn_on(hypervisor, vm.uuid)
            self._change(partial(_without_taken, uuid=vm.uuid))

    def give_back(self, uuid: str) -> None:
        """Have a VM start by itself again if it did so before, and take it off the list.

        A VM that libvirt has no more only leaves the list. Harmless if it is done twice.

        Raises:
            HypervisorUnreachable, HypervisorError, SettingsFailed, Busy, ...
        """
        with self._lock, self._open() as hypervisor:
            try:
                vm = VmRef(uuid, hypervisor.outline(uuid).name)
                self._turn_on(hypervisor, uuid)
            except VmNotFound:
                vm = VmRef(uuid, uuid)
            self._change(lambda settings: self._without(settings, vm))

    def settle(self) -> None:
        """Give back the switches of VMs that have left the list; one that is gone may come back.

        Raises:
            HypervisorUnreachable, HypervisorError, SettingsFailed, Busy, ...
        """
        listed = self._configuration.settings.autostart
        if not listed.taken or self._configuration.problem is not None:
            return
        with self._lock, self._open() as hypervisor:
            for found in hypervisor.outlines():
                vm = VmRef(found.uuid, found.name)
                settings = self._configuration.settings
                if any(vm.called(one.vm) for one in settings.autostart.vms):
                    continue
                if vm.uuid.lower() in _taken(settings):
                    self._turn_on(hypervisor, vm.uuid)
                    self._change(partial(_without_taken, uuid=vm.uuid))
                    _log.info("VM %s: its own autostart is on again.", vm.name)

    def _turn_on(self, hypervisor: Hypervisor, uuid: str) -> None:
        if uuid.lower() in _taken(self._configuration.settings):
            hypervisor.set_own_autostart(uuid, on=True)

    def _without(self, settings: Settings, vm: VmRef) -> dict[tuple[str, ...], object]:
        """Return what the settings are to say once a VM has left the list."""
        loaded = self._configuration.loaded
        section: Any = {} if loaded is None else loaded.document.get("autostart", {})
        old = section.get("vms", [])
        left = [one for one in old if not vm.called(str(one.get("vm", "")))]
        values: dict[tuple[str, ...], object] = {} if left == old else {_VMS: left}
        return {**values, **_without_taken(settings, vm.uuid)}

    def _change(self, change: Change) -> None:
        """Change the settings, whoever else changes them at the same time."""
        for _ in range(_TRIES):
            before = self._configuration.settings
            values = change(before)
            if not values or self._changed(before, values):
                return
        raise Busy("The settings", "somebody else changes them")

    def _changed(self, before: Settings, values: dict[tuple[str, ...], object]) -> bool:
        """Change the settings if they still are those of before; returns whether they were."""
        same: list[bool] = []

        def still(now: Settings) -> bool:
            same.append(now.autostart == before.autostart)
            return same[-1]

        self._configuration.change(values, still)
        if self._configuration.problem is not None:
            raise self._configuration.problem
        return bool(same) and same[-1]


def _taken(settings: Settings) -> set[str]:
    return {uuid.lower() for uuid in settings.autostart.taken}


def _without_taken(settings: Settings, uuid: str) -> dict[tuple[str, ...], object]:
    taken = _taken(settings)
    if uuid.lower() not in taken:
        return {}
    return {_TAKEN: sorted(taken - {uuid.lower()})}
