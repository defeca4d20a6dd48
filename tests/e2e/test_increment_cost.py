"""An increment costs what changed: in the backup folder, and in what is read of the disk."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec, TestVm
from tests.support.world import KIB, World

SIZE = 32 * MIB
IMAGE_FRAME = 6 * 64 * KIB
"""An empty image of this size: header, L1, L2, refcount table and block, and one to spare."""
DOCUMENTS = 32 * KIB
"""Manifest, the VM's definition, index."""


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM whose disk is full of data and backed up."""
    disks = (DiskSpec("vda", size=SIZE),)
    with closing(World(libvirtd, tmp_path / "w", "costs", disks=disks)) as world:
        world.vm.write("vda", 0, SIZE, 0x11)
        world.backup()
        yield world


def occupied(folder: Path) -> int:
    """The bytes that all files below a folder take."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(max(state.st_size, state.st_blocks * 512) for state in files)


def nothing(_: TestVm) -> None:
    """The guest sleeps."""


def one_mib(vm: TestVm) -> None:
    vm.write("vda", 5 * MIB, MIB, 0x22)


def one_mib_across_blocks(vm: TestVm) -> None:
    vm.write("vda", 5 * MIB + 512, MIB, 0x22)


def one_mib_here_and_there(vm: TestVm) -> None:
    for number in range(16):
        vm.write("vda", (2 * number + 1) * MIB, 64 * KIB, 0x22)


def the_same_again(vm: TestVm) -> None:
    vm.write("vda", 5 * MIB, MIB, 0x11)


def one_mib_of_zeros(vm: TestVm) -> None:
    vm.zero("vda", 5 * MIB, MIB)


@pytest.mark.parametrize("scan", [False, True], ids=["tracked", "scan"])
@pytest.mark.parametrize(
    ("change", "read", "stored"),
    [
        (nothing, 0, 0),
        (one_mib, MIB, MIB),
        (one_mib_across_blocks, MIB + 64 * KIB, MIB + 64 * KIB),
        (one_mib_here_and_there, MIB, MIB),
        (the_same_again, MIB, 0),
        (one_mib_of_zeros, 0, 0),
    ],
)
def test_an_increment_costs_what_changed(
    world: World, change: Callable[[TestVm], None], read: int, stored: int, scan: bool
) -> None:
    change(world.vm)
    if scan:
        world.vm.flush("vda")
        world.vm.kill()  # and the change tracking with it
        world.boot()
    before = occupied(world.store)
    made = world.backup("--reread-runs", "0")
    cost = occupied(world.store) - before
    (disk,) = made["disks"]
    assert disk["method"] == ("scan" if scan else "bitmap")
    assert disk["written_bytes"] == stored
    assert disk["index_entries"] * 64 * KIB == stored + disk["zeroed_bytes"]
    if not scan:
        assert disk["read_bytes"] == read
    assert stored <= cost <= stored + IMAGE_FRAME + DOCUMENTS
    world.assert_restores(newest(world))


def test_a_plan_says_what_will_be_read_and_names_the_converter(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    disks = (DiskSpec("vda", size=SIZE), DiskSpec("vdb", "raw", size=SIZE))
    with closing(World(libvirtd, tmp_path / "w", disks=disks)) as world:
        vm = world.vm
        for target in ("vda", "vdb"):
            vm.write(target, 4 * MIB, 16 * MIB, 0x11)
        methods = []
        for pattern in (0x22, 0x33, 0x44):
            plan = json.loads(world.call("plan", "--json", "--", vm.name).stdout)
            made = world.backup()
            methods.append([disk["method"] for disk in plan["disks"]])
            for expected, disk in zip(plan["disks"], made["disks"], strict=True):
                # Clusters, tables, and blocks that only a part of was written.
                assert abs(expected["read_bytes"] - disk["read_bytes"]) <= MIB
            assert plan["read_bytes"] == sum(disk["read_bytes"] for disk in plan["disks"])
            vm.write("vda", 2 * MIB, 3 * MIB, pattern)
            vm.discard("vdb", 8 * MIB, 4 * MIB)
        assert methods == [["full", "full"], ["bitmap", "scan"], ["bitmap", "scan"]]
        text = world.call("plan", "--", vm.name).stdout
    assert "(assuming 150 MB/s)" in text  # so little read tells nothing
    command = shlex.split(text.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["vm-babysitter", "--standalone"]
    assert command[-4:] == ["convert", "--", vm.name, "vdb"]
