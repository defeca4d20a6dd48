"""Giving a VM back: nothing of ours is left in it, whatever happens meanwhile; all else stays."""

from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld, lived_in
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from vm_babysitter.domain.errors import Busy, HypervisorError, ImageRefused, VmNotFound
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.release import Release, Released
from vm_babysitter.ports import ActiveJob, JobKind

OTHER = "vmb-12345678-000000-abcdef-vda"
"""Change tracking of a backup folder that is not this one."""
LOST = HypervisorError("Removing change tracking", 1, "it went wrong")
STEPS = ["look", "clear vda", "clear vdb", "done"]


@pytest.fixture(params=[PowerState.RUNNING, PowerState.OFF], ids=["on", "off"])
def world(ram_path: Path, request: pytest.FixtureRequest) -> EngineWorld:
    """A VM with two disks, two points, and what other programs have on it."""
    world = lived_in(ram_path)
    second = FakeDisk("vdb", path="/vms/b.qcow2", identity="inode:2")
    second.layers[0].path = second.path
    world.vm.disks["vdb"] = second
    world.backup()
    world.disk.write(65536, b"two")
    world.backup()
    world.disk.layers[0].bitmaps[OTHER] = FakeBitmap(stored=True)
    if request.param is PowerState.OFF:
        world.vm.stop()
    world.observer.notes.clear()
    world.observer.steps.clear()
    return world


def release(world: EngineWorld, *, any_folder: bool = False, store: bool = True) -> Released:
    work = Release(world.tools(), world.store if store else None)
    return work.run(world.name, any_folder=any_folder)


def others(world: EngineWorld) -> set[str]:
    """All bitmaps that are not of this folder."""
    return {name for name in ("virtnbdbackup.0", OTHER) if name in world.bitmaps()}


def clean(world: EngineWorld) -> None:
    """Judge that nothing of ours is left, and that the points are as they were."""
    assert world.bitmaps() == others(world)
    assert set(world.vm.checkpoints) == {"virtnbdbackup.0"}
    assert world.hypervisor.files == set()
    assert world.vm.job is None
    assert [point.seq for point in world.points()] == [0, 1]
    world.check_points()


def test_all_of_ours_goes_and_nothing_else(world: EngineWorld) -> None:
    before = sorted(p for p in world.path.rglob("*"))
    found = release(world)
    clean(world)
    assert others(world) == {"virtnbdbackup.0", OTHER}
    assert {each.disk for each in found.removed} == {"vda", "vdb"}
    assert (found.vm, found.uuid, found.left) == (world.name, world.vm.uuid, ())
    (note,) = found.notes
    assert note.startswith(f"{OTHER!r} is of another backup folder of VM Babysitter, and stays")
    assert "--any-folder" in note  # what to do about it
    assert sorted(p for p in world.path.rglob("*")) == before
    again = release(world)
    assert (again.removed, again.left) == ((), ())


def test_that_of_any_folder(world: EngineWorld) -> None:
    world.vm.checkpoints[OTHER] = ("vda",)
    assert release(world, any_folder=True).notes == ()
    assert world.bitmaps() == {"virtnbdbackup.0"}
    assert set(world.vm.checkpoints) == {"virtnbdbackup.0"}


def test_without_a_backup_folder_only_the_form_of_names_tells(world: EngineWorld) -> None:
    before = world.bitmaps()
    found = release(world, store=False)
    assert world.bitmaps() == before
    assert (found.removed, found.left) == ((), ())
    assert len(found.notes) == len(before) - 1
    release(world, any_folder=True, store=False)
    assert world.bitmaps() == {"virtnbdbackup.0"}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_it_is_done_again(world: EngineWorld, step: str) -> None:
    world.killed_at(step, lambda: release(world))
    assert [point.seq for point in world.points()] == [0, 1]
    world.check_points()
    assert others(world) == {"virtnbdbackup.0", OTHER}
    release(world)
    clean(world)


def test_no_step_is_missing_there(world: EngineWorld) -> None:
    release(world)
    assert set(world.observer.steps) == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_backup_after_a_kill_goes_on(world: EngineWorld, step: str) -> None:
    world.killed_at(step, lambda: release(world))
    world.vm.state = PowerState.RUNNING
    world.disk.write(3 * 65536, b"three")
    result = world.backup()
    assert result.point.parent == 1
    chain = world.chains()[0]
    assert world.restored(chain, 2) == bytes(world.disk.content)


def test_the_next_backup_compares_all_and_tracks_again(world: EngineWorld) -> None:
    release(world)
    world.vm.state = PowerState.RUNNING
    world.disk.write(3 * 65536, b"three")
    result = world.backup()
    assert {disk.method for disk in result.point.disks} == {"scan"}
    assert result.point.warnings == ()
    assert world.restored(world.chains()[0], 2) == bytes(world.disk.content)
    world.disk.write(4 * 65536, b"four")
    assert {disk.method for disk in world.backup().point.disks} == {"bitmap"}


def test_what_a_killed_backup_left_goes_too(world: EngineWorld) -> None:
    world.vm.state = PowerState.RUNNING
    world.backup_killed_at("copy")
    assert world.vm.job is not None
    release(world)
    clean(world)


def test_one_that_fails_does_not_keep_the_others(world: EngineWorld) -> None:
    if world.vm.state is PowerState.RUNNING:
        world.hypervisor.fail["remove_bitmaps"] = LOST
    else:
        world.offline_bitmaps.fail["remove"] = ImageRefused("/vms/x", "it lies behind FUSE")
    found = release(world)
    assert found.removed == ()
    assert {words.split(":")[0] for words in found.left} == {"Disk vda", "Disk vdb"}
    world.hypervisor.fail.clear()
    world.offline_bitmaps.fail.clear()
    assert release(world).left == ()
    clean(world)


def test_an_image_that_is_away(world: EngineWorld) -> None:
    if world.vm.state is PowerState.RUNNING:
        world.vm.stop()
    world.disk.unreadable = "No such file or directory"
    found = release(world)
    assert {each.disk for each in found.removed} == {"vdb"}
    (left,) = found.left
    assert left.startswith("Disk vda: its image cannot be read: No such file or directory.")
    world.disk.unreadable = ""
    release(world)
    clean(world)


def test_raw_disks_have_nothing_to_remove(ram_path: Path) -> None:
    folder = ram_path / "store"
    folder.mkdir()
    world = EngineWorld(folder)
    world.disk.format = "raw"
    world.backup()
    for state in (PowerState.RUNNING, PowerState.OFF):
        world.vm.state = state
        found = release(world)
        assert (found.removed, found.left) == ((), ())


@pytest.mark.parametrize("moves", ["once", "again and again"])
def test_a_vm_that_is_started_or_switched_off_meanwhile(world: EngineWorld, moves: str) -> None:
    def move() -> None:
        if world.vm.state is PowerState.RUNNING:
            world.vm.stop()
        else:
            world.vm.state = PowerState.RUNNING
        if moves == "once":
            del world.observer.at["clear vdb"]

    world.observer.at["clear vdb"] = move
    if moves == "once":
        release(world)
    else:
        with pytest.raises(Busy, match="again and again"):
            release(world)
        del world.observer.at["clear vdb"]
        release(world)
    clean(world)


def test_a_vm_that_shuts_down_or_has_a_job_is_busy(world: EngineWorld) -> None:
    before = world.bitmaps()
    if world.vm.state is PowerState.RUNNING:
        world.vm.foreign_job = ActiveJob(JobKind.BLOCK, "on disk vda")
    else:
        world.vm.state = PowerState.SHUTTING_DOWN
    with pytest.raises(Busy):
        release(world)
    assert world.bitmaps() == before


def test_a_vm_that_is_gone(world: EngineWorld) -> None:
    world.hypervisor.machines.clear()
    found = release(world)
    assert (found.vm, found.removed, found.left) == (world.name, (), ())
    assert "libvirt has no such VM any more" in found.notes[0]
    with pytest.raises(VmNotFound):
        Release(world.tools(), world.store).run("nobody")
    with pytest.raises(VmNotFound):
        release(world, store=False)


def test_a_backup_of_it_that_runs_elsewhere(world: EngineWorld) -> None:
    world.vm.state = PowerState.RUNNING
    world.backup_killed_at("copy")
    ((attempt,),) = (chain.attempts for chain in world.chains())
    before = world.bitmaps()
    world.places.held[attempt.nonce] = "process 7"
    with pytest.raises(Busy, match="a backup of it is running"):
        release(world)
    assert world.bitmaps() == before
