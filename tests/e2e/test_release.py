"""A VM is given back, on or off: nothing of ours is left in it, wherever the program is killed."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.daemon import DaemonProcess, back_up, in_care_of
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.stage import Stage, newest, soak
from tests.support.vm import MIB, DiskSpec
from tests.support.world import Json, World
from vm_babysitter.adapters.qemu.img import info

FOREIGN = ("virtnbdbackup.0", "vmb-12345678-000000-abcdef-vda")


def die(kind: str, name: str = "", nth: int = 1) -> Fault:
    return Fault("die", kind, name, nth)


LIVE = [
    die("return", "LibvirtHypervisor.remove_bitmaps"),
    die("call", "virDomainCheckpoint.delete", 2),  # libvirt knows the checkpoint, the bitmap stays
    *soak(
        die("step", "look"),
        die("step", "clear vda"),
        die("step", "clear vdb"),
        die("call", "LibvirtHypervisor.remove_bitmaps", 2),
        die("call", "virDomain.checkpointCreateXML"),
        die("step", "done"),
    ),
]
OFF = [
    die("return", "QemuOfflineBitmaps.remove"),
    die("call", "execute", 4),  # qemu-img is about to be started
    *soak(
        die("step", "look"),
        die("step", "clear vda"),
        die("step", "clear vdb"),
        die("call", "QemuOfflineBitmaps._check_unused", 2),  # it has just ended
        die("call", "QemuOfflineBitmaps.remove", 2),
        die("step", "done"),
    ),
]


@pytest.fixture(scope="module")
def stage(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(libvirtd, tmp_path_factory.mktemp("release"))
    yield stage
    stage.close()


@pytest.fixture
def world(stage: Stage) -> World:
    """A VM that is on, with a chain and with others' change tracking on vda."""
    world = stage.enter()
    world.change()
    plant(world)
    return world


def plant(world: World) -> None:
    """Somebody has change tracking on vda: another program, and another backup folder of ours."""
    missing = set(FOREIGN) - world.bitmaps()["vda"]
    with world.vm.monitor() as qmp:
        blocks = cast(list[dict[str, Any]], qmp.execute("query-block"))
        (node,) = [b["inserted"]["node-name"] for b in blocks if "virtio-disk0" in b["qdev"]]
        for name in missing:
            qmp.execute("block-dirty-bitmap-add", node=node, name=name, persistent=True)


def in_images(world: World) -> dict[str, set[str]]:
    """The bitmaps in the images of a VM that is off."""
    return {target: {n for n, _ in info(path).bitmaps} for target, path in world.vm.paths.items()}


def release(world: World, *options: str, expect: int = 0) -> Json:
    done = world.call("release", *options, "--json", "--", world.vm.name, expect=expect)
    return cast(Json, json.loads(done.stdout))


def released(world: World, there: dict[str, set[str]]) -> None:
    """Nothing of ours is left, all else is, and all points restore."""
    assert there == {"vda": set(FOREIGN), "vdb": set()}
    assert world.host.call("checkpoints", world.vm.name) == []
    assert {path.name for path in world.disks.iterdir()} == {"vda.qcow2", "vdb.qcow2"}
    world.assert_lists(world.references, verify=False)
    world.assert_holds(newest(world))


def taken_back(world: World) -> None:
    """Backups go on after it: the first one compares all, the next one need not."""
    parent = newest(world)
    world.change()
    made = world.backup()
    assert [disk["method"] for disk in made["disks"]] == ["scan", "scan"]
    assert made["parent"] == int(parent.split("/")[1])
    assert made["warnings"] == []
    world.assert_restores(newest(world))
    world.assert_vm_unharmed()


@pytest.mark.parametrize("fault", LIVE, ids=str)
def test_killed_while_a_vm_that_runs_is_given_back(
    world: World, stage: Stage, fault: Fault
) -> None:
    world.call("release", "--", world.vm.name, faults=[fault], expect=-signal.SIGKILL)
    world.assert_lists(world.references)
    world.assert_vm_unharmed()
    found = release(world)
    assert found["left"] == []
    assert "another backup folder" in found["notes"][0]
    released(world, world.bitmaps())
    taken_back(world)
    stage.failed = False


@pytest.mark.parametrize("fault", OFF, ids=str)
def test_killed_while_a_vm_that_is_off_is_given_back(
    world: World, stage: Stage, fault: Fault
) -> None:
    world.vm.stop()
    world.call("release", "--", world.vm.name, faults=[fault], expect=-signal.SIGKILL)
    world.assert_lists(world.references)
    assert release(world)["left"] == []
    released(world, in_images(world))
    for path in world.vm.paths.values():
        run("qemu-img", "check", named(path))
    world.boot()
    taken_back(world)
    stage.failed = False


def test_a_backup_right_after_the_kill_goes_on_with_what_is_left(
    world: World, stage: Stage
) -> None:
    fault = die("step", "clear vdb", len(world.bitmaps()["vdb"]))  # at the newest, and last, one
    world.call("release", "--", world.vm.name, faults=[fault], expect=-signal.SIGKILL)
    made = world.backup()
    assert [disk["method"] for disk in made["disks"]] == ["scan", "bitmap"]
    world.assert_restores(newest(world))
    world.assert_vm_unharmed()
    stage.failed = False


def test_after_a_power_cut_damaged_tracking_goes_too(world: World, stage: Stage) -> None:
    world.vm.stop()
    world.boot()
    world.vm.kill()
    found = release(world)
    assert {each["disk"] for each in found["removed"]} == {"vda", "vdb"}
    assert not any(n.startswith("vmb-") for n in in_images(world)["vda"] - set(FOREIGN))
    world.boot()
    world.change()
    world.backup()
    world.assert_restores(newest(world))
    stage.failed = False


@pytest.fixture
def small(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM with a qcow2 and a raw disk, backed up once, and off."""
    disks = (DiskSpec("vda", size=8 * MIB), DiskSpec("vdb", size=8 * MIB, format="raw"))
    with closing(World(libvirtd, tmp_path / "small", "it's small", disks=disks)) as world:
        world.backup_here()
        world.vm.stop()
        yield world


def test_an_image_that_another_process_has_locked(small: World) -> None:
    image = small.vm.paths["vda"]
    argv = ["qemu-io", "-f", "qcow2", str(image)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        user.stdin.write("length\n")
        user.stdin.flush()
        user.stdout.readline()
        told = small.call("release", "--", small.vm.name, expect=3)
        user.stdin.close()
    assert "No change tracking was removed. Its restore points stay." in told.stdout
    assert "Warning: Disk vda: The disk image" in told.stdout
    assert "is busy: " in told.stdout
    assert "It can be done when that is finished." in told.stdout
    assert "vdb" not in told.stdout  # a raw disk has nothing of ours
    told = small.call("release", "--", small.vm.name)
    assert "Change tracking was removed from vda. Its restore points stay." in told.stdout
    told = small.call("release", "--", small.vm.name)
    assert "No change tracking was there." in told.stdout


def test_a_vm_that_is_gone_and_a_folder_that_is_gone(small: World) -> None:
    away = small.folder / "moved away"
    small.store.rename(away)
    told = small.call("release", "--", small.vm.name, expect=1)
    assert "cannot be used: it does not exist." in told.stderr
    assert in_images(small)["vda"]
    found = release(small, "--any-folder")
    assert [each["disk"] for each in found["removed"]] == ["vda"]
    assert in_images(small)["vda"] == set()
    shutil.move(away, small.store)
    small.vm.undefine()
    told = small.call("release", "--", small.vm.name)
    assert "libvirt has no such VM any more" in told.stdout
    small.assert_lists(small.references)
    told = small.call("release", "nobody", expect=10)
    assert "There is no VM" in told.stderr or "nobody" in told.stderr


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_tracking_below_a_snapshot_goes_too(small: World, on: bool) -> None:
    base = small.vm.paths["vda"]
    overlay = base.with_name("vda.S20261124120000qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2"]
    subprocess.run([*command, str(overlay)], check=True)
    small.vm.paths["vda"] = overlay
    small.vm.define_again()
    if on:
        small.boot()
    assert info(base).bitmaps
    assert release(small)["left"] == []
    if on:
        small.vm.stop()
    assert info(base).bitmaps == ()
    small.boot()
    small.change()
    small.backup_here()
    small.assert_restores(newest(small))


def test_the_daemon_gives_a_vm_back_and_leaves_it_alone(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """It had been started by the autostart list in place of libvirt."""
    with (
        closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon,
        closing(World(libvirtd, tmp_path / "w", disks=(DiskSpec("vda", size=8 * MIB),))) as world,
    ):
        in_care_of(daemon, world)
        daemon.write_settings(autostart={"vms": [{"vm": world.vm.name}], "taken": [world.vm.uuid]})
        daemon.start()
        back_up(daemon, world)
        first = daemon.api.done("release", world.vm.uuid)
        assert first["summary"] == "Change tracking was removed from vda. Its restore points stay."
        assert world.bitmaps() == {"vda": set()}
        settings = daemon.api.get("/settings")["settings"]
        assert settings["vms"]["ignored"] == [world.vm.uuid]
        assert settings["autostart"] == {"vms": [], "taken": []}
        with world.app().hypervisor() as hypervisor:
            assert hypervisor.own_autostart(world.vm.uuid)
            hypervisor.set_own_autostart(world.vm.uuid, on=False)
        again = daemon.api.done("release", world.vm.uuid, any_folder=True)
        assert again["summary"] == "No change tracking was there. Its restore points stay."
        daemon.api.configure(vms={})
        world.change()
        back_up(daemon, world)
        for point in world.references:
            world.assert_restores(point)
        world.assert_vm_unharmed()
