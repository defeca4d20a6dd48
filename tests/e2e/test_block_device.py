"""Disks that are block devices, such as volumes of LVM or ZFS: raw, or with a qcow2 on them."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import block_device
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec
from tests.support.world import World

Json = dict[str, Any]


def methods(made: Json) -> list[str]:
    return [disk["method"] for disk in made["disks"]]


def once_more(world: World) -> Json:
    done = world.call("backup", "--json", "--", world.vm.name)
    return cast(Json, json.loads(done.stdout))


def test_block_devices_are_backed_up_on_and_off(libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    with ExitStack() as stack:
        raw = stack.enter_context(block_device(tmp_path / "raw", 16 * MIB))
        qcow2 = stack.enter_context(block_device(tmp_path / "qcow2", 24 * MIB))
        disks = [
            DiskSpec("vda", size=8 * MIB),
            DiskSpec("vdb", "raw", 16 * MIB, path=raw),
            DiskSpec("vdc", size=8 * MIB, path=qcow2),
        ]
        world = World(libvirtd, tmp_path / "w", disks=disks)
        stack.callback(world.close)
        assert methods(world.backup()) == ["full"] * 3
        world.change()
        live = world.backup()
        assert methods(live) == ["bitmap", "scan", "bitmap"]
        assert live["disks"][1]["written_bytes"] < 16 * MIB
        world.assert_restores(newest(world))
        world.assert_tidy()
        world.change()
        world.vm.stop()
        assert methods(world.backup()) == ["bitmap", "scan", "bitmap"]
        for _ in range(2):  # whether a device was written to its file does not tell: it is read
            assert once_more(world)["unchanged"]
        (chain, _names), *_ = world.chains()
        assert chain.noted is None
        world.boot()
        world.vm.write("vdb", MIB, 512, 0x77)
        world.vm.stop()
        assert world.backup()["disks"][1]["written_bytes"] == 64 << 10
        for point in world.references:
            world.assert_holds(point)
        world.assert_restores(newest(world))
        world.assert_lists(world.references)


@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB + 512])
def test_a_first_backup_of_a_block_device_that_is_off(
    libvirtd: PrivateLibvirtd, tmp_path: Path, size: int
) -> None:
    with block_device(tmp_path / "raw", size) as device:
        world = World(libvirtd, tmp_path / "w", disks=[DiskSpec("vda", "raw", size, path=device)])
        world.vm.stop()
        world.backup()
        world.boot()
        world.change()
        world.backup()
        for point in world.references:
            world.assert_holds(point)
        world.close()
