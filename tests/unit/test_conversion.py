"""What may be converted, and what the new image is called."""

from dataclasses import replace

import pytest

from vm_babysitter.domain.conversion import (
    ImageFile,
    disk_obstacle,
    file_obstacle,
    name_too_long,
    new_name,
    note_path,
    partial_path,
    room_needed,
)
from vm_babysitter.domain.vm import Disk, DiskKind

RAW = Disk(
    target="vda",
    kind=DiskKind.DISK,
    source_type="file",
    source="/mnt/user/domains/vm/vdisk1.img",
    path="/mnt/pool/domains/vm/vdisk1.img",
    declared_format="raw",
    real_format="raw",
)
IMAGE = ImageFile(1, 2, 1 << 30, 4, 5, 1 << 20, 1, plain=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/mnt/user/domains/a vm/vdisk1.img", "/mnt/user/domains/a vm/vdisk1.qcow2"),
        ("/v/disk.RAW", "/v/disk.qcow2"),
        ("/v/disk", "/v/disk.qcow2"),
        ("/v/win.10", "/v/win.10.qcow2"),
        ("/v/really raw.qcow2", "/v/really raw.qcow2.qcow2"),
        ("/v/.img", "/v/.img.qcow2"),
        ("/v.img/-d,i:s'k", "/v.img/-d,i:s'k.qcow2"),
    ],
)
def test_the_new_image_lies_beside_the_old_one(old: str, new: str) -> None:
    assert new_name(old) == new
    assert note_path(new) == f"{new}.vmb-convert.json"
    assert partial_path(new, "0a1b2c") == f"{new}.vmb-partial-0a1b2c"


def test_names_that_leave_no_room_are_seen() -> None:
    assert not name_too_long(new_name(f"/v/{'x' * 220}.img"))
    assert name_too_long(new_name(f"/v/{'ü' * 115}.img"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": DiskKind.CDROM}, "it is a cdrom"),
        ({"source_type": "block"}, "its source is of type 'block'"),
        ({"source_type": ""}, "its source is of type ''"),
        ({"read_only": True}, "read-only"),
        ({"shareable": True}, "shared with other VMs"),
        ({"transient": True}, "transient"),
        ({"unreadable": "No such file"}, "cannot be read: No such file"),
        ({"direct": False}, "lies in a share"),
        ({"declared_format": "qcow2", "real_format": "qcow2"}, "is qcow2 already"),
        ({"declared_format": "qcow2"}, "calls its image"),
        ({"declared_format": ""}, "calls its image"),
        ({"real_format": "qcow2"}, "looks like qcow2"),
        ({"real_format": "luks"}, "looks like luks"),
    ],
)
def test_only_plain_raw_disks_are_converted(change: dict[str, object], says: str) -> None:
    assert disk_obstacle(RAW) is None
    obstacle = disk_obstacle(replace(RAW, **change))  # type: ignore[arg-type]
    assert obstacle is not None
    assert says in obstacle.reason


def test_files_with_more_names_than_one_are_not_converted() -> None:
    assert file_obstacle("/x", IMAGE) is None
    for change, says in (({"links": 2}, "2 names"), ({"plain": False}, "a link")):
        obstacle = file_obstacle("/x", replace(IMAGE, **change))
        assert obstacle is not None
        assert says in obstacle.reason


def test_room_is_needed_for_what_is_allocated_and_for_the_tables() -> None:
    assert room_needed(IMAGE, 1 << 40) == (1 << 20) + (1 << 28) + (1 << 20)


def test_a_file_that_was_written_is_not_the_same() -> None:
    mark = IMAGE.mark
    assert mark.same_content(replace(mark, changed=99))
    for change in ({"inode": 9}, {"size": 9}, {"modified": 9}):
        assert not mark.same_content(replace(mark, **change))
