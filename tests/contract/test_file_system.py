"""What kind of file system a path lies on: by the kernel's list, and for real."""

import os
from pathlib import Path

import pytest

from tests.support.mounts import fuse, ram_disk
from vm_babysitter.adapters.file_system import file_system_type

LIST = """\
20 1 0:20 / / rw - rootfs rootfs rw
21 20 8:1 / /boot rw,relatime shared:1 - vfat /dev/sda1 rw
22 20 0:30 / /mnt/user rw - fuse.shfs shfs rw
23 20 9:1 / /mnt/cache rw - btrfs /dev/md1 rw
24 23 9:2 / /mnt/cache/with\\040space rw - xfs /dev/md2 rw
25 20 0:31 / /mnt/nas rw - ext4 /dev/x rw
26 25 0:32 / /mnt/nas rw - nfs4 host:/ rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/boot/config", "vfat"),
        ("/boots", "rootfs"),
        ("/mnt/user", "fuse.shfs"),
        ("/mnt/user/system/x", "fuse.shfs"),
        ("/mnt/cache/system", "btrfs"),
        ("/mnt/cache/with space/x", "xfs"),
        ("/mnt/nas/x", "nfs4"),
        ("/", "rootfs"),
    ],
)
def test_the_longest_place_counts_and_of_two_the_later_one(
    tmp_path: Path, path: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(LIST)
    assert file_system_type(Path(path), mounts) == kind


def test_what_cannot_be_told_is_empty(tmp_path: Path) -> None:
    assert file_system_type(tmp_path, tmp_path / "none") == ""
    (tmp_path / "empty").touch()
    assert file_system_type(tmp_path, tmp_path / "empty") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_real_ones_are_told_apart_through_links_too(tmp_path: Path) -> None:
    link = tmp_path / "link"
    with ram_disk(tmp_path / "a b", 1024 * 1024) as ram:
        link.symlink_to(ram)
        assert file_system_type(ram) == file_system_type(link) == "tmpfs"
        (ram / "x").mkdir()
        with fuse(ram / "x", tmp_path / "f") as place:
            assert file_system_type(place).startswith("fuse")
