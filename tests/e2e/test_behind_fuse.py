"""A VM whose definition names its disk behind a file system in user space, as on Unraid."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import fuse
from tests.support.shares import emulator_below
from tests.support.vm import EMULATOR, MIB, DiskSpec
from tests.support.world import Json, World


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    disks = [DiskSpec(size=16 * MIB)]
    with closing(World(libvirtd, tmp_path / "w", "behind", disks=disks)) as world:
        world.vm.stop()
        yield world


def define(world: World, path: Path, emulator: Path) -> None:
    """Have the definition name the image by another path; QEMU opens it as it always did."""
    real = world.vm.paths["vda"]
    world.vm.paths["vda"] = path
    own = world.vm.xml().replace(EMULATOR, str(emulator))
    world.vm.paths["vda"] = real
    world.vm.define(own.replace("</name>", f"</name><uuid>{world.vm.uuid}</uuid>", 1))
    world.boot()


def listed(world: World) -> Json:
    (vm,) = (v for v in json.loads(world.call("vms", "--json").stdout) if v["name"] == "behind")
    (disk,) = vm["disks"]
    found: Json = disk
    return found


def test_one_disk_by_whatever_path_is_backed_up_by_its_change_tracking(world: World) -> None:
    user, real = world.folder / "user", world.vm.paths["vda"]
    user.mkdir()
    # What libvirtd, which does not see our mounts, finds at that place.
    (user / real.name).symlink_to(real)
    emulator = emulator_below(world.folder / "qemu", user, world.disks)
    with fuse(world.disks, user):
        define(world, user / real.name, emulator)
        disk = listed(world)
        assert (disk["path"], disk["direct"]) == (str(user / real.name), False)
        (made,) = world.backup()["disks"]
        assert (made["method"], made["path"]) == ("full", str(real))
        world.change()
        (made,) = world.backup()["disks"]
        assert (made["method"], made["path"]) == ("bitmap", str(real))
        world.vm.stop()
    link = world.folder / "link"
    link.symlink_to(world.disks)
    for path in (real, link / real.name):
        define(world, path, emulator)
        disk = listed(world)
        assert (disk["path"], disk["direct"]) == (str(real), True)
        world.change()
        (made,) = world.backup()["disks"]
        assert (made["method"], made["path"]) == ("bitmap", str(real))
        world.vm.stop()
    for point in world.references:
        world.assert_restores(point)
