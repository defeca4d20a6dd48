"""Which file a path stands for, with a real file system in user space in between."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libvirt_host import kill_and_wait
from tests.support.mounts import fuse
from tests.support.shares import UnraidMounts, unraid_mounts
from vm_babysitter.adapters.real_path import RealPath, fuse_devices, real_path

FOLDER = "-dom ains: \"a\", 'b' ü 日本"
MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
27 22 0:22 / /dev rw - devtmpfs dev rw
244 27 0:41 / /mnt/user\040-\040fuse rw,nosuid - fuse.shfs shfs rw,user_id=0
245 27 0:42 / /mnt/user0 rw shared:2 master:1 - fuse shfs rw
246 27 8:17 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
247 27 0:43 / /sys/fs/fuse/connections rw - fusectl fusectl rw
248 27 0:44 / /mnt/fuse.x rw - tmpfs fuse rw
"""


@pytest.fixture(scope="module")
def unraid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnraidMounts]:
    with unraid_mounts(tmp_path_factory.mktemp("mnt, of: x")) as mounts:
        yield mounts


@pytest.fixture
def image(unraid: UnraidMounts, request: pytest.FixtureRequest) -> Path:
    """A file in the pool, in a folder of its own; it does not say where it lies."""
    folder = unraid.cache / f"{FOLDER} {abs(hash(request.node.name))}"
    folder.mkdir()
    path = folder / "vdisk1.img"
    path.write_bytes(b"x" * 4096)
    return path


def direct(path: Path) -> RealPath:
    return RealPath(str(path), direct=True)


def behind(path: Path) -> RealPath:
    return RealPath(str(path), direct=False)


def test_file_systems_in_user_space_are_told_by_their_device_numbers() -> None:
    wanted = {os.makedev(0, 41), os.makedev(0, 42), os.makedev(8, 17)}
    assert fuse_devices(MOUNTINFO) == wanted


def test_path_without_a_file_system_in_between_is_itself_links_followed(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to("a file")
    for path in (file, link, tmp_path / "." / "x" / ".." / "link"):
        assert real_path(str(path)) == direct(file)
    assert real_path(str(tmp_path / "not there")) == direct(tmp_path / "not there")
    assert real_path("/dev/null") == direct(Path("/dev/null"))


@pytest.mark.parametrize("name", ["circle", "a\0b", "circle/below"])
def test_path_that_leads_nowhere_stays_and_is_not_direct(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert real_path(str(tmp_path / name)) == behind(tmp_path / name)


def test_file_in_a_share_is_found_in_its_pool(unraid: UnraidMounts, image: Path) -> None:
    unraid.locate(image)
    assert unraid.resolve(unraid.shown(image)) == direct(image)
    link = image.with_name("link")
    link.symlink_to(unraid.shown(image))
    assert unraid.resolve(link) == direct(image)
    assert unraid.resolve(unraid.shown(link)) == direct(image)
    assert unraid.resolve(image) == direct(image)


def test_file_that_has_grown_beneath_is_found_at_once(unraid: UnraidMounts, image: Path) -> None:
    """The file system in user space remembers sizes for a second."""
    unraid.locate(image)
    shown = unraid.shown(image)
    assert shown.stat().st_size == 4096
    image.write_bytes(b"x" * 5000)
    assert shown.stat().st_size == 4096, "it does not: the test shows nothing"
    assert unraid.resolve(shown) == direct(image)


def test_file_that_is_not_there_is_found_by_its_folder(unraid: UnraidMounts, image: Path) -> None:
    new = image.with_name("new")
    assert unraid.resolve(unraid.shown(new)) == behind(unraid.shown(new))
    unraid.locate(image.parent)
    assert unraid.resolve(unraid.shown(new)) == direct(new)
    below = image.parent / "no folder" / "new"
    assert unraid.resolve(unraid.shown(below)) == behind(unraid.shown(below))


def test_file_without_the_attribute_is_not_direct(unraid: UnraidMounts, image: Path) -> None:
    assert unraid.resolve(unraid.shown(image)) == behind(unraid.shown(image))
    # Nor without a file system that knows it at all, as everywhere but on Unraid.
    assert real_path(str(unraid.shown(image))) == behind(unraid.shown(image))


@pytest.mark.parametrize(
    "location",
    ["", ".", "..", "/", "cache/", "../mnt/cache", "user/../cache", "user", "disk1", "cache,disk1"],
)
def test_location_that_names_no_other_place_is_not_followed(
    unraid: UnraidMounts, image: Path, location: str
) -> None:
    unraid.locate(image, location)
    assert unraid.resolve(unraid.shown(image)) == behind(unraid.shown(image))


@pytest.mark.parametrize("other", ["longer", "folder", "link to a longer one"])
def test_another_file_at_that_place_is_not_taken_for_it(
    unraid: UnraidMounts, image: Path, other: str
) -> None:
    unraid.locate(image, f"disk {other}")
    there = unraid.base / f"disk {other}" / image.relative_to(unraid.cache)
    there.parent.mkdir(parents=True)
    match other:
        case "longer":
            there.write_bytes(b"x" * 4097)
        case "folder":
            there.mkdir()
        case _:
            there.with_name("other").write_bytes(b"x" * 4097)
            there.symlink_to("other")
    assert unraid.resolve(unraid.shown(image)) == behind(unraid.shown(image))


def test_file_behind_another_file_system_in_user_space_is_not_direct(
    unraid: UnraidMounts, image: Path, tmp_path: Path
) -> None:
    unraid.locate(image)
    with fuse(unraid.cache, tmp_path / "elsewhere") as place:
        path = place / image.relative_to(unraid.cache)
        assert unraid.resolve(path) == behind(path)


def test_file_whose_pool_is_itself_in_user_space_is_not_direct(
    unraid: UnraidMounts, image: Path
) -> None:
    unraid.locate(image, "rclone")
    with fuse(unraid.cache, unraid.base / "rclone"):
        assert unraid.resolve(unraid.shown(image)) == behind(unraid.shown(image))


def test_file_system_that_has_failed_makes_no_error(unraid: UnraidMounts, tmp_path: Path) -> None:
    with fuse(unraid.cache, tmp_path / "dead") as place:
        wanted = os.fsencode(place)
        commands = Path("/proc").glob("[0-9]*/cmdline")
        (server,) = (c.parent.name for c in commands if wanted in c.read_bytes().split(b"\0"))
        kill_and_wait(int(server))
        assert unraid.resolve(place / "x") == behind(place / "x")
