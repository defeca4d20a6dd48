"""After a crash of the host the newest restore point is read once before anything builds on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Seen
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.repair import Repair

READ = "is read once more before anything builds on it"


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with a full and an increment."""
    world = EngineWorld(ram_path)
    for letter in (b"a", b"b"):
        world.disk.write(0, letter * 70000)
        world.backup()
    return world


def reboot(world: EngineWorld, boot: str = "another boot") -> None:
    """The host has another boot id from now on; the VM is started again."""
    world.host = replace(world.host, boot_id=boot)
    world.store = world.open()
    world.vm.kill()
    world.vm.start()


def reads(world: EngineWorld) -> int:
    return sum(READ in note for note in world.observer.notes)


def seen(world: EngineWorld) -> Seen:
    found = world.store.seen(world.vm.uuid)
    assert found is not None
    return found


def spoil(world: EngineWorld, point: Point, name: str = "vda.qcow2") -> None:
    """Flip a bit of a file of a point; its size stays."""
    (path,) = world.path.glob(f"*/*/{point.directory}/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_how_the_vm_was_found_is_noted_and_only_written_when_it_is_new(world: EngineWorld) -> None:
    first = seen(world)
    assert (first.host, first.boot_id, first.started) == (
        world.host.id,
        world.host.boot_id,
        "run 1",
    )
    world.backup()
    assert seen(world) == first
    world.vm.stop()
    world.backup()
    assert (seen(world).started, seen(world).at) == ("", world.clock.now())
    assert reads(world) == 0


def test_after_an_orderly_restart_of_the_host_nothing_is_read(world: EngineWorld) -> None:
    world.vm.stop()
    world.host = replace(world.host, boot_id="another boot")
    world.store = world.open()
    world.vm.start()
    world.backup()
    assert reads(world) == 0
    assert seen(world).boot_id == "another boot"


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("stored", [False, True], ids=["gone", "inconsistent"])
def test_damaged_tracking_after_another_boot_has_the_newest_point_read_once(
    world: EngineWorld, off: bool, stored: bool
) -> None:
    if stored:
        world.vm.stop()
        world.vm.start()
    reboot(world)
    assert [b.inconsistent for b in world.disk.layers[0].bitmaps.values()] == [True] * 2 * stored
    if off:
        world.vm.state = PowerState.OFF
    parent = world.points()[-1]
    made = world.backup().point
    assert (reads(world), made.parent) == (1, parent.seq)
    world.backup()
    assert reads(world) == 1


def test_damaged_tracking_in_the_same_boot_has_nothing_read(world: EngineWorld) -> None:
    world.vm.kill()
    world.vm.start()
    world.backup()
    assert reads(world) == 0


def test_an_attempt_of_another_boot_has_the_newest_point_read_once(world: EngineWorld) -> None:
    world.backup_killed_at("copy")
    reboot(world)
    made = world.backup().point
    assert (reads(world), made.parent, made.notes) == (1, 1, ())
    assert not seen(world).crashed
    world.backup()
    assert reads(world) == 1


def test_an_attempt_of_this_boot_has_nothing_read(world: EngineWorld) -> None:
    world.backup_killed_at("copy")
    world.backup()
    assert reads(world) == 0


@pytest.mark.parametrize("name", ["vda.qcow2", "vda.index"])
def test_a_spoilt_point_is_passed_over_and_the_new_one_says_so(
    world: EngineWorld, name: str
) -> None:
    world.backup_killed_at("copy")
    spoil(world, world.points()[-1], name)
    reboot(world)
    world.disk.write(0, b"c" * 70000)
    result = world.backup()
    made = result.point
    assert (made.parent, reads(world)) == (0, 2)
    (warning,) = made.warnings
    assert "/000001 cannot be restored as a whole any more: " in warning
    assert name in warning
    assert any("000001 is damaged and is passed over" in note for note in world.observer.notes)
    (chain,) = world.chains()
    assert world.restored(chain, made.seq) == bytes(world.disk.content)


def test_a_point_of_which_a_file_beside_the_disks_is_spoilt_is_built_on_and_named(
    world: EngineWorld,
) -> None:
    world.backup_killed_at("copy")
    spoil(world, world.points()[-1], "domain.xml")
    reboot(world)
    world.disk.write(0, b"c" * 70000)
    made = world.backup().point
    assert (made.parent, reads(world)) == (1, 1)
    (warning,) = made.warnings
    assert "/000001 cannot be restored as a whole any more: domain.xml" in warning
    assert not any("passed over" in note for note in world.observer.notes)
    (chain,) = world.chains()
    assert set(chain.broken) == {1}
    assert world.restored(chain, made.seq) == bytes(world.disk.content)
    assert world.backup().point.warnings == ()


@pytest.mark.parametrize("lost", [False, True])
def test_a_file_beside_the_disks_does_not_hide_what_is_wrong_with_a_disk(
    world: EngineWorld, lost: bool
) -> None:
    world.backup_killed_at("copy")
    newest = world.points()[-1]
    spoil(world, newest, "domain.xml")
    if lost:
        (path,) = world.path.glob(f"*/*/{newest.directory}/domain.xml")
        path.unlink()
    spoil(world, newest, "vda.qcow2")
    reboot(world)
    assert world.backup().point.parent == 0


def test_where_no_point_is_whole_a_new_series_begins(world: EngineWorld) -> None:
    world.backup_killed_at("copy")
    for point in world.points():
        spoil(world, point)
    reboot(world)
    assert world.backup().point.level == "full"


def test_a_spoilt_point_of_a_vm_that_is_off_and_unchanged_is_no_reason_to_do_nothing(
    world: EngineWorld,
) -> None:
    world.vm.stop()
    world.backup_killed_at("copy")
    spoil(world, world.points()[-1])
    reboot(world)
    world.vm.stop()
    assert not world.backup().unchanged


@pytest.mark.parametrize("step", ["look", "check", "plan", "copy", "done"])
def test_a_backup_that_is_killed_before_its_end_leaves_the_reading_to_the_next(
    world: EngineWorld, step: str
) -> None:
    world.backup_killed_at("copy")
    spoil(world, world.points()[-1])
    reboot(world)
    if step == "check":
        step = f"check {world.chains()[0].directory}/000001"
    world.backup_killed_at(step)
    made = world.backup().point
    parents = {0} if step != "done" else {2}
    assert made.parent in parents


def test_what_an_earlier_version_left_has_nothing_read(world: EngineWorld) -> None:
    (path,) = world.path.glob("*/seen.json")
    path.unlink()
    reboot(world)
    world.backup()
    assert reads(world) == 0
    path.write_text("torn")
    world.backup()
    assert seen(world).boot_id == "another boot"


def test_a_repair_that_undoes_the_attempt_leaves_the_reading_to_the_next_backup(
    world: EngineWorld,
) -> None:
    world.backup_killed_at("copy")
    spoil(world, world.points()[-1])
    reboot(world)
    Repair(world.tools(), world.store).run(world.name)
    assert (world.chains()[0].attempts, reads(world), seen(world).crashed) == ((), 0, True)
    assert world.backup().point.parent == 0
