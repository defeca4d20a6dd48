"""Whether a folder is fit to hold backups."""

import re
from pathlib import Path

import pytest

from vm_babysitter.adapters.store import layout
from vm_babysitter.adapters.store.place import (
    check_holds_backups,
    check_new_place,
    check_place,
    filesystem_type,
)
from vm_babysitter.domain.errors import StoreRefused


def mount(point: str, kind: str, source: str = "/dev/sda1", root: str = "/") -> str:
    """Return a line of /proc/self/mountinfo as the kernel writes it."""
    point, source, root = map(escaped, (point, source, root))
    return f"36 25 8:1 {root} {point} rw,noatime shared:1 master:2 - {kind} {source} rw,x=y\n"


def escaped(text: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


ROOT = mount("/", "rootfs", "rootfs")


@pytest.mark.parametrize(
    ("mounts", "path", "kind"),
    [
        (ROOT, "/nowhere/x", "rootfs"),
        (ROOT + mount("/nowhere", "ext4"), "/nowhere", "ext4"),
        (ROOT + mount("/nowhere", "ext4"), "/nowhere/a/b", "ext4"),
        (ROOT + mount("/nowhere", "ext4"), "/nowhere2/a", "rootfs"),
        (ROOT + mount("/nowhere/a", "xfs") + mount("/nowhere", "ext4"), "/nowhere/a/b", "xfs"),
        (ROOT + mount("/nowhere/my disk", "btrfs"), "/nowhere/my disk/vm", "btrfs"),
        (ROOT + mount("/nowhere/my disk", "btrfs"), "/nowhere/my", "rootfs"),
        (ROOT + mount("/nowhere/a\\b", "xfs"), "/nowhere/a\\b/c", "xfs"),
        (ROOT + mount("/nowhere/tab\there", "xfs"), "/nowhere/tab\there", "xfs"),
        (ROOT + mount("/nowhere/naïve 猫", "zfs"), "/nowhere/naïve 猫/x", "zfs"),
        (ROOT + mount("/nowhere", "ext4") + mount("/nowhere", "tmpfs"), "/nowhere/x", "tmpfs"),
        (ROOT + mount("/nowhere", "xfs", root="/a/sub dir"), "/nowhere/x", "xfs"),
        (ROOT + mount("/nowhere", "fuse.shfs", "shfs"), "/nowhere/x", "fuse.shfs"),
        (ROOT + mount("/nowhere", "cifs", "//nas/a - b"), "/nowhere/x", "cifs"),
        (ROOT + mount("/nowhere/latin\udcff", "xfs"), "/nowhere/x", "rootfs"),
        (ROOT + mount("/nowhere/latin\udcff", "xfs"), "/nowhere/latin\udcff/x", "xfs"),
        (ROOT + mount("/nowhere/line\u2028break", "xfs"), "/nowhere/x", "rootfs"),
        (mount("/other", "ext4"), "/nowhere", ""),
        ("", "/nowhere", ""),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(mounts: str, path: str, kind: str) -> None:
    assert filesystem_type(Path(path), mounts) == kind


def test_a_link_is_followed_to_the_file_system_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    mounts = ROOT + mount(f"{tmp_path}/disk", "xfs") + mount(f"{tmp_path}/link", "tmpfs")
    assert filesystem_type(tmp_path / "link" / "new", mounts) == "xfs"


def test_the_real_mounts_are_understood() -> None:
    assert filesystem_type(Path("/proc/self")) == "proc"
    assert filesystem_type(Path("/")) != ""


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(StoreRefused) as caught:
        check_place(path, **{"writable": True, "allow_ram": True, **options})
    assert caught.value.way_out
    return caught.value.reason


def test_a_folder_that_is_missing_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    assert "does not exist" in refusal(tmp_path / "missing")
    assert "does not exist" in refusal(tmp_path / "dangling")
    assert "not a folder" in refusal(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_read_only_file_system_is_fit_for_reading_only() -> None:
    assert re.search("written|RAM", refusal(Path("/proc/self"), allow_ram=False))
    check_place(Path("/proc"), writable=False, allow_ram=True)


def test_ram_is_refused_unless_it_is_allowed() -> None:
    shm = Path("/dev/shm")
    assert filesystem_type(shm) == "tmpfs"
    assert "RAM (tmpfs)" in refusal(shm, allow_ram=False)
    assert "RAM (tmpfs)" in refusal(shm, allow_ram=False, writable=False)
    check_place(shm, writable=True, allow_ram=True)


def backups(path: Path) -> None:
    (path / "VM-5eed5eed").mkdir(parents=True)
    (path / "VM-5eed5eed" / layout.VM_FILE).touch()


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("lost+found", ".Recycle.Bin", "System Volume Information", ".DS_Store"),
        (layout.LOCK_FILE, ".store.json.tmp"),
    ],
)
def test_a_backup_folder_may_begin_where_nothing_that_matters_lies(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    backups(tmp_path)
    check_new_place(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "vm.json", "domains", ".hidden", "it's {odd}"])
def test_a_backup_folder_does_not_begin_among_other_things(tmp_path: Path, name: str) -> None:
    backups(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(StoreRefused, match=re.escape(name)):
        check_new_place(tmp_path)


def test_only_some_of_many_other_things_are_named(tmp_path: Path) -> None:
    for n in range(9):
        (tmp_path / f"file{n}").touch()
    with pytest.raises(StoreRefused) as caught:
        check_new_place(tmp_path)
    assert "file2" in str(caught.value)
    assert "file3" not in str(caught.value)


def test_a_folder_is_read_only_where_it_holds_backups(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="no backups yet"):
        check_holds_backups(tmp_path)
    backups(tmp_path)
    check_holds_backups(tmp_path)


def test_restore_points_tell_that_a_folder_holds_backups_where_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    point = tmp_path / "VM-5eed5eed" / "20261124T021500Z" / "000000-full"
    point.mkdir(parents=True)
    with pytest.raises(StoreRefused, match="no backups yet"):
        check_holds_backups(tmp_path)
    (point / layout.POINT_FILE).touch()
    check_holds_backups(tmp_path)
    check_new_place(tmp_path)
