"""A whole backup, with a VM in memory and a real backup folder."""

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.engine_world import FOREIGN, EngineWorld, bitmaps_of, exact, lived_in
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.hypervisor import FakeHypervisor
from vm_babysitter.adapters.qemu.compression import Zstd
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.chain import ChainState
from vm_babysitter.domain.errors import (
    Busy,
    JobTooLong,
    NotEnoughSpace,
    ScratchUnfit,
    StoreFailed,
    VmNotEligible,
    VmNotFound,
)
from vm_babysitter.domain.point import Checkpoint, Method
from vm_babysitter.domain.space import Room
from vm_babysitter.ports import ActiveJob, JobKind

BLOCK = 65536


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM whose disk has content, a foreign bitmap and a foreign checkpoint."""
    return lived_in(ram_path)


@pytest.fixture
def grown(world: EngineWorld) -> EngineWorld:
    """The same with a full backup, written to since."""
    world.backup()
    world.disk.write(BLOCK, b"changed")
    return world


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
    names = ["domain.xml", "nvram.fd", "tpm-tpm2-00.permall"]
    assert [file.name for file in point.files] == names
    assert point.autostart
    (chain,) = grown.chains()
    path = grown.store.file_path(grown.vm.uuid, chain, point, "domain.xml")
    assert path.read_text() == grown.vm.definition
    assert grown.points()[-1] == point


def test_many_increments_are_exact_and_the_two_newest_bitmaps_stay(grown: EngineWorld) -> None:
    for n in range(5):
        grown.disk.write(n * BLOCK + 7, bytes([n + 1]) * 100)
        grown.disk.zero(((n + 3) % 5) * BLOCK, BLOCK)
        exact(grown, grown.backup())
    assert grown.bitmaps() == {FOREIGN, *bitmaps_of(*grown.points()[-2:])}


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


def move_to_another_pool(disk: FakeDisk) -> None:
    move(disk)
    exchange(disk)


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
        (move, Method.BITMAP, "tracked"),
        (move_to_another_pool, Method.SCAN, "another image"),
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
    assert result.point.notes == ("disk vdb is new",)
    assert result.point.checkpoint is not None
    assert result.point.checkpoint.disks == ("vda",)
    more.write(100, b"changed")
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP, Method.SCAN]
    assert result.point.notes == ()
    del grown.vm.disks["vdb"]
    result = grown.backup()
    exact(grown, result)
    assert result.point.notes == (
        "disk vdb is no longer part of the VM; earlier restore points keep it",
    )
    assert result.point.warnings == ()


def test_a_disk_with_another_target_is_compared_with_what_it_was(grown: EngineWorld) -> None:
    grown.backup()
    disk = grown.vm.disks.pop("vda")
    disk.target = "hdc"
    grown.vm.disks["hdc"] = disk
    new = FakeDisk("vda", size=2 * BLOCK, path="/vms/new.qcow2", identity="inode:9")
    new.layers[0].path = new.path
    new.write(0, b"quite another disk")
    grown.vm.disks["vda"] = new
    disk.write(BLOCK, b"told apart")
    result = grown.backup()
    exact(grown, result)
    old, other = result.point.disks
    assert (old.target, old.method, old.parent, old.parent_file) == (
        "hdc",
        Method.SCAN,
        "000001-inc",
        "vda.qcow2",
    )
    assert old.written_bytes == BLOCK
    assert (other.method, other.parent_file) == (Method.SCAN, "")
    assert "hdc was disk vda before" in result.point.notes[0]
    disk.write(2 * BLOCK, b"changed")
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP, Method.BITMAP]
    assert (result.point.disks[0].parent_file, result.point.notes) == ("", ())


def test_a_vm_that_was_renamed_or_made_anew_says_so(grown: EngineWorld) -> None:
    grown.vm.name = grown.name = "another name"
    assert grown.backup().point.notes == ('the VM was called "it\'s a VM" before',)
    assert grown.backup().point.notes == ()
    old = grown.vm.uuid
    del grown.hypervisor.machines[old]
    grown.vm = grown.hypervisor.add(grown.name, FakeDisk(size=BLOCK))
    made = grown.backup().point
    assert made.level == "full"
    (note,) = made.notes
    assert f"with another UUID ({old})" in note
    assert grown.backup().point.notes == ()


def test_a_disk_that_another_vm_has_as_well_is_noted(grown: EngineWorld) -> None:
    other = grown.hypervisor.add("twin", FakeDisk("hdc", path=grown.disk.path))
    other.stop()
    result = grown.backup()
    assert result.point.notes == (
        "disk vda is disk hdc of VM 'twin' as well; only one of the two can run",
    )
    assert result.point.warnings == ()


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
    first = bitmaps_of(old.points[0].point)
    assert first
    assert not first & grown.bitmaps()


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
    old, new = (name for point in world.points() for name in bitmaps_of(point))
    hypervisor.refused = {new}
    result = world.backup()
    assert hypervisor.asked[-2:] == [new, old]
    assert "restore point 000000" in result.point.disks[0].reason
    assert world.restored(world.chains()[0], 2) == bytes(world.disk.content)
    hypervisor.refused = bitmaps_of(*world.points())
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


def test_a_vm_that_is_unknown_is_refused(grown: EngineWorld) -> None:
    before = sorted(grown.path.rglob("*"))
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
    device = 2
    """Another one than that of the VM's disks."""

    def room(self) -> Room:
        return Room(self.free, 100 * BLOCK, self.device)


def test_too_little_space_for_a_full_is_found_before_anything_is_copied(
    world: EngineWorld,
) -> None:
    store = world.store = FullStore(world.path, "id", Qcow2Writer, digest_file)
    needed = 4 * BLOCK + 512 + 98  # a hundredth of it all stays free; tables and fingerprints
    store.free = needed - 1
    with pytest.raises(NotEnoughSpace) as caught:
        world.backup()
    assert (caught.value.free, caught.value.needed) == (needed - 1, needed)
    assert world.exports.readers["vda"].bytes_read == 0
    assert (world.leftovers(), world.chains()) == ([], ())
    store.free += 1
    exact(world, world.backup())


def test_a_full_leaves_what_scratch_needs_on_the_pool_of_the_disks(world: EngineWorld) -> None:
    store = world.store = FullStore(world.path, "id", Qcow2Writer, digest_file)
    store.device = world.places.rooms[0].device
    store.free = (16 << 20) + 3 * BLOCK
    with pytest.raises(NotEnoughSpace) as caught:
        world.backup()
    assert caught.value.needed > store.free
    store.free += BLOCK
    exact(world, world.backup())


def test_a_compressed_full_that_may_not_fit_is_tried_and_the_user_told(
    world: EngineWorld,
) -> None:
    new_image = partial(Qcow2Writer, compression=Zstd())
    store = world.store = FullStore(world.path, "id", new_image, digest_file)
    store.free, world.compress = 4 * BLOCK + 512 + 97, True
    made = world.backup()
    exact(world, made)
    assert made.point.disks[0].compression == "zstd"
    assert made.point.warnings == ()
    (note,) = world.observer.notes
    assert "hold up to 257 KiB, and the backup folder has room for 257 KiB" in note
    world.observer.notes.clear()
    store.free += 1
    exact(world, world.backup(force_full=True))
    assert world.observer.notes == []


def test_an_increment_is_tried_with_little_space_but_not_without(grown: EngineWorld) -> None:
    store = grown.store = FullStore(grown.path, "id", Qcow2Writer, digest_file)
    store.free = BLOCK - 1
    with pytest.raises(NotEnoughSpace):
        grown.backup()
    assert grown.leftovers() == []
    store.free = BLOCK
    exact(grown, grown.backup())


def test_an_increment_that_takes_too_long_is_undone_and_a_full_is_not(world: EngineWorld) -> None:
    slow = world.observer.at
    slow["copy"] = lambda: time.sleep(0.2)
    world.backup(longest=0.05)  # a first one of a large VM would never be completed
    world.disk.write(0, b"new")
    with pytest.raises(JobTooLong):
        world.backup(longest=0.05)
    assert len(world.points()) == 1
    assert world.leftovers() == []
    slow.clear()
    world.cancel.recover()  # each job has one of its own
    assert world.backup(longest=60.0).point.parent == 0
