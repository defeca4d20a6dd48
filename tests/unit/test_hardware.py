"""What is said of changed hardware: one sentence per change, and none where nothing changed."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.points import IDENTITY, MIB, PATH, a_disk, point, point_disk
from vm_babysitter.domain.hardware import changed_disk, changed_vm

NOW: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "error policy": ({"error_policy": "report"}, ""),
    "another path": ({"path": "/b"}, f"uses the image /b now, it was {PATH}"),
    "a block device of another name": ({"path": "/dev/sdb", "source_type": "block"}, ""),
    "grown": ({"virtual_size": 2 * MIB}, "has grown from 1 MiB to 2 MiB"),
    "grown by a sector": (
        {"virtual_size": MIB + 512},
        "has grown from 1048576 bytes to 1049088 bytes",
    ),
    "smaller": ({"virtual_size": MIB // 2}, "was made smaller from 1 MiB to 512 KiB"),
    "size unknown": ({"virtual_size": 0}, ""),
    "a qcow2 used as raw, whose own size nobody sees": (
        {"declared_format": "raw", "virtual_size": 2 * MIB},
        "is raw now, it was qcow2",
    ),
    "converted": (
        {"path": "/b", "declared_format": "raw", "real_format": "raw", "virtual_size": 2 * MIB},
        f"uses the image /b now, it was {PATH}, and is raw now, it was qcow2, and has grown "
        "from 1 MiB to 2 MiB",
    ),
}


@pytest.mark.parametrize(("change", "words"), NOW.values(), ids=NOW)
def test_a_change_of_a_disk_is_one_sentence(change: dict[str, Any], words: str) -> None:
    disk = replace(a_disk(), **change)
    found = changed_disk(disk, IDENTITY, disk.declared_format, point_disk())
    assert found == (f"disk vda {words}" if words else "")


def test_another_file_at_the_same_place_is_told_where_it_can_be() -> None:
    disk, past = a_disk(), point_disk()
    assert changed_disk(disk, "inode:5", "qcow2", past) == (
        f"disk vda uses another file called {PATH} now"
    )
    assert changed_disk(disk, "", "qcow2", past) == ""
    assert changed_disk(disk, "inode:5", "qcow2", replace(past, identity="")) == ""
    moved = replace(disk, path="/b")
    assert "another file" not in changed_disk(moved, "inode:5", "qcow2", past)
    assert changed_disk(replace(disk, source_type="block"), "inode:5", "qcow2", past) == ""


def test_a_new_target_and_a_new_disk_are_told() -> None:
    assert changed_disk(a_disk("hdc"), IDENTITY, "qcow2", point_disk()) == (
        "disk hdc was disk vda before"
    )
    assert changed_disk(a_disk(), IDENTITY, "qcow2", None) == "disk vda is new"


def test_a_disk_that_is_no_longer_encrypted_is_told() -> None:
    past = replace(point_disk(), encrypted=True)
    assert "no longer encrypted" in changed_disk(a_disk(), IDENTITY, "qcow2", past)
    assert changed_disk(replace(a_disk(), encrypted=True), IDENTITY, "qcow2", past) == ""


def test_a_new_name_and_namesakes_are_told_when_they_are_news() -> None:
    made = point()
    assert changed_vm(made.vm_uuid, made.vm_name, made, ["x"]) == []
    assert changed_vm(made.vm_uuid, "new", made, []) == [
        f"the VM was called {made.vm_name!r} before"
    ]
    assert changed_vm("u", "n", None, ["u"]) == []
    (note,) = changed_vm("u", "n", None, ["u", "y", "x"])
    assert "'n' with another UUID (x, y)" in note
