"""What the tool that this one replaces distinguishes at its start, row by row of its table.

The number in a test's name is that of the row; ARCHITECTURE.md has the table, and says where the
rows are that have no test here. There the usual outcome is a new full backup, or a VM that is
switched off and on. Here it is always the next increment.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import read_only
from tests.support.stage import newest
from tests.support.table import (
    Table,
    chain_directory,
    checkpoint_of_somebody,
    goes_on,
    machine,
    methods,
    point_directory,
    reboot,
    remove_bitmap,
)
from tests.support.vm import MIB, DiskSpec, VmFactory
from tests.support.world import World, unchanged
from vm_babysitter.domain.diagnosis import Health

MID_COPY = Fault("die", "progress", "", 2)


@pytest.fixture(scope="module")
def table(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with closing(Table(libvirtd, tmp_path_factory.mktemp("table"))) as table:
        yield table


@pytest.fixture
def world(table: Table, request: pytest.FixtureRequest) -> Iterator[World]:
    """A VM that is on, with two points, tracked changes since, and a store to be spoilt."""
    with table.case(request.session) as world:
        yield world


def refused(world: World, *says: str, code: int = 1) -> None:
    """A backup is refused in these words; it changes neither the VM nor its disks."""
    before = machine(world)
    with unchanged(world.disks):
        failed = world.call("backup", "--", world.vm.name, expect=code)
    assert machine(world) == before
    for words in says:
        assert words in failed.stderr, failed.stderr


# -- what is looked at before anything else ----------------------------------------------------


def test_1_a_backup_folder_that_is_not_there_is_refused_and_later_taken_again(
    world: World,
) -> None:
    away = world.store.with_name("not mounted")
    world.store.rename(away)
    with unchanged(world.folder / "references"):
        refused(world, "The backup folder", "does not exist")
    assert not world.store.exists()
    away.rename(world.store)
    goes_on(world, "bitmap", "bitmap")


def test_4_a_vm_without_a_disk_file_is_refused_alone(world: World, vm: VmFactory) -> None:
    vm("bare", disks=[])
    failed = world.call("backup", "--", "bare", expect=1)
    assert "'bare' cannot be backed up: it has no disk" in failed.stderr
    goes_on(world, "bitmap", "bitmap")


def test_5_a_vm_whose_image_is_missing_is_refused_until_it_is_back(world: World) -> None:
    world.vm.stop()
    image = world.vm.paths["vdb"]
    away = image.rename(image.with_name("away"))
    refused(world, "disk vdb", "its image cannot be read", "No such file")
    world.assert_lists(world.chains()[0][1])
    away.rename(image)
    goes_on(world, "bitmap", "bitmap")


def test_6_an_image_that_cannot_be_written_is_read_all_the_same(world: World) -> None:
    world.vm.stop()
    with read_only(world.disks):
        goes_on(world, "bitmap", "bitmap")


def test_6_an_image_that_cannot_be_read_is_refused_until_it_can(world: World) -> None:
    world.vm.stop()
    image = world.vm.paths["vdb"]
    kept = image.read_bytes()
    with image.open("r+b") as file:
        file.write(b"\0" * 8)
    refused(world, "vdb")
    with image.open("r+b") as file:
        file.write(kept[:8])
    made = goes_on(world, "bitmap", "bitmap")
    assert not made.warnings


# -- the host was restarted, and libvirt's list of checkpoints is lost -------------------------


def test_10_after_a_restart_a_vm_that_was_started_goes_on_without_a_power_cycle(
    world: World,
) -> None:
    reboot(world)
    world.boot()
    world.change()
    goes_on(world, "bitmap", "bitmap")
    world.assert_vm_unharmed()
    world.assert_tidy()


def test_10_where_only_libvirt_was_restarted_all_goes_on(world: World) -> None:
    world.host.restart()
    goes_on(world, "bitmap", "bitmap")
    world.assert_vm_unharmed()


def test_11_after_a_restart_nobody_is_asked_to_switch_a_vm_off(world: World) -> None:
    reboot(world)
    world.boot()
    world.vm.resume()
    try:
        world.change()
        made = goes_on(world, "bitmap", "bitmap")
        assert not made.warnings
    finally:
        world.vm.suspend()


def test_12_a_vm_that_is_off_after_a_restart_is_backed_up_and_stays_off(world: World) -> None:
    reboot(world)
    with unchanged(world.disks):
        goes_on(world, "bitmap", "bitmap")


# -- the backup folder -------------------------------------------------------------------------


def lose_chain(world: World) -> None:
    shutil.rmtree(chain_directory(world))


def empty_chain(world: World) -> None:
    chain = chain_directory(world)
    shutil.rmtree(chain)
    chain.mkdir()


def leave_logs_only(world: World) -> None:
    chain = chain_directory(world)
    empty_chain(world)
    (chain / "backup.full.log").write_text("somebody's")


@pytest.mark.parametrize("lose", [lose_chain, empty_chain, leave_logs_only])
def test_13_where_all_points_are_gone_a_new_series_begins(
    world: World, lose: Callable[[World], None]
) -> None:
    before = machine(world)
    lose(world)
    world.references.clear()
    assert world.diagnosed().diagnosis.health is Health.NONE
    strange = {path: path.read_text() for path in world.store.rglob("*.log")}
    made = world.backup_here()
    assert (made.level, methods(made), made.warnings) == ("full", ("full", "full"), ())
    assert machine(world) == before
    assert {path: path.read_text() for path in world.store.rglob("*.log")} == strange
    world.change()
    goes_on(world, "bitmap", "bitmap")


def test_14_lists_that_are_missing_are_read_from_the_points_and_nothing_is_deleted(
    world: World,
) -> None:
    names = world.chains()[0][1]
    for path in (
        world.store / "store.json",
        chain_directory(world).parent / "vm.json",
        chain_directory(world) / "chain.json",
    ):
        path.unlink()
    world.assert_lists(names)
    goes_on(world, "bitmap", "bitmap")


# -- an interrupted backup ---------------------------------------------------------------------


def test_15_an_interrupted_first_full_is_swept_and_made_again(world: World, tmp_path: Path) -> None:
    world.store = tmp_path / "a new store"
    world.store.mkdir()
    world.references.clear()
    world.die(MID_COPY)
    assert list(world.store.rglob("*-full"))
    made = world.backup_here()
    assert (made.level, made.seq) == ("full", 0)
    world.assert_lists(world.references)
    world.assert_restores(newest(world))
    world.assert_store_tidy()


def test_15_an_interrupted_full_beside_a_good_series_costs_nothing(world: World) -> None:
    world.die(MID_COPY, options=["--full"])
    goes_on(world, "bitmap", "bitmap", finds="interrupted")
    world.assert_tidy()


def test_16_an_increment_interrupted_before_a_restart_is_made_again(world: World) -> None:
    world.die(MID_COPY)
    reboot(world)
    world.boot()
    world.change()
    goes_on(world, "bitmap", "bitmap", finds="interrupted")
    world.assert_tidy()


@pytest.mark.parametrize("power", ["on", "off"])
def test_17_an_interrupted_increment_is_undone_and_made_again(world: World, power: str) -> None:
    world.die(MID_COPY)
    world.change()
    if power == "off":
        world.vm.stop()
    goes_on(world, "bitmap", "bitmap", finds="interrupted")
    world.boot() if power == "off" else world.assert_vm_unharmed()
    world.assert_tidy()


# -- change tracking, compared with the series -------------------------------------------------


def test_18_off_and_all_as_it_should_be(world: World) -> None:
    world.vm.stop()
    with unchanged(world.disks):
        goes_on(world, "bitmap", "bitmap")


def test_19_off_and_one_disk_has_lost_its_change_tracking(world: World) -> None:
    names = world.bitmaps()["vdb"]
    world.vm.stop()
    for name in names:
        remove_bitmap(world, "vdb", name)
    goes_on(world, "bitmap", "scan", finds="tracking-lost")


def test_20_off_and_no_disk_has_change_tracking(world: World) -> None:
    found = world.bitmaps()
    world.vm.stop()
    for target, names in found.items():
        for name in names:
            remove_bitmap(world, target, name)
    goes_on(world, "scan", "scan", finds="tracking-lost")


def test_21_on_and_all_as_it_should_be(world: World) -> None:
    made = goes_on(world, "bitmap", "bitmap")
    assert not made.warnings
    world.assert_tidy()


def test_22_on_and_the_newest_change_tracking_is_gone_an_older_one_serves(world: World) -> None:
    world.backup_here()
    older, latest = (names_of(world, point) for point in list(world.references)[-2:])
    world.change()
    remove_bitmap(world, "vda", latest["vda"])
    remove_bitmap(world, "vdb", latest["vdb"])
    remove_bitmap(world, "vdb", older["vdb"])
    made = goes_on(world, "bitmap", "scan", finds="tracking-lost")
    assert f"since restore point {made.seq - 2:06d}" in made.disks[0].reason
    assert "gone" in made.disks[1].reason


def names_of(world: World, point: str) -> dict[str, str]:
    """The names of the bitmaps that a point has, by target."""
    (stored,) = (
        found.point
        for chain, names in world.chains()
        for found, name in zip(chain.points, names, strict=True)
        if name == point
    )
    assert stored.checkpoint is not None
    return {target: stored.checkpoint.bitmap(target) for target in stored.checkpoint.disks}


def test_23_libvirt_knows_checkpoints_of_another_vm_only(world: World, vm: VmFactory) -> None:
    other = vm("other", disks=[DiskSpec(size=MIB)])
    other.start()
    checkpoint_of_somebody(other, "theirs")
    goes_on(world, "bitmap", "bitmap")
    assert world.host.call("checkpoints", "other") == ["theirs"]


def test_24_a_vm_that_is_paused_stays_so_and_one_that_runs_runs_on(world: World) -> None:
    assert world.vm.state == "paused"
    goes_on(world, "bitmap", "bitmap")
    world.vm.resume()
    try:
        goes_on(world, "bitmap", "bitmap")
        assert world.vm.state == "running"
    finally:
        world.vm.suspend()


def test_25_a_series_without_change_tracking_goes_on_by_comparing(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    raw = [DiskSpec("vda", format="raw", size=8 * MIB)]
    with closing(World(libvirtd, tmp_path / "w", "raw", disks=raw)) as world:
        made = world.backup_here()
        assert (methods(made), made.checkpoint) == (("full",), None)
        world.change()
        goes_on(world, "scan")
        world.change()
        world.vm.stop()
        goes_on(world, "scan")


# -- proof -------------------------------------------------------------------------------------


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit])
def test_26_a_point_that_is_damaged_is_passed_over_and_its_series_goes_on(
    world: World, damage: Callable[[Path], None]
) -> None:
    whole, damaged = world.references
    path = point_directory(world, damaged) / "vda.qcow2"
    damage(path)
    failed = world.call("verify", "--", world.vm.name, expect=12)
    assert f"{damaged}  BAD: vda.qcow2" in failed.stdout
    assert f"{whole}  good" in failed.stdout
    del world.references[damaged]
    goes_on(world, "bitmap", "bitmap", parent=whole, finds="damaged")
    assert path.exists()


def test_27_a_point_without_its_fingerprints_does_not_count_as_proven(world: World) -> None:
    whole, unproven = world.references
    (point_directory(world, unproven) / "vda.index").unlink()
    failed = world.call("verify", "--", world.vm.name, unproven, expect=12)
    assert f"{unproven}  BAD: vda.index" in failed.stdout
    del world.references[unproven]
    goes_on(world, "bitmap", "bitmap", parent=whole, finds="damaged")


# -- what fails on the way ---------------------------------------------------------------------


def test_28_where_libvirt_cannot_forget_a_checkpoint_the_next_backup_has_it_forget(
    world: World,
) -> None:
    points = world.chains()[0][1]
    fault = Fault("fail", "call", "LibvirtHypervisor.forget_checkpoints", 2)
    failed = world.call("backup", "--", world.vm.name, faults=[fault], expect=1)
    assert "injected" in failed.stderr
    assert world.chains()[0][1] == points
    goes_on(world, "bitmap", "bitmap")
    world.assert_tidy()


def test_29_where_a_bitmap_cannot_be_removed_the_point_counts_and_the_next_backup_removes_it(
    world: World,
) -> None:
    world.backup_here()
    world.change()
    copies = world.copies()
    fault = Fault("fail", "call", "LibvirtHypervisor.remove_bitmaps")
    done = world.call("backup", "--", world.vm.name, faults=[fault], expect=3)
    assert "left" in done.stdout
    assert max(map(len, world.bitmaps().values())) == 3
    world.references[world.chains()[0][1][-1]] = copies
    world.change()
    goes_on(world, "bitmap", "bitmap")
    world.assert_tidy()


def test_33_a_checkpoint_of_somebody_stays_and_ours_go_on_beside_it(world: World) -> None:
    checkpoint_of_somebody(world.vm, "theirs")
    try:
        goes_on(world, "bitmap", "bitmap")
        assert world.host.call("checkpoints", world.vm.name) == ["theirs"]
        assert "theirs" in world.bitmaps()["vda"]
    finally:
        world.host.call("delete_checkpoint", world.vm.name, "theirs")


def test_34_a_vm_that_is_off_and_has_not_changed_has_nothing_to_do(world: World) -> None:
    world.vm.stop()
    world.backup_here()
    points = world.chains()[0][1]
    before = world.store.stat().st_mtime_ns
    done = world.call("backup", "--", world.vm.name)
    assert "has not changed" in done.stdout
    assert world.chains()[0][1] == points
    assert world.store.stat().st_mtime_ns == before
