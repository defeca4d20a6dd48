"""Which images belong to several VMs."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.points import a_disk
from vm_babysitter.domain.sharing import SharedImage, shared_note, shared_with
from vm_babysitter.domain.vm import Disk, DiskKind, PowerState, Vm


def vm(name: str, *disks: Disk) -> Vm:
    return Vm(f"uuid of {name}", name, PowerState.OFF, disks)


MINE = replace(a_disk("vda", path="/a"), file_id="file:1:77")
FOUND = (SharedImage("vda", "other", "uuid of other", "hdc"),)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"file_id": ""},
        {"path": "/another/name/of/it"},
        {"shareable": True},
        {"path": "/another/name/of/it", "unreadable": "not looked at", "real_format": ""},
    ],
)
def test_an_image_of_two_vms_is_found_by_path_or_by_file(change: dict[str, Any]) -> None:
    theirs = replace(MINE, target="hdc", **change)
    everyone = [vm("mine", MINE), vm("other", a_disk("vda", path="/x"), theirs)]
    assert shared_with(everyone[0], everyone) == FOUND
    assert "'other'" in shared_note(FOUND[0])


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/b", "file_id": "file:2:77"},
        {"path": "/b", "file_id": ""},
        {"read_only": True},
        {"kind": DiskKind.CDROM},
    ],
)
def test_another_image_or_one_that_the_other_cannot_write_is_not_shared(
    change: dict[str, Any],
) -> None:
    theirs = replace(MINE, target="hdc", **change)
    assert shared_with(vm("mine", MINE), [vm("other", theirs)]) == ()


@pytest.mark.parametrize("change", [{"shareable": True}, {"read_only": True}, {"path": ""}])
def test_a_disk_that_no_backup_of_the_vm_has_does_not_count(change: dict[str, Any]) -> None:
    mine = replace(MINE, **change)
    assert shared_with(vm("mine", mine), [vm("other", replace(MINE, path=mine.path))]) == ()


def test_paths_of_nothing_and_files_of_nothing_are_not_one_image() -> None:
    empty = replace(MINE, path="", source_type="", file_id="")
    assert shared_with(vm("mine", empty), [vm("other", empty)]) == ()
    assert shared_with(vm("mine", MINE), [vm("mine", MINE)]) == ()
