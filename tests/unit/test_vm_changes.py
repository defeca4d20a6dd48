"""What has become of the VMs between two looks."""

from dataclasses import replace

import pytest

from vm_babysitter.domain.vm import Disk, DiskKind, PowerState, Vm
from vm_babysitter.domain.vm_changes import Change, vm_changes

DISK = Disk("vda", DiskKind.DISK, "file", "/mnt/a.img", "/mnt/a.img")
VM = Vm("u1", "house", PowerState.RUNNING, (DISK,))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({}, []),
        ({"name": 'My "VM" & co'}, [Change.RENAMED]),
        ({"state": PowerState.OFF}, [Change.STOPPED]),
        ({"state": PowerState.PAUSED}, []),
        ({"disks": ()}, [Change.EDITED]),
        ({"disks": (DISK, replace(DISK, target="vdb"))}, [Change.EDITED]),
        ({"disks": (replace(DISK, source="/mnt/b.img"),)}, [Change.EDITED]),
        ({"disks": (replace(DISK, allocated=7, path="/mnt/x/a.img"),)}, []),
        ({"name": "b", "state": PowerState.OFF, "disks": ()},
         [Change.RENAMED, Change.EDITED, Change.STOPPED]),
    ],
)  # fmt: skip
def test_what_has_changed(edit: dict[str, object], expected: list[Change]) -> None:
    now = replace(VM, **edit)  # type: ignore[arg-type]
    found = vm_changes([VM], [now])
    assert [change.change for change in found] == expected
    assert all((change.vm, change.before) == (now, VM) for change in found)


def test_a_vm_that_was_off_is_started() -> None:
    found = vm_changes([replace(VM, state=PowerState.OFF)], [VM])
    assert [change.change for change in found] == [Change.STARTED]


def test_vms_come_and_go_and_swap_names() -> None:
    other = Vm("u2", "shed", PowerState.OFF, ())
    assert [(c.change, c.vm.uuid) for c in vm_changes([VM], [other])] == [
        (Change.GONE, "u1"),
        (Change.APPEARED, "u2"),
    ]
    swapped = [replace(VM, name="shed"), replace(other, name="house")]
    found = vm_changes([VM, other], swapped)
    assert [(c.change, c.vm.name) for c in found] == [
        (Change.RENAMED, "shed"),
        (Change.RENAMED, "house"),
    ]
