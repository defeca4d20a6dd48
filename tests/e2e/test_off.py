"""The backup of a VM that is off, by the whole program, with real images: nothing is started."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import opened, run
from tests.support.soak import SOAK
from tests.support.stage import newest, soak
from tests.support.stopped import stopped_backup
from tests.support.vm import MIB, DiskSpec
from tests.support.world import DISKS, World, unchanged

KIB = 1024
MIXED = (*DISKS, DiskSpec("vdc", size=8 * MIB, format="raw"))
Act = Callable[[World], None]


@pytest.fixture
def make_world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(*disks: DiskSpec, running: bool = False) -> World:
        world = World(
            libvirtd, tmp_path / f"world {len(worlds)}", disks=disks or DISKS, running=running
        )
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def off(make_world: Callable[..., World]) -> World:
    """A VM with a full made while it was on, written to since, and switched off."""
    world = make_world()
    world.backup()
    world.change()
    world.vm.stop()
    return world


def methods(manifest: dict[str, list[dict[str, str]]]) -> list[str]:
    return [disk["method"] for disk in manifest["disks"]]


def assert_all(world: World) -> None:
    """All points hold what the disks held, and nothing but them is there."""
    for point in world.references:
        world.assert_holds(point)
    world.assert_restores(newest(world))
    world.assert_lists(world.references)


def last(world: World) -> dict[str, object]:
    """Make a backup that is not remembered, for where no new point is expected."""
    done = world.call("backup", "--json", "--", world.vm.name)
    return dict(json.loads(done.stdout))


def test_on_off_off_and_on_again_are_one_chain_of_increments(off: World) -> None:
    with unchanged(off.disks):
        first = off.backup()
        assert off.vm.state == "shutoff"
    assert (first["off"], first["level"], methods(first)) == (True, "inc", ["bitmap", "bitmap"])
    assert first["warnings"] == []
    off.boot()
    off.change()
    second = off.backup()
    assert (second["off"], methods(second)) == (False, ["bitmap", "bitmap"])
    off.change()
    off.vm.stop()
    third = off.backup()
    assert methods(third) == ["bitmap", "bitmap"]
    assert_all(off)
    off.boot()
    off.assert_vm_unharmed()
    off.assert_tidy()


def test_the_first_backup_may_be_of_a_vm_that_is_off(make_world: Callable[..., World]) -> None:
    world = make_world(*MIXED)
    world.vm.stop()
    first = world.backup()
    assert (first["level"], methods(first)) == ("full", ["full"] * 3)
    assert first["checkpoint"]["disks"] == ["vda", "vdb"]
    world.boot()
    world.change()
    second = world.backup()
    assert methods(second) == ["bitmap", "bitmap", "scan"]
    world.vm.stop()
    assert last(world)["unchanged"]
    for point in world.references:
        world.assert_holds(point)
    world.assert_lists(world.references)


def test_after_a_power_cut_it_is_compared_while_off_and_tracked_again(off: World) -> None:
    off.boot()
    off.change()
    off.vm.kill()
    time.sleep(0.1)  # libvirt notices
    cut = off.backup()
    assert methods(cut) == ["scan", "scan"]
    assert cut["checkpoint"]["disks"] == ["vda", "vdb"]
    off.boot()
    off.change()
    assert methods(off.backup()) == ["bitmap", "bitmap"]
    assert_all(off)
    off.assert_vm_unharmed()
    off.assert_tidy()


def test_a_vm_that_stays_off_gets_no_more_points_and_its_disks_sleep(off: World) -> None:
    off.backup()
    time.sleep(2.1)  # what was changed a moment ago is no evidence
    before = off.chains()
    assert last(off)["unchanged"]  # by its bitmaps
    tools = off.folder / "no tools of QEMU's"
    tools.mkdir()
    off.path = str(tools)
    assert last(off)["unchanged"]  # by its files' stamps alone
    plan = off.call("plan", "--", off.vm.name).stdout
    assert "has nothing to do: it is off and has not changed since restore point" in plan
    assert "unchanged until 2" in off.call("points").stdout
    off.path = ""
    assert [names for _, names in off.chains()] == [names for _, names in before]
    off.boot()
    off.vm.write("vda", MIB, 512, 0x11)
    off.vm.stop()
    off.backup()
    assert_all(off)


def test_a_disk_in_layers_made_while_off_is_compared_as_a_whole(off: World) -> None:
    overlay = off.disks / "vda.S20261124qcow2"
    base = off.vm.paths["vda"]
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2"]
    subprocess.run([*command, str(overlay)], check=True)
    off.vm.paths["vda"] = overlay
    off.vm.define_again()
    first = off.backup()
    assert methods(first) == ["scan", "bitmap"]
    off.boot()
    off.change()
    assert methods(off.backup()) == ["bitmap", "bitmap"]
    off.change()
    off.vm.stop()
    last_ = off.backup()
    assert methods(last_) == ["scan", "bitmap"]
    assert "several" not in last_["disks"][1]["reason"]
    assert "only its QEMU merges" in last_["disks"][0]["reason"]
    assert_all(off)


def test_layers_that_the_definition_ends_are_not_read_as_the_images_say(
    make_world: Callable[..., World],
) -> None:
    world = make_world(DiskSpec("vda", size=8 * MIB))
    world.vm.stop()
    image = world.vm.paths["vda"]
    base = image.rename(image.with_name("base: a"))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(image))
    name, end = f"</name><uuid>{world.vm.uuid}</uuid>", "<backingStore/></disk>"
    world.vm.define(world.vm.xml().replace("</name>", name).replace("</disk>", end))
    refused = world.call("backup", "--", world.vm.name, expect=1)
    assert "names other images beneath it" in refused.stderr
    world.boot()  # QEMU shows the VM an empty disk
    assert world.backup()["disks"][0]["written_bytes"] == 0


def test_an_image_with_internal_snapshots_is_kept_fit_for_going_back(off: World) -> None:
    image = off.vm.paths["vda"]
    run("qemu-img", "snapshot", "-c", "before", str(image))
    first = off.backup()
    assert methods(first) == ["scan", "bitmap"]
    off.boot()
    off.change()
    off.vm.stop()
    run("qemu-img", "snapshot", "-a", "before", str(image))  # refused where bitmaps record
    second = off.backup()
    assert methods(second) == ["scan", "bitmap"]
    assert_all(off)


def test_a_saved_memory_is_told_and_left_alone(off: World) -> None:
    off.boot()
    off.host.call("managed_save", off.vm.name)
    made = off.backup(expect=3)
    assert any("memory state not included" in warning for warning in made["warnings"])
    assert not made["quiesced"]
    off.boot()
    off.assert_vm_unharmed()
    off.change()
    off.backup()
    assert_all(off)


# --- whoever starts it comes first


def start(world: World) -> None:
    world.boot()
    world.change()


def start_and_stop(world: World) -> None:
    start(world)
    world.vm.stop()


MOMENTS = [
    Fault("stop", "step", "begin"),
    Fault("stop", "progress", "", 2),
    Fault("stop", "step", "confirm"),
    *soak(
        Fault("stop", "step", "mark"),
        Fault("stop", "step", "begun"),
        Fault("stop", "step", "copied vda"),
        Fault("stop", "step", "save"),
    ),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("act", [start, start_and_stop])
def test_a_start_succeeds_and_the_backup_is_made_again(off: World, moment: Fault, act: Act) -> None:
    with stopped_backup(off, moment) as backup:
        act(off)
        copies = off.copies()
        backup.go_on(expect=0)
    (names,) = (names for _, names in off.chains())
    (point,) = set(names) - set(off.references)
    off.references[point] = copies
    state = "shutoff" if act is start_and_stop else "paused"
    assert off.vm.state == state
    assert "It is backed up once more" in backup.err or moment.name in {"begin", "mark"}
    assert_all(off)
    if act is start:
        off.assert_vm_unharmed()
        off.assert_tidy()


def test_an_image_that_another_program_writes_is_not_read(off: World) -> None:
    with opened(off.vm.paths["vda"]):
        done = off.call("backup", "--", off.vm.name, expect=11)
    assert "open for writing" in done.stderr
    assert "vda.qcow2" in done.stderr
    off.backup()
    assert_all(off)


# --- killed


KILLS = [
    Fault("die", "os.rename", "*.attempt.json"),
    Fault("die", "step", "track vdb"),
    Fault("die", "step", "begin"),
    Fault("die", "progress", "", 2),
    Fault("die", "os.rename", "*/point.json"),
    Fault("die", "step", "committed"),
    *soak(
        Fault("die", "step", "mark"),
        Fault("die", "step", "track vda"),
        Fault("die", "return", "QemuOfflineBitmaps.add"),
        Fault("die", "step", "begun"),
        Fault("die", "step", "confirm"),
        Fault("die", "os.remove", "*.attempt.json"),
    ),
]


@pytest.mark.parametrize("fault", KILLS, ids=str)
def test_killed_anywhere_the_next_backup_goes_on_off_and_on(off: World, fault: Fault) -> None:
    """Without bitmaps in the images, so that they are put down again."""
    off.boot()
    off.vm.kill()
    time.sleep(0.1)
    copies = off.die(fault)
    (names,) = (names for _, names in off.chains())
    off.references.update({name: copies for name in names if name not in off.references})
    if SOAK or fault.kind != "step":
        off.backup() if len(off.references) == 1 else last(off)
    off.boot()
    off.change()
    off.backup()
    assert_all(off)
    off.assert_vm_unharmed()
    found = off.bitmaps()
    points = [s.point for chain, _ in off.chains() for s in chain.points]
    for target, bitmaps in found.items():
        known = {p.checkpoint.bitmap(target) for p in points if p.checkpoint}
        assert bitmaps <= known, target
    assert not list(off.store.rglob("*.attempt.json"))


def test_no_tool_of_qemus_leaves_a_trace(off: World) -> None:
    """Where there is no qemu-nbd the emulator reads the images, as on some hosts."""
    tools = off.folder / "tools"
    tools.mkdir()
    for name in ("qemu-img", "qemu-system-x86_64"):
        (tools / name).symlink_to(str(shutil.which(name)))
    off.path = str(tools)
    with unchanged(off.disks):
        made = off.backup()
    off.path = ""
    assert methods(made) == ["bitmap", "bitmap"]
    assert_all(off)
