"""Disasters after which the tool that this one replaces goes on without its user, one by one.

The number in a test's name is that of ARCHITECTURE.md's table. What is kept there is kept here;
what is lost there, mostly the series itself, is not: only what was never written is.
"""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import newest
from tests.support.stopped import stopped_command
from tests.support.table import (
    Table,
    goes_on,
    machine,
    methods,
    power_cut,
    reboot,
    remove_bitmap,
)
from tests.support.vm import DiskSpec, create_image
from tests.support.world import World, unchanged
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.findings import Code

DIES = Fault("die", "progress", "", 2)
STANDS_STILL = Fault("stop", "progress", "", 2)


@pytest.fixture(scope="module")
def table(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with closing(Table(libvirtd, tmp_path_factory.mktemp("table"))) as table:
        yield table


@pytest.fixture
def world(table: Table, request: pytest.FixtureRequest) -> Iterator[World]:
    """A VM that is on, with two points, and tracked changes since."""
    with table.case(request.session) as world:
        yield world


def is_tracked_again(world: World) -> None:
    """The increment after next reads only what has changed, and nothing is left behind."""
    if world.vm.state == "shutoff":
        world.boot()
    world.change()
    made = world.backup_here()
    assert (made.level, methods(made)) == ("inc", ("bitmap", "bitmap"))
    world.assert_holds(newest(world))
    world.assert_vm_unharmed()


# -- the host goes down ------------------------------------------------------------------------


def test_disaster_1_a_restart_after_which_the_vms_are_off(world: World) -> None:
    reboot(world)
    with unchanged(world.disks):
        goes_on(world, "bitmap", "bitmap")
    is_tracked_again(world)
    world.assert_tidy()


def test_disaster_2_a_restart_after_which_the_vms_are_started_at_once(world: World) -> None:
    reboot(world)
    world.boot()
    world.change()
    goes_on(world, "bitmap", "bitmap")
    world.assert_vm_unharmed()
    world.assert_tidy()


def test_disaster_3_a_power_cut_after_the_series_grew_since_the_vm_started(world: World) -> None:
    world.vm.stop()  # so that there are bitmaps in the images, which the cut damages
    world.boot()
    world.change()
    world.backup_here()
    world.change()
    power_cut(world)
    world.boot()
    world.change()
    goes_on(world, "scan", "scan", finds="tracking-damaged")
    is_tracked_again(world)


@pytest.mark.parametrize("power", ["on", "off"])
def test_disaster_4_a_power_cut_without_a_backup_since_the_vm_started(
    world: World, power: str
) -> None:
    world.vm.stop()
    world.boot()  # now the bitmaps in the images have the right names, and are in use
    world.change()
    power_cut(world)
    if power == "on":
        world.boot()
        world.change()
    made = goes_on(world, "scan", "scan", finds="tracking-damaged")
    assert "damaged" in made.disks[0].reason
    assert not made.warnings
    is_tracked_again(world)


# -- we, or the host, go down in mid copy ------------------------------------------------------


@pytest.mark.parametrize("end", ["asked to stop", "power cut"])
def test_disaster_5_a_first_full_is_interrupted(world: World, tmp_path: Path, end: str) -> None:
    world.store = tmp_path / "a new store"
    world.store.mkdir()
    world.references.clear()
    interrupt(world, end)
    made = world.backup_here()
    assert (made.level, made.seq, methods(made)) == ("full", 0, ("full", "full"))
    world.assert_lists(world.references)
    world.assert_store_tidy()
    is_tracked_again(world)


def test_disaster_5_a_later_full_is_interrupted_and_the_older_series_goes_on(
    world: World,
) -> None:
    interrupt(world, "power cut", "--full")
    goes_on(world, "scan", "scan", finds="interrupted tracking-lost")
    world.assert_store_tidy()


def test_disaster_6_an_increment_is_interrupted(world: World) -> None:
    interrupt(world, "killed")
    goes_on(world, "bitmap", "bitmap", finds="interrupted")
    world.assert_tidy()


def test_disaster_7_the_power_fails_during_an_increment(world: World) -> None:
    interrupt(world, "power cut")
    goes_on(world, "scan", "scan", finds="interrupted tracking-lost")
    world.assert_store_tidy()


def interrupt(world: World, end: str, *options: str) -> None:
    """Begin a backup that comes to this end. The VM is on afterwards, and changed."""
    if end == "killed":
        world.die(DIES, options=options)
    else:
        command = ("backup", *options, "--", world.vm.name)
        with stopped_command(world, *command, faults=[STANDS_STILL]) as backup:
            if end == "power cut":
                power_cut(world)
                shutil.rmtree(world.runtime)  # in RAM
            else:
                backup.signal(signal.SIGTERM)
                backup.go_on(expect=130)
    if world.vm.state == "shutoff":
        world.boot()
    world.change()


# -- somebody takes something away -------------------------------------------------------------


def test_disaster_8_the_backup_folder_is_emptied(world: World, tmp_path: Path) -> None:
    second = shutil.copytree(world.store, tmp_path / "a second copy")
    kept = dict(world.references)
    shutil.rmtree(world.store)
    world.store.mkdir()
    world.references.clear()
    with unchanged(second):
        assert world.backup_here().level == "full"
    is_tracked_again(world)
    original, world.store = world.store, second
    world.references |= kept
    world.assert_restores(list(kept)[-1])
    world.store = original
    world.references = {p: r for p, r in world.references.items() if p not in kept}


def replace_by_empty(world: World) -> None:
    image = world.vm.paths["vda"]
    image.unlink()
    create_image(image, DiskSpec("vda", size=world.vm.disks["vda"].size))


def restore_from_backup(world: World) -> None:
    target = world.folder / "restored"
    point = next(iter(world.references))
    world.call("restore", "--to", str(target), "--", world.vm.name, point)
    (target / "vda.qcow2").replace(world.vm.paths["vda"])
    shutil.rmtree(target)


def revert_in_place(world: World) -> None:
    """As a snapshot of the file system brings it back, with bitmaps of before."""
    with (world.folder / "early").open("rb") as early, world.vm.paths["vda"].open("r+b") as image:
        image.truncate()
        shutil.copyfileobj(early, image)


@pytest.mark.parametrize(
    ("act", "method"),
    [(replace_by_empty, "scan"), (restore_from_backup, "scan"), (revert_in_place, "bitmap")],
)
def test_disaster_9_a_disk_is_replaced_restored_or_reverted(
    world: World, act: Callable[[World], None], method: str
) -> None:
    world.vm.stop()
    shutil.copyfile(world.vm.paths["vda"], world.folder / "early")
    world.boot()
    world.change()
    world.backup_here()
    world.vm.stop()
    act(world)
    world.boot()
    world.change()
    goes_on(world, method, "bitmap", finds="tracking-lost" if method == "scan" else "")


def test_disaster_10_checkpoints_and_bitmaps_are_deleted_by_hand(world: World) -> None:
    for target, names in world.bitmaps().items():
        for name in names:
            remove_bitmap(world, target, name)
    made = goes_on(world, "scan", "scan", finds="tracking-lost")
    assert "gone" in made.disks[0].reason
    is_tracked_again(world)
    world.assert_tidy()


def test_disaster_11_a_vm_is_deleted_and_its_points_stay(world: World, tmp_path: Path) -> None:
    world.vm.stop()
    world.host.call("undefine_plainly", world.vm.name)  # as Unraid's pages do it
    name, point = world.vm.name, newest(world)
    with unchanged(world.store):
        gone = world.call("backup", "--", name, expect=10)
        assert "no persistent VM named" in gone.stderr
        assert point in world.call("points", "--", name).stdout
        found = world.diagnosed().diagnosis
        assert (found.health, [f.code for f in found.findings]) == (Health.GOOD, [Code.VM_GONE])
        world.assert_restores(point)
    world.vm.define_again()
    world.boot()
    world.change()
    goes_on(world, "bitmap", "bitmap")


def test_disaster_12_a_vm_is_off_when_it_is_its_turn(world: World) -> None:
    world.vm.stop()
    before = str(world.host.call("xml", world.vm.name, True))
    with unchanged(world.disks):
        made = goes_on(world, "bitmap", "bitmap")
    assert made.off
    assert machine(world) == ("shutoff", 0)
    assert str(world.host.call("xml", world.vm.name, True)) == before
