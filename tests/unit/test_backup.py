"""A whole backup, with a VM in memory and a real backup folder."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.hypervisor import FakeHypervisor
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.chain import ChainState, Checkpoint, Method
from vm_babysitter.domain.errors import (
    Busy,
    Cancelled,
    ConnectionLost,
    HypervisorError,
    NotEnoughSpace,
    ScratchUnfit,
    StoreFailed,
    TransferFailed,
    VmNotEligible,
    VmNotFound,
    VmStopped,
)
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import ActiveJob, JobKind, WrittenFile

BLOCK = 65536
LOST = HypervisorError("Asking", 1, "it went wrong")
STEPS = ("mark", "probe", "begin", "begun", "copy", "copied vda", "save", "commit")
FOREIGN = "virtnbdbackup.0"


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM whose disk has content, a foreign bitmap and a foreign checkpoint."""
    folder = ram_path / "it's a {store}"
    folder.mkdir()
    world = EngineWorld(folder)
    world.disk.write(0, b"a" * 70000)
    world.disk.write(2 * BLOCK, b"b" * BLOCK)
    world.disk.write(5 * BLOCK, b"c" * 512)
    world.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap()
    world.vm.checkpoints[FOREIGN] = ("vda",)
    return world


@pytest.fixture
def grown(world: EngineWorld) -> EngineWorld:
    """The same with a full backup, written to since."""
    world.backup()
    world.disk.write(BLOCK, b"changed")
    return world


def exact(world: EngineWorld, result: BackedUp) -> None:
    """Make sure that the new point holds all disks and that nothing else is left."""
    (chain,) = (c for c in world.chains() if c.directory == result.chain)
    for target, disk in world.vm.disks.items():
        assert world.restored(chain, result.point.seq, target) == bytes(disk.content)
    assert world.leftovers() == []
    assert FOREIGN in world.bitmaps()
    assert list(world.vm.checkpoints) == [FOREIGN]
    assert result.left == ""
    world.check_points()


def test_a_full_holds_the_disks_and_reads_no_zeros(world: EngineWorld) -> None:
    result = world.backup()
    exact(world, result)
    (disk,) = result.point.disks
    assert (result.point.level, result.point.parent) == ("full", None)
    assert (disk.method, disk.read_bytes) == (Method.FULL, 3 * BLOCK + 512)
    assert disk.written_bytes == disk.read_bytes


def test_an_increment_reads_and_stores_only_what_changed(grown: EngineWorld) -> None:
    result = grown.backup()
    exact(grown, result)
    (disk,) = result.point.disks
    assert (result.point.level, result.point.parent, result.point.seq) == ("inc", 0, 1)
    assert (disk.method, disk.read_bytes, disk.written_bytes) == (Method.BITMAP, BLOCK, BLOCK)
    assert grown.exports.readers["vda"].bytes_read == BLOCK


def test_the_manifest_tells_the_facts(grown: EngineWorld) -> None:
    grown.vm.definition = "<domain>naïve 猫</domain>"
    point = grown.backup().point
    assert (point.vm_uuid, point.vm_name) == (grown.vm.uuid, "it's a VM")
    assert point.checkpoint is not None
    assert point.checkpoint.disks == ("vda",)
    assert point.checkpoint.created == int(point.taken.timestamp())
    assert point.versions == {"vm-babysitter": "test", "libvirt": "9.0.0", "qemu": "7.2.0"}
    assert [file.name for file in point.files] == ["domain.xml"]
    (chain,) = grown.chains()
    path = grown.store.file_path(grown.vm.uuid, chain, point, "domain.xml")
    assert path.read_text() == grown.vm.definition
    assert grown.points()[-1] == point


def test_many_increments_are_exact_and_the_two_newest_bitmaps_stay(grown: EngineWorld) -> None:
    for n in range(5):
        grown.disk.write(n * BLOCK + 7, bytes([n + 1]) * 100)
        grown.disk.zero(((n + 3) % 5) * BLOCK, BLOCK)
        exact(grown, grown.backup())
    newest = [p.checkpoint.name for p in grown.points()[-2:] if p.checkpoint]
    assert grown.bitmaps() == {FOREIGN, *newest}


def test_while_a_backup_copies_libvirt_holds_no_checkpoint_of_ours(grown: EngineWorld) -> None:
    seen: list[str] = []
    grown.observer.at["copy"] = lambda: seen.extend(grown.vm.checkpoints)
    grown.backup()
    assert seen == [FOREIGN]


def test_progress_is_told_and_ends_with_everything(grown: EngineWorld) -> None:
    grown.observer.amounts.clear()
    grown.backup()
    done, total = grown.observer.amounts[-1]
    assert done == total == BLOCK


# --- disks of all kinds


def shrink(disk: FakeDisk) -> None:
    disk.resize(2 * BLOCK + 512)


def grow(disk: FakeDisk) -> None:
    disk.resize(8 * BLOCK + 1024)
    disk.write(7 * BLOCK, b"beyond")


def exchange(disk: FakeDisk) -> None:
    disk.identity = "inode:2"


def move(disk: FakeDisk) -> None:
    disk.path = disk.layers[0].path = "/vms/elsewhere.qcow2"


def break_down(disk: FakeDisk) -> None:
    disk.store_bitmaps()
    disk.break_bitmaps()


def forget(disk: FakeDisk) -> None:
    del disk.layers[0].bitmaps[next(n for n in disk.layers[0].bitmaps if n != FOREIGN)]


def snapshot_inside(disk: FakeDisk) -> None:
    disk.internal_snapshots = 1


@pytest.mark.parametrize(
    ("happen", "method", "word"),
    [
        (shrink, Method.SCAN, "smaller"),
        (grow, Method.BITMAP, "tracked"),
        (exchange, Method.SCAN, "another image"),
        (move, Method.SCAN, "another image"),
        (break_down, Method.SCAN, "damaged"),
        (forget, Method.SCAN, "gone"),
        (snapshot_inside, Method.SCAN, "internal snapshots"),
        (lambda disk: disk.snapshot("/vms/overlay.qcow2"), Method.SCAN, "another image"),
    ],
)
def test_whatever_happens_to_a_disk_the_next_point_is_exact(
    grown: EngineWorld, happen: Callable[[FakeDisk], None], method: Method, word: str
) -> None:
    happen(grown.disk)
    result = grown.backup()
    exact(grown, result)
    (disk,) = result.point.disks
    assert (disk.method, disk.parent) == (method, "000000-full")
    assert word in disk.reason


def test_a_scan_stores_only_what_changed(grown: EngineWorld) -> None:
    break_down(grown.disk)
    (disk,) = grown.backup().point.disks
    assert (disk.read_bytes, disk.written_bytes) == (3 * BLOCK + 512, BLOCK)


def test_disks_come_and_go(grown: EngineWorld) -> None:
    more = FakeDisk("vdb", size=BLOCK, path="/vms/b.raw", format="raw")
    more.layers[0].path = more.path
    more.write(5, b"more")
    grown.vm.disks["vdb"] = more
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP, Method.FULL]
    assert result.point.checkpoint is not None
    assert result.point.checkpoint.disks == ("vda",)
    more.write(100, b"changed")
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP, Method.SCAN]
    del grown.vm.disks["vdb"]
    result = grown.backup()
    exact(grown, result)
    assert result.point.warnings == ("disk vdb is no longer backed up",)


def test_an_image_put_back_to_an_older_state_is_exact(grown: EngineWorld) -> None:
    disk, kept = grown.disk, (bytes(grown.disk.content), set(grown.disk.data))
    bitmaps = {n: set(b.dirty) for n, b in disk.layers[0].bitmaps.items()}
    grown.backup()
    disk.write(3 * BLOCK, b"will be undone")
    grown.backup()
    disk.content[:], disk.data = kept[0], kept[1]
    disk.layers[0].bitmaps = {n: FakeBitmap(dirty=d) for n, d in bitmaps.items()}
    disk.write(4 * BLOCK, b"after that")
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP]


# --- chains


def test_a_full_that_was_asked_for_begins_a_chain_and_closes_the_old_one(
    grown: EngineWorld,
) -> None:
    result = grown.backup(force_full=True)
    exact(grown, result)
    old, new = grown.chains()
    assert (old.state, old.why) == (ChainState.ARCHIVED, "a full backup was asked for")
    assert (new.state, new.directory) == (ChainState.LIVE, result.chain)
    assert new.id != old.id
    first = old.points[0].point.checkpoint
    assert first is not None
    assert first.name not in grown.bitmaps()


def test_a_point_with_a_damaged_index_is_passed_over(grown: EngineWorld) -> None:
    point = grown.backup().point
    grown.disk.write(3 * BLOCK, b"more")
    (chain,) = grown.chains()
    path = grown.store.file_path(grown.vm.uuid, chain, point, "vda.index")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    result = grown.backup()
    assert (result.point.parent, result.point.seq) == (0, 2)
    assert grown.restored(grown.chains()[0], 2) == bytes(grown.disk.content)


def test_where_nothing_can_be_built_on_a_new_chain_begins(grown: EngineWorld) -> None:
    (chain,) = grown.chains()
    point = chain.points[0].point
    grown.store.image_path(grown.vm.uuid, chain, point, point.disks[0]).unlink()
    result = grown.backup()
    assert result.point.level == "full"
    old, _ = grown.chains()
    assert old.state is ChainState.ARCHIVED
    assert "vda.qcow2" in old.why


# --- doubt


class RefusingHypervisor(FakeHypervisor):
    """Finds fault with checkpoints that look well."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def adopt_checkpoint(self, uuid: str, checkpoint: Checkpoint) -> bool:
        self.asked.append(checkpoint.name)
        return checkpoint.name not in self.refused and super().adopt_checkpoint(uuid, checkpoint)


def test_a_bitmap_that_libvirt_refuses_is_planned_around(ram_path: Path) -> None:
    hypervisor = RefusingHypervisor()
    world = EngineWorld(ram_path, hypervisor=hypervisor)
    world.disk.write(0, b"one")
    world.backup()
    world.disk.write(BLOCK, b"two")
    world.backup()
    world.disk.write(2 * BLOCK, b"three")
    old, new = (p.checkpoint.name for p in world.points() if p.checkpoint)
    hypervisor.refused = {new}
    result = world.backup()
    assert hypervisor.asked[-2:] == [new, old]
    assert "restore point 000000" in result.point.disks[0].reason
    assert world.restored(world.chains()[0], 2) == bytes(world.disk.content)
    hypervisor.refused = {p.checkpoint.name for p in world.points() if p.checkpoint}
    world.disk.write(3 * BLOCK, b"four")
    (disk,) = world.backup().point.disks
    assert (disk.method, "libvirt" in disk.reason) == (Method.SCAN, True)
    assert world.restored(world.chains()[0], 3) == bytes(world.disk.content)
    assert world.leftovers() == []


def test_a_bitmap_that_missed_a_change_is_found_out_and_the_disk_compared(
    grown: EngineWorld,
) -> None:
    bitmaps = grown.disk.layers[0].bitmaps
    known = {name: set(bitmap.dirty) for name, bitmap in bitmaps.items()}
    grown.disk.zero(2 * BLOCK, BLOCK)
    for name, dirty in known.items():
        bitmaps[name].dirty = dirty
    result = grown.backup()
    exact(grown, result)
    (disk,) = result.point.disks
    (warning,) = result.point.warnings
    assert disk.method is Method.SCAN
    assert f"vda: change tracking missed a change at byte {2 * BLOCK}" in warning
    assert warning in grown.observer.notes


# --- freezing


def test_a_guest_with_an_agent_is_frozen_for_the_moment_only(world: EngineWorld) -> None:
    world.vm.no_agent = ""
    frozen = []
    world.observer.at["begin"] = lambda: frozen.append(world.vm.frozen)
    world.observer.at["copy"] = lambda: frozen.append(world.vm.frozen)
    point = world.backup().point
    assert (point.quiesced, point.quiesce_note, frozen) == (True, "", [True, False])
    assert world.guard.watched == [world.vm.uuid]
    assert world.leftovers() == []


def test_a_refused_freeze_is_a_note_and_no_failure(world: EngineWorld) -> None:
    world.vm.no_agent = ""
    world.vm.freeze_answer = AgentAnswer(refusal="a hook of the guest failed")
    result = world.backup()
    exact(world, result)
    assert (result.point.quiesced, result.point.quiesce_note) == (
        False,
        "a hook of the guest failed",
    )


def test_a_guest_that_an_earlier_run_left_frozen_is_thawed_first(world: EngineWorld) -> None:
    world.vm.no_agent, world.vm.frozen = "", True
    world.guard.left.add(world.vm.uuid)
    world.observer.at["plan"] = lambda: seen.append(world.vm.frozen)
    seen: list[bool] = []
    exact(world, world.backup())
    assert seen == [False]


# --- refusals: nothing is begun


def test_a_vm_that_is_off_or_unknown_is_refused(grown: EngineWorld) -> None:
    before = sorted(grown.path.rglob("*"))
    grown.vm.stop()
    with pytest.raises(VmNotEligible, match="it is off"):
        grown.backup()
    grown.name = "other"
    with pytest.raises(VmNotFound):
        grown.backup()
    assert sorted(grown.path.rglob("*")) == before


def test_a_disk_that_cannot_be_read_refuses_the_backup_of_the_vm(grown: EngineWorld) -> None:
    grown.disk.unreadable = "No such file {x}"
    with pytest.raises(VmNotEligible, match=r"No such file \{x\}"):
        grown.backup()
    assert grown.leftovers() == []


@pytest.mark.parametrize("kind", JobKind)
def test_a_foreign_job_is_waited_for_by_nobody_and_left_alone(
    grown: EngineWorld, kind: JobKind
) -> None:
    ended = grown.hypervisor.calls.count("end_backup")
    job = grown.vm.foreign_job = ActiveJob(kind, "somebody's", "/run/other.socket")
    with pytest.raises(Busy, match=re.escape(kind)):
        grown.backup()
    assert grown.vm.foreign_job is job
    assert grown.hypervisor.calls.count("end_backup") == ended
    grown.vm.foreign_job = None
    exact(grown, grown.backup())


def test_two_backups_at_once_into_one_folder_are_refused(grown: EngineWorld) -> None:
    with grown.store.lock(), pytest.raises(Busy, match="another process"):
        grown.backup()
    exact(grown, grown.backup())


def test_an_unfit_place_for_scratch_is_found_before_the_guest_is_frozen(
    grown: EngineWorld,
) -> None:
    grown.places.unfit = "no space left"
    with pytest.raises(ScratchUnfit, match="no space left"):
        grown.backup()
    assert grown.hypervisor.calls.count("begin_backup") == 1  # that of the full
    assert grown.leftovers() == []


def test_giving_up_before_the_attempt_leaves_nothing_in_libvirt(grown: EngineWorld) -> None:
    grown.places.fail["socket_path"] = StoreFailed("/run", "read-only")
    with pytest.raises(StoreFailed):
        grown.backup()
    assert grown.hypervisor.calls.count("adopt_checkpoint") == 1
    assert grown.leftovers() == []
    with pytest.raises(StoreFailed):
        grown.backup(force_full=True)
    assert grown.leftovers() == []


class FullStore(LocalStore):
    """A backup folder with too little space."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


def test_too_little_space_for_a_full_is_found_before_anything_is_copied(
    world: EngineWorld,
) -> None:
    store = world.store = FullStore(world.path, "id", Qcow2Writer, digest_file)
    store.free = 3 * BLOCK + 511
    with pytest.raises(NotEnoughSpace) as caught:
        world.backup()
    assert (caught.value.free, caught.value.needed) == (3 * BLOCK + 511, 3 * BLOCK + 512)
    assert world.exports.readers["vda"].bytes_read == 0
    assert (world.leftovers(), world.chains()) == ([], ())
    store.free += 1
    exact(world, world.backup())


def test_an_increment_is_tried_even_with_little_space(grown: EngineWorld) -> None:
    grown.store = FullStore(grown.path, "id", Qcow2Writer, digest_file)
    exact(grown, grown.backup())


# --- failures: rolled back, and the next run goes on


def goes_on(world: EngineWorld, parent: int = 0) -> None:
    """Make sure that the next increment builds on the same parent by its bitmap."""
    assert world.leftovers() == []
    result = world.backup()
    exact(world, result)
    assert result.point.parent == parent
    assert [d.method for d in result.point.disks] == [Method.BITMAP]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [StoreFailed("/x", "gone"), KeyboardInterrupt()], ids=repr)
def test_a_failure_at_any_step_is_rolled_back(
    grown: EngineWorld, step: str, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    grown.observer.at[step] = fail
    before = {path for path in grown.path.rglob("*") if "lock" not in path.name}
    with pytest.raises(type(error)):
        grown.backup()
    assert {path for path in grown.path.rglob("*") if "lock" not in path.name} == before
    grown.observer.at.clear()
    goes_on(grown)


CALLS = (
    "vm",
    "disk_states",
    "active_job",
    "adopt_checkpoint",
    "begin_backup",
    "forget_checkpoints",
    "definition",
    "agent_missing",
    "versions",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_call_of_libvirt_that_fails_is_got_over(
    grown: EngineWorld, call: str, after: bool, lasting: bool
) -> None:
    faults = grown.hypervisor.fail_after if after else grown.hypervisor.fail
    faults[call] = LOST
    if not lasting:
        grown.observer.at["roll back"] = faults.clear
    with pytest.raises(HypervisorError):
        grown.backup()
    faults.clear()
    grown.observer.at.clear()
    if not lasting and call not in {"forget_checkpoints", "active_job", "vm"}:
        assert grown.leftovers() == []
    result = grown.backup()
    exact(grown, result)
    assert (result.point.parent, len(grown.points())) == (0, 2)
    assert [d.method for d in result.point.disks] == [Method.BITMAP]


@pytest.mark.parametrize("call", ["end_backup", "remove_bitmaps"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_after_the_commit_costs_no_point_and_is_told(
    grown: EngineWorld, call: str, after: bool
) -> None:
    grown.backup()  # so that there is a bitmap to tidy away
    faults = grown.hypervisor.fail_after if after else grown.hypervisor.fail
    faults[call] = LOST
    result = grown.backup()
    assert "it went wrong" in result.left
    faults.clear()
    assert len(grown.points()) == 3
    exact(grown, grown.backup())


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_connection_lost_while_copying_is_rolled_back(grown: EngineWorld, pieces: int) -> None:
    grown.disk.write(3 * BLOCK, b"a second piece")
    grown.exports.fail["read"] = ConnectionLost("nbd", "gone")
    grown.exports.good_pieces = pieces
    with pytest.raises(ConnectionLost):
        grown.backup()
    grown.exports.fail.clear()
    goes_on(grown)


def test_an_export_that_does_not_open_is_rolled_back(grown: EngineWorld) -> None:
    grown.exports.fail["open"] = TransferFailed("Opening", 0, "refused")
    with pytest.raises(TransferFailed):
        grown.backup()
    grown.exports.fail.clear()
    goes_on(grown)


@dataclass
class FailingImage:
    """An image on a disk that fills up: fails at one of its calls."""

    path: Path
    size: int
    backing: str | None
    format: str | None
    at: str = ""
    _real: Qcow2Writer = field(init=False)

    def __post_init__(self) -> None:
        self._fail("create")
        self._real = Qcow2Writer(self.path, self.size, self.backing, self.format)

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        self._fail("append")
        return self._real.append(data, hashes)

    def map_data(self, block: int, place: int, count: int) -> None:
        self._fail("map_data")
        self._real.map_data(block, place, count)

    def map_zero(self, block: int, count: int) -> None:
        self._fail("map_zero")
        self._real.map_zero(block, count)

    def finish(self) -> WrittenFile:
        self._fail("finish")
        return self._real.finish()

    def discard(self) -> None:
        self._real.discard()

    def _fail(self, call: str) -> None:
        if call == self.at:
            raise StoreFailed(str(self.path), "No space left on device")


@pytest.mark.parametrize("call", ["create", "append", "map_data", "map_zero", "finish"])
def test_a_folder_that_fills_up_while_copying_is_rolled_back(grown: EngineWorld, call: str) -> None:
    grown.disk.zero(2 * BLOCK, BLOCK)
    whole = grown.store

    def failing(path: Path, size: int, backing: str | None, format: str | None) -> FailingImage:
        return FailingImage(path, size, backing, format, call)

    grown.store = LocalStore(grown.path, "id", failing, digest_file)
    with pytest.raises(StoreFailed, match="No space left"):
        grown.backup()
    grown.store = whole
    goes_on(grown)


def test_a_manifest_that_cannot_be_written_is_no_point(grown: EngineWorld) -> None:
    def obstruct() -> None:
        (directory,) = (p for p in grown.path.rglob("000001-inc") if p.is_dir())
        (directory / ".point.json.tmp").mkdir()

    grown.observer.at["commit"] = obstruct
    with pytest.raises(StoreFailed):
        grown.backup()
    grown.observer.at.clear()
    assert len(grown.points()) == 1
    goes_on(grown)


def test_a_vm_that_goes_off_in_the_middle_is_told_as_such(grown: EngineWorld) -> None:
    grown.observer.at["copy"] = grown.vm.stop
    with pytest.raises(VmStopped):
        grown.backup()
    grown.observer.at.clear()
    grown.vm.start()
    exact(grown, grown.backup())


def test_a_qemu_that_dies_in_the_middle_costs_a_scan_and_no_point(grown: EngineWorld) -> None:
    grown.observer.at["copy"] = grown.vm.kill
    with pytest.raises(VmStopped):
        grown.backup()
    grown.observer.at.clear()
    grown.vm.start()
    grown.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap()
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.SCAN]


# --- stopping


@pytest.mark.parametrize("step", ["copy", "save", "commit"])
def test_stopping_rolls_back_and_the_next_run_goes_on(grown: EngineWorld, step: str) -> None:
    grown.observer.at[step] = grown.cancel.request
    with pytest.raises(Cancelled):
        grown.backup()
    grown.observer.at.clear()
    grown.cancel = Cancel()
    goes_on(grown)


def test_stopping_works_while_qemu_does_not_answer(grown: EngineWorld) -> None:
    grown.exports.stalled = True
    grown.observer.at["copy"] = threading.Timer(0.05, grown.cancel.request).start
    with pytest.raises(Cancelled):
        grown.backup()
    grown.observer.at.clear()
    grown.exports.stalled, grown.cancel = False, Cancel()
    goes_on(grown)


def test_stopping_after_the_commit_comes_too_late(grown: EngineWorld) -> None:
    grown.observer.at["committed"] = grown.cancel.request
    result = grown.backup()
    exact(grown, result)
    assert len(grown.points()) == 2


# --- kill -9


@pytest.mark.parametrize("full", [False, True], ids=["increment", "full"])
@pytest.mark.parametrize(
    "step",
    [
        *("look", "plan", "adopted", "mark", "probe", "freeze", "frozen", "begin", "begun"),
        *("copy", "copied vda", "save", "commit", "committed", "ended", "tidy", "done"),
    ],
)
def test_killed_at_any_step_the_next_run_cleans_up_and_goes_on(
    grown: EngineWorld, step: str, full: bool
) -> None:
    grown.vm.no_agent = ""
    grown.backup_killed_at(step, force_full=full)
    committed = len(grown.points()) == 2
    assert committed == (step in {"committed", "ended", "tidy", "done"})
    grown.disk.write(4 * BLOCK, b"written after the crash")
    result = grown.backup()
    exact(grown, result)
    assert result.point.level == "inc"
    assert [d.method for d in result.point.disks] == [Method.BITMAP]
    live = [chain for chain in grown.chains() if chain.state is ChainState.LIVE]
    assert [chain.directory for chain in live] == [result.chain]


def test_the_vm_in_between_may_go_off_and_come_back(grown: EngineWorld) -> None:
    grown.backup_killed_at("copy")
    grown.vm.stop()
    assert [a.directory for c in grown.chains() for a in c.attempts] == ["000001-inc"]
    with pytest.raises(VmNotEligible):
        grown.backup()
    grown.vm.start(PowerState.PAUSED)
    exact(grown, grown.backup())
