"""The backup of a VM that is off: with a VM in memory and a real backup folder."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.engine_world import FOREIGN, EngineWorld, exact, lived_in
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from vm_babysitter.adapters.store import layout
from vm_babysitter.domain.errors import (
    Busy,
    Cancelled,
    CommandFailed,
    ImageUnreadable,
    VmInUse,
    VmNotEligible,
)
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import ActiveJob, JobKind

BLOCK = 65536
STEPS = ["mark", "track vda", "begin", "begun", "copy", "save", "confirm", "commit", "committed"]


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM whose disk has content, a foreign bitmap and a foreign checkpoint."""
    return lived_in(ram_path)


@pytest.fixture
def off(world: EngineWorld) -> EngineWorld:
    """The same with a full backup made while it ran, written to since, and switched off."""
    world.backup()
    world.disk.write(BLOCK, b"changed")
    world.vm.stop()
    return world


def method(result: BackedUp) -> Method:
    """Return how the only disk came into a point."""
    (disk,) = result.point.disks
    return disk.method


def test_what_was_changed_before_it_went_off_is_read_by_the_bitmap(off: EngineWorld) -> None:
    version = off.disk.version
    result = off.backup()
    exact(off, result)
    assert (result.point.off, result.unchanged, method(result)) == (True, False, Method.BITMAP)
    assert result.point.disks[0].read_bytes == BLOCK
    assert result.point.checkpoint is None
    assert (result.point.quiesced, result.point.quiesce_note) == (True, "the VM was off")
    assert off.disk.version == version  # its image was not written to
    assert off.vm.state is PowerState.OFF


def test_the_next_backup_while_it_runs_goes_on_from_the_same_bitmap(off: EngineWorld) -> None:
    off.backup()
    off.vm.start()
    off.disk.write(2 * BLOCK, b"later")
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.BITMAP
    assert "since restore point 000000" in result.point.disks[0].reason
    assert result.point.disks[0].written_bytes == BLOCK


def test_a_full_puts_down_a_bitmap_before_it_reads(world: EngineWorld) -> None:
    world.vm.stop()
    world.observer.at["begin"] = lambda: seen.append(len(world.bitmaps() - {FOREIGN}))
    seen: list[int] = []
    result = world.backup()
    exact(world, result)
    assert (result.point.level, seen) == ("full", [1])
    assert result.point.checkpoint is not None
    world.vm.start()
    world.disk.write(BLOCK, b"later")
    result = world.backup()
    exact(world, result)
    assert method(result) is Method.BITMAP


def test_after_a_hard_end_it_is_compared_and_gets_a_sound_bitmap(off: EngineWorld) -> None:
    off.vm.start()
    off.vm.kill()
    off.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap(stored=True)
    broken = {n for n, b in off.disk.layers[0].bitmaps.items() if b.inconsistent}
    assert broken
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.SCAN
    assert not broken & off.bitmaps()
    off.vm.start()
    off.disk.write(3 * BLOCK, b"later")
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.BITMAP


@pytest.mark.parametrize("agreed", [False, True])
def test_tracking_goes_out_of_an_image_with_internal_snapshots(
    off: EngineWorld, agreed: bool
) -> None:
    off.disk.internal_snapshots = 1
    result = off.backup(track_snapshots=agreed)
    exact(off, result)
    assert method(result) is (Method.BITMAP if agreed else Method.SCAN)
    assert len(off.bitmaps() - {FOREIGN}) == agreed
    off.vm.start()
    off.disk.write(3 * BLOCK, b"later")
    exact(off, off.backup(track_snapshots=agreed))


def test_what_cannot_be_removed_is_told_and_harms_nothing(off: EngineWorld) -> None:
    off.disk.internal_snapshots = 1
    off.offline_bitmaps.fail["remove"] = Busy("The disk image 'x'", "another has it open")
    result = off.backup()
    assert method(result) is Method.SCAN
    assert any("another has it open" in note for note in off.observer.notes)
    del off.offline_bitmaps.fail["remove"]
    off.disk.write(0, b"x")
    exact(off, off.backup())


def test_without_a_bitmap_the_disk_is_compared_next_time(world: EngineWorld) -> None:
    world.vm.stop()
    world.offline_bitmaps.fail["add"] = CommandFailed("qemu-img", 1, "no space {left}")
    result = world.backup()
    assert result.point.checkpoint is None
    (warning,) = result.point.warnings
    assert "disk vda has no change tracking" in warning
    assert "no space {left}" in warning
    del world.offline_bitmaps.fail["add"]
    world.disk.write(BLOCK, b"changed")
    result = world.backup()
    exact(world, result)
    assert method(result) is Method.SCAN
    assert result.point.checkpoint is not None


def test_a_disk_in_several_layers_is_compared_and_keeps_its_bitmaps(off: EngineWorld) -> None:
    off.vm.start()
    off.disk.snapshot("/vms/overlay.qcow2")
    off.backup()
    off.disk.write(3 * BLOCK, b"above")
    off.vm.stop()
    before = off.bitmaps()
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.SCAN
    assert off.bitmaps() == before
    off.vm.start()
    off.disk.write(4 * BLOCK, b"later")
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.BITMAP


def test_raw_disks_are_compared_and_not_written_to(ram_path: Path) -> None:
    world = raw_world(ram_path)
    version = world.disk.version
    world.backup()
    world.disk.write(BLOCK, b"y")
    result = world.backup()
    assert (method(result), result.point.disks[0].written_bytes) == (Method.SCAN, BLOCK)
    assert world.restored(world.chains()[0], 1) == bytes(world.disk.content)
    assert (world.disk.version, world.offline_bitmaps.calls) == (version + 1, [])


# --- unchanged


def test_what_has_not_changed_since_it_was_off_is_not_even_opened(off: EngineWorld) -> None:
    first = off.backup()
    off.offline.calls.clear()
    off.hypervisor.calls.clear()
    off.clock.advance(3600)
    result = off.backup()
    assert (result.unchanged, result.point.seq, result.left) == (True, first.point.seq, "")
    assert set(off.offline.calls) == {"stamps"}
    assert "vm" not in off.hypervisor.calls
    assert [p.seq for p in off.points()] == [0, 1]
    (chain,) = off.chains()
    assert chain.current is not None
    assert chain.current.as_of == off.clock.now()
    assert off.leftovers() == []


def touch(world: EngineWorld) -> None:
    world.disk.version += 1


def test_what_was_touched_but_not_changed_gets_no_point_either(off: EngineWorld) -> None:
    off.backup()
    touch(off)
    result = off.backup()
    assert (result.unchanged, result.point.seq) == (True, 1)
    assert [p.seq for p in off.points()] == [0, 1]
    assert off.leftovers() == []
    off.offline.calls.clear()
    assert off.backup().unchanged
    assert set(off.offline.calls) == {"stamps"}  # what was found is remembered


def edit(world: EngineWorld) -> None:
    world.vm.definition = "<domain><edited/></domain>"


def write(world: EngineWorld) -> None:
    world.disk.write(4 * BLOCK, b"x")


def change_nvram(world: EngineWorld) -> None:
    Path(world.vm.belongings.nvram).write_bytes(b"other variables")


@pytest.mark.parametrize("change", [edit, write, change_nvram])
def test_any_change_makes_a_new_point(
    off: EngineWorld, change: Callable[[EngineWorld], None]
) -> None:
    off.backup()
    assert off.backup().unchanged
    change(off)
    result = off.backup()
    exact(off, result)
    assert (result.unchanged, result.point.seq) == (False, 2)


@pytest.mark.parametrize("format", ["qcow2", "raw"])
@pytest.mark.parametrize("blocks", [3, 8])
def test_a_disk_that_grew_or_shrank_makes_a_new_point(
    ram_path: Path, format: str, blocks: int
) -> None:
    world = EngineWorld(ram_path)
    world.vm = world.hypervisor.add("sized", FakeDisk("vda", format=format, size=5 * BLOCK))
    world.name = "sized"
    world.disk.write(0, b"x" * BLOCK)
    world.vm.stop()
    world.backup()
    world.disk.resize(blocks * BLOCK)
    result = world.backup()
    assert (result.unchanged, result.point.seq) == (False, 1)
    assert world.restored(world.chains()[0], 1) == bytes(world.disk.content)


def test_a_full_that_is_asked_for_is_made(off: EngineWorld) -> None:
    off.backup()
    result = off.backup(force_full=True)
    exact(off, result)
    assert (result.unchanged, result.point.level) == (False, "full")


def test_what_changed_moments_ago_proves_nothing(off: EngineWorld) -> None:
    now = off.clock.now() + timedelta(seconds=1)  # when the backup is made
    off.disk.version = int(now.timestamp() * 1e9) - 10**9
    off.backup()
    assert off.chains()[0].current is None
    off.clock.advance(10)
    off.offline.calls.clear()
    assert off.backup().unchanged
    assert "open" in off.offline.calls


def test_the_note_is_of_the_last_look_and_not_of_the_end(off: EngineWorld) -> None:
    began = off.clock.now() + timedelta(seconds=1)
    off.observer.at["commit"] = lambda: off.clock.advance(100)
    off.backup()
    (chain,) = off.chains()
    assert chain.current is not None
    assert chain.current.as_of == began


def test_what_changed_moments_before_the_last_look_proves_nothing(off: EngineWorld) -> None:
    now = off.clock.now() + timedelta(seconds=1)
    off.disk.version = int(now.timestamp() * 1e9) - 10**9
    off.observer.at["commit"] = lambda: off.clock.advance(100)
    off.backup()
    assert off.chains()[0].current is None


def test_an_unreadable_note_costs_one_reading(off: EngineWorld) -> None:
    off.backup()
    (note,) = off.path.rglob(layout.CURRENT_FILE)
    note.write_bytes(b"{}")
    off.offline.calls.clear()
    assert off.backup().unchanged
    assert "open" in off.offline.calls
    assert off.chains()[0].current is not None


def test_a_note_does_not_count_for_a_point_that_is_broken_or_gone(off: EngineWorld) -> None:
    off.backup()
    (image,) = off.path.rglob("000001-inc/vda.qcow2")
    image.write_bytes(b"")
    result = off.backup()
    assert (result.unchanged, result.point.parent, result.point.seq) == (False, 0, 2)
    exact_but_broken = off.restored(off.chains()[0], 2)
    assert exact_but_broken == bytes(off.disk.content)


def raw_world(path: Path) -> EngineWorld:
    """A VM with a raw disk: nothing shows on it that the VM was started."""
    world = EngineWorld(path)
    world.vm = world.hypervisor.add("raw", FakeDisk("vda", format="raw"))
    world.name = "raw"
    world.disk.write(0, b"x" * BLOCK)
    world.vm.stop()
    return world


def test_a_vm_that_runs_gets_a_point_though_nothing_shows_on_its_image(ram_path: Path) -> None:
    world = raw_world(ram_path)
    world.backup()
    assert world.backup().unchanged
    world.vm.start()
    result = world.backup()
    assert (result.unchanged, result.point.off, result.point.seq) == (False, False, 1)


def test_what_an_interrupted_backup_left_is_undone_though_nothing_has_changed(
    ram_path: Path,
) -> None:
    world = raw_world(ram_path)
    world.backup()
    assert world.backup().unchanged
    world.backup_killed_at("copy", force_full=True)
    assert world.leftovers()
    assert world.backup().unchanged
    assert world.leftovers() == []


def test_on_top_of_a_broken_point_a_new_one_is_made_though_it_holds_nothing_new(
    ram_path: Path,
) -> None:
    world = raw_world(ram_path)
    world.backup()
    before = bytes(world.disk.content)
    world.disk.write(0, b"y" * BLOCK)
    world.backup()
    (image,) = world.path.rglob("000001-inc/vda.qcow2")
    image.write_bytes(b"")
    world.disk.write(0, before[:BLOCK])
    result = world.backup()
    assert (result.unchanged, result.point.seq, result.point.parent) == (False, 2, 0)


def test_a_point_that_has_something_new_to_tell_is_made(off: EngineWorld) -> None:
    off.backup()
    off.vm.belongings = replace(off.vm.belongings, managed_save=True)
    result = off.backup()
    assert (result.unchanged, result.point.quiesced) == (False, False)
    assert any("memory state not included" in warning for warning in result.point.warnings)


# --- whoever starts it comes first


def test_what_the_guard_noticed_does_not_stop_the_next_try(off: EngineWorld) -> None:
    def notice() -> None:
        off.observer.at.clear()
        off.vm.start()
        off.disk.write(2 * BLOCK, b"written by the guest")
        off.cancel.fail(VmInUse(off.name, "it was started"))

    off.observer.at["copy"] = notice
    result = off.backup()
    exact(off, result)
    assert not result.point.off


def test_a_start_is_noticed_though_nothing_shows_on_its_image(ram_path: Path) -> None:
    world = raw_world(ram_path)
    world.offline.locks_show = False
    world.observer.at["confirm"] = world.vm.start
    result = world.backup()
    assert (result.point.off, world.vm.state) == (False, PowerState.RUNNING)


def test_a_bitmap_that_goes_away_between_plan_and_moment_is_not_missed(off: EngineWorld) -> None:
    def rewrite() -> None:
        off.observer.at.clear()
        off.disk.layers[0].bitmaps = {FOREIGN: FakeBitmap(stored=True)}
        off.disk.write(4 * BLOCK, b"by another program")

    off.observer.at["mark"] = rewrite
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.SCAN


def test_a_bitmap_that_is_damaged_between_plan_and_moment_is_not_believed(
    off: EngineWorld,
) -> None:
    def crash() -> None:
        off.observer.at.clear()
        off.vm.start()
        off.disk.write_untracked(4 * BLOCK, b"by the guest")
        off.vm.kill()
        off.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap(stored=True)

    off.observer.at["mark"] = crash
    result = off.backup()
    exact(off, result)
    assert method(result) is Method.SCAN


@pytest.mark.parametrize("step", STEPS[:-2])
def test_a_start_is_noticed_and_the_backup_made_of_the_running_vm(
    off: EngineWorld, step: str
) -> None:
    def start() -> None:
        if off.vm.state is PowerState.OFF:
            off.vm.start()
            off.disk.write(2 * BLOCK, b"written by the guest")

    if step == "track vda":
        off.disk.layers[0].bitmaps = {FOREIGN: FakeBitmap(stored=True)}
    off.observer.at[step] = start
    result = off.backup()
    exact(off, result)
    assert not result.point.off
    assert off.vm.state is PowerState.RUNNING
    assert any("came into use" in note for note in off.observer.notes)


def test_who_said_stop_gets_no_other_try(off: EngineWorld) -> None:
    def start() -> None:
        off.vm.start()
        off.cancel.request()
        off.hypervisor.calls.clear()

    off.observer.at["save"] = start
    with pytest.raises(Cancelled):
        off.backup()
    assert "begin_backup" not in off.hypervisor.calls
    assert off.leftovers() == []


@pytest.mark.parametrize("step", ["begun", "copy", "save", "confirm"])
def test_a_start_and_a_stop_meanwhile_are_noticed_by_what_was_written(
    off: EngineWorld, step: str
) -> None:
    def run() -> None:
        off.observer.at.clear()
        off.vm.start()
        off.disk.write(2 * BLOCK, b"written by the guest")
        off.vm.stop()

    off.observer.at[step] = run
    result = off.backup()
    exact(off, result)
    assert result.point.off
    assert off.observer.steps.count("copy") == 1 + 2


def test_what_cannot_be_read_because_the_vm_was_started_is_no_failure(off: EngineWorld) -> None:
    def start() -> None:
        off.observer.at.clear()
        off.vm.start()
        off.offline.fail["open"] = ImageUnreadable(off.disk.path, "its tables make no sense")

    off.observer.at["copy"] = start
    result = off.backup()
    exact(off, result)
    assert not result.point.off


@pytest.mark.parametrize("step", ["look", "plan", "adopted", "mark"])
def test_a_vm_that_goes_off_while_it_is_planned_is_backed_up_off(
    off: EngineWorld, step: str
) -> None:
    def stop() -> None:
        off.observer.at.clear()
        off.vm.stop()

    off.vm.start()
    off.observer.at[step] = stop
    result = off.backup()
    exact(off, result)
    assert result.point.off


@pytest.mark.parametrize("step", ["plan", "adopted", "mark", "begin"])
def test_a_vm_that_gets_another_image_meanwhile_is_backed_up_with_that(
    off: EngineWorld, step: str
) -> None:
    def exchange() -> None:
        off.observer.at.clear()
        off.hypervisor.add("another", off.disk).stop()  # which has the old image now
        new = FakeDisk(path="/vms/new.qcow2", size=4 * BLOCK, identity="inode:77")
        new.layers[0].path = new.path
        new.layers[0].bitmaps[FOREIGN] = FakeBitmap(stored=True)
        off.vm.disks, off.vm.definition = {"vda": new}, "<domain>with another image</domain>"

    off.observer.at[step] = exchange
    result = off.backup()
    exact(off, result)
    assert result.point.disks[0].path == "/vms/new.qcow2"


def test_an_image_that_somebody_else_writes_is_not_read(off: EngineWorld) -> None:
    off.offline.written = {off.disk.path}
    with pytest.raises(VmInUse, match="another program has"):
        off.backup()
    off.offline.written = set()
    assert off.leftovers() == []
    exact(off, off.backup())


def test_an_image_that_another_vm_uses_which_runs_is_not_read(off: EngineWorld) -> None:
    other = off.hypervisor.add("other", FakeDisk("hdc", path=off.disk.path))
    off.offline.calls.clear()
    with pytest.raises(Busy, match="disk vda is in use by VM 'other'"):
        off.backup()
    assert "open" not in off.offline.calls
    other.stop()
    off.backup()
    (chain,) = off.chains()
    assert off.restored(chain, 1) == bytes(off.disk.content)


def test_an_image_that_goes_away_meanwhile_is_no_success(off: EngineWorld) -> None:
    def unplug() -> None:
        off.disk.unreadable = "Input/output error"

    off.observer.at["confirm"] = unplug
    with pytest.raises(VmNotEligible, match="Input/output error"):
        off.backup()
    off.observer.at.clear()
    off.disk.unreadable = ""
    exact(off, off.backup())


def test_a_job_of_another_program_is_never_ended(off: EngineWorld) -> None:
    """An attempt at a VM that is off has no socket, as the push job of another has none."""
    off.backup_killed_at("copy")
    off.vm.start()
    off.vm.foreign_job = ActiveJob(JobKind.BACKUP, "writing", "")
    off.hypervisor.calls.clear()
    with pytest.raises(Busy):
        off.backup()
    assert "end_backup" not in off.hypervisor.calls


# --- killed and stopped


@pytest.mark.parametrize("starts", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bitmap", [False, True])
def test_killed_anywhere_the_next_backup_goes_on(
    off: EngineWorld, step: str, starts: bool, bitmap: bool
) -> None:
    if not bitmap:
        off.disk.layers[0].bitmaps = {FOREIGN: FakeBitmap(stored=True)}
    elif step == "track vda":
        return
    off.backup_killed_at(step)
    if starts:
        off.vm.start()
        off.disk.write(3 * BLOCK, b"later")
    result = off.backup()
    exact(off, result)
    assert result.point.level == "inc"


@pytest.mark.parametrize("starts", [False, True])
def test_killed_while_tracking_goes_out_the_next_backup_takes_it_out(
    off: EngineWorld, starts: bool
) -> None:
    off.disk.internal_snapshots = 1
    off.backup_killed_at("clear vda")
    if starts:
        off.vm.start()
        off.disk.write(3 * BLOCK, b"later")
    exact(off, off.backup())
    assert off.bitmaps() == {FOREIGN}


def test_a_vm_that_shuts_down_is_waited_for(off: EngineWorld) -> None:
    off.vm.start(PowerState.SHUTTING_DOWN)
    waited: list[float] = []

    class Patient(Cancel):
        def wait(self, seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                off.vm.stop()

    off.cancel = Patient()
    result = off.backup()
    exact(off, result)
    assert (result.point.off, len(waited)) == (True, 3)


def test_one_that_never_ends_is_busy(off: EngineWorld) -> None:
    off.vm.start(PowerState.SHUTTING_DOWN)

    class Patient(Cancel):
        def wait(self, seconds: float) -> None:
            pass

    off.cancel = Patient()
    with pytest.raises(Busy, match="shutting down"):
        off.backup()
    off.vm.stop()
    off.cancel = Cancel()
    exact(off, off.backup())
