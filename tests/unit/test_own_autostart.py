"""The autostart switch that VMs have of their own: taken over, and given back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.hypervisor import FakeHypervisor
from vm_babysitter.config.context import VmRef
from vm_babysitter.config.file import SettingsFile
from vm_babysitter.domain.errors import BabysitterError, HypervisorError, InvalidInput
from vm_babysitter.ports import Hypervisor
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.own_autostart import OwnAutostart


@dataclass
class House:
    path: Path

    def __post_init__(self) -> None:
        self.hypervisor = FakeHypervisor()
        self.vm = self.hypervisor.add('My "VM" & co')
        self.hypervisor.add("other")
        self.hypervisor.set_own_autostart(self.vm.uuid, on=True)
        self.ref = VmRef(self.vm.uuid, self.vm.name)
        self.list_is(self.vm.name, "other")
        self.configuration = Configuration(SettingsFile(self.path))
        self.configuration.load()
        self.own = OwnAutostart(self.configuration, self.connect)

    @contextmanager
    def connect(self) -> Iterator[Hypervisor]:
        yield self.hypervisor

    def list_is(self, *vms: str, taken: tuple[str, ...] = ()) -> None:
        section = {"vms": [{"vm": vm, "later": 1} for vm in vms], "taken": list(taken)}
        self.path.write_text(json.dumps({"version": 1, "autostart": section}))

    @property
    def section(self) -> Any:
        return json.loads(self.path.read_text())["autostart"]

    @property
    def listed(self) -> list[str]:
        return [one["vm"] for one in self.section["vms"]]

    @property
    def is_on(self) -> bool:
        return self.hypervisor.own_autostart(self.vm.uuid)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "settings.json")


def test_it_is_taken_over_and_given_back_with_the_place_in_the_list(house: House) -> None:
    assert house.own.take_over(house.ref) is True
    assert (house.is_on, house.section["taken"]) == (False, [house.vm.uuid])
    for _ in range(2):
        house.own.give_back(house.vm.uuid)
        assert (house.is_on, house.section["taken"], house.listed) == (True, [], ["other"])
    assert house.section["vms"] == [{"vm": "other", "later": 1}]


def test_a_switch_that_is_off_is_not_turned_on(house: House) -> None:
    house.hypervisor.set_own_autostart(house.vm.uuid, on=False)
    assert house.own.take_over(house.ref) is False
    assert house.section["taken"] == []
    house.own.give_back(house.vm.uuid)
    assert (house.is_on, house.listed) == (False, ["other"])


def test_a_vm_that_nobody_would_start_keeps_its_own(house: House) -> None:
    house.list_is("other")
    house.configuration.refresh()
    with pytest.raises(InvalidInput, match="not in the autostart list"):
        house.own.take_over(house.ref)
    assert house.is_on


def test_what_leaves_the_list_by_the_settings_gets_its_own_back(house: House) -> None:
    house.own.take_over(house.ref)
    house.own.settle()
    assert not house.is_on
    house.list_is("other", taken=(house.vm.uuid,))
    house.configuration.refresh()
    house.own.settle()
    assert (house.is_on, house.section["taken"]) == (True, [])


def test_a_vm_that_was_defined_anew_gets_it_back_too(house: House) -> None:
    house.own.take_over(house.ref)
    house.list_is("other", taken=(house.vm.uuid,))
    house.configuration.refresh()
    machine = house.hypervisor.machines.pop(house.vm.uuid)
    house.own.settle()  # it is gone, for a moment
    assert house.section["taken"] == [house.vm.uuid]
    house.hypervisor.machines[house.vm.uuid] = machine
    house.own.settle()
    assert (house.is_on, house.section["taken"]) == (True, [])


def test_a_vm_that_is_gone_leaves_the_list(house: House) -> None:
    house.list_is(house.vm.uuid.upper(), "other", taken=(house.vm.uuid,))
    house.configuration.refresh()
    del house.hypervisor.machines[house.vm.uuid]
    house.own.give_back(house.vm.uuid)
    assert (house.section["taken"], house.listed) == ([], ["other"])


def test_killed_in_between_it_is_on_or_noted_that_it_was(house: House) -> None:
    house.hypervisor.fail["set_own_autostart"] = HypervisorError("Changing", 1, "no")
    with pytest.raises(BabysitterError):
        house.own.take_over(house.ref)
    assert (house.is_on, house.section["taken"]) == (True, [house.vm.uuid])
    house.hypervisor.fail.clear()
    assert house.own.take_over(house.ref) is True
    house.hypervisor.fail_after["set_own_autostart"] = HypervisorError("Changing", 1, "no")
    with pytest.raises(BabysitterError):
        house.own.give_back(house.vm.uuid)
    assert (house.is_on, house.section["taken"]) == (True, [house.vm.uuid])
    house.hypervisor.fail_after.clear()
    house.own.give_back(house.vm.uuid)
    assert (house.is_on, house.section["taken"]) == (True, [])


def test_settings_that_another_has_changed_meanwhile_stay(house: House) -> None:
    house.list_is(house.vm.name, "new")  # by an editor, not yet read
    house.own.take_over(house.ref)
    assert (house.listed, house.section["taken"]) == ([house.vm.name, "new"], [house.vm.uuid])
    house.list_is(house.vm.name, "newer", taken=(house.vm.uuid,))
    house.own.give_back(house.vm.uuid)
    assert house.listed == ["newer"]
