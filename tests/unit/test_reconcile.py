"""Cleaning up: all that is ours, nothing that is not, and again if it was interrupted."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld, bitmaps_of
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.faults import Faults
from tests.support.fakes.hypervisor import FakeHypervisor, FakeJob
from tests.support.points import attempt as an_attempt
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.chain import Attempt, ChainState
from vm_babysitter.domain.errors import Busy, HypervisorError, StoreFailed
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.ports import ActiveJob, JobKind

LOST = HypervisorError("Asking", 1, "it went wrong")
FOREIGN = ("virtnbdbackup.0", "vmb-12345678-000000-abcdef", "mine")


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with one point, and with what other programs may have on it."""
    world = EngineWorld(ram_path)
    world.disk.write(0, b"one")
    world.backup()
    world.disk.write(65536, b"two")
    for name in FOREIGN:
        world.disk.layers[0].bitmaps[name] = FakeBitmap()
        world.vm.checkpoints[name] = ("vda",)
    world.hypervisor.files |= {"/vms/it's a VM/.vmb-999999-vda.scratch", "/vms/somebody's"}
    world.observer.notes.clear()
    return world


@pytest.fixture
def crashed(world: EngineWorld) -> EngineWorld:
    """The same after a backup that was killed while it copied."""
    world.backup_killed_at("copy")
    assert world.vm.job is not None
    return world


@pytest.fixture
def done(world: EngineWorld) -> EngineWorld:
    """The same after a backup that was killed right after its commit."""
    world.backup_killed_at("committed")
    assert world.vm.job is not None
    return world


def reconcile(world: EngineWorld) -> None:
    world.reconciler().reconcile(world.vm.describe())


def only_foreign(world: EngineWorld) -> bool:
    """Whether all is gone that was left behind, and all is there that is others'."""
    kept = bitmaps_of(*world.points())
    assert world.bitmaps() == {*kept, *FOREIGN}
    assert set(world.vm.checkpoints) == set(FOREIGN)
    assert world.hypervisor.files == {
        "/vms/it's a VM/.vmb-999999-vda.scratch",
        "/vms/somebody's",
    }
    assert world.vm.job is None
    assert [a for chain in world.chains() for a in chain.attempts] == []
    assert [u for chain in world.chains() for u in chain.unreadable] == []
    return True


def test_where_nothing_was_left_nothing_is_done(world: EngineWorld) -> None:
    before = sorted(world.path.rglob("*"))
    reconcile(world)
    assert only_foreign(world)
    assert sorted(world.path.rglob("*")) == before
    assert world.observer.notes == []


def test_an_attempt_that_was_interrupted_is_undone_and_told(crashed: EngineWorld) -> None:
    reconcile(crashed)
    assert only_foreign(crashed)
    assert [p.seq for p in crashed.points()] == [0]
    (note,) = crashed.observer.notes
    assert note.endswith("/000001, which was interrupted, was undone.")


def test_an_attempt_that_was_committed_keeps_its_point_and_its_bitmap(done: EngineWorld) -> None:
    reconcile(done)
    assert only_foreign(done)
    newest = done.points()[-1]
    assert newest.seq == 1
    assert bitmaps_of(newest)
    assert bitmaps_of(newest) <= done.bitmaps()
    (note,) = done.observer.notes
    assert note.endswith("/000001, which was interrupted, was completed.")


def test_bitmaps_of_an_attempt_are_found_on_whatever_disk_they_are_now(
    crashed: EngineWorld,
) -> None:
    more = FakeDisk("vdb", path="/vms/b.qcow2")
    crashed.vm.disks["vdb"] = more
    ((attempt,),) = (chain.attempts for chain in crashed.chains())
    for name in (f"{attempt.checkpoint}-vda", attempt.checkpoint):  # swapped; an earlier version's
        more.layers[0].bitmaps[name] = FakeBitmap()
    more.layers[0].bitmaps[f"{attempt.checkpoint}0-vda"] = FakeBitmap()
    reconcile(crashed)
    assert set(more.layers[0].bitmaps) == {f"{attempt.checkpoint}0-vda"}
    more.layers[0].bitmaps.clear()
    assert only_foreign(crashed)


def test_doing_it_twice_changes_nothing_more(crashed: EngineWorld) -> None:
    reconcile(crashed)
    reconcile(crashed)
    assert only_foreign(crashed)
    assert len(crashed.observer.notes) == 1


def attempt_of(world: EngineWorld) -> Attempt:
    chain = world.chains()[0]
    return replace(
        an_attempt(chain.next_seq, chain_id=chain.id),
        vm_uuid=world.vm.uuid,
        socket="/run/fake/job-abcdef.socket",
    )


def test_a_backup_job_on_another_socket_goes_on(world: EngineWorld) -> None:
    world.store.begin(world.chains()[0], attempt_of(world))
    job = world.vm.job = FakeJob("/run/fake/job-abcdef.socket.other", (), {})
    reconcile(world)
    assert world.vm.job is job
    world.vm.job = None
    assert only_foreign(world)


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("socket", ["", "/run/other.socket", "/run/fake/job-abcdef.socket"])
def test_a_job_that_is_not_surely_ours_is_left_alone(
    world: EngineWorld, kind: JobKind, socket: str
) -> None:
    attempt = attempt_of(world)
    world.store.begin(world.chains()[0], attempt)
    world.hypervisor.calls.clear()
    world.vm.foreign_job = ActiveJob(kind, "x", socket)
    reconcile(world)
    ours = kind is JobKind.BACKUP and socket == attempt.socket
    assert ("end_backup" in world.hypervisor.calls) is ours


def test_files_without_the_nonce_of_the_attempt_are_never_removed(world: EngineWorld) -> None:
    attempt = replace(attempt_of(world), scratch=("/vms/somebody's", "/vms/.vmb-abcdef-x.scratch"))
    world.store.begin(world.chains()[0], attempt)
    world.hypervisor.files.add("/vms/.vmb-abcdef-x.scratch")
    reconcile(world)
    assert only_foreign(world)


UNDOING = (
    "active_job",
    "end_backup",
    "forget_checkpoints",
    "power",
    "disk_states",
    "remove_bitmaps",
)


def failing(world: EngineWorld, call: str, *, after: bool) -> None:
    fake: Faults = world.places if call == "remove" else world.hypervisor
    (fake.fail_after if after else fake.fail)[call] = LOST


@pytest.mark.parametrize("call", [*UNDOING, "remove"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cleaning_up_that_fails_anywhere_is_done_by_the_next(
    crashed: EngineWorld, call: str, after: bool
) -> None:
    failing(crashed, call, after=after)
    with pytest.raises(HypervisorError):
        reconcile(crashed)
    assert [a.seq for chain in crashed.chains() for a in chain.attempts] == [1]
    for fake in (crashed.places, crashed.hypervisor):
        fake.fail.clear()
        fake.fail_after.clear()
    reconcile(crashed)
    assert only_foreign(crashed)


@pytest.mark.parametrize("call", [c for c in UNDOING if c not in {"disk_states", "remove_bitmaps"}])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_completing_that_fails_anywhere_is_done_by_the_next(
    done: EngineWorld, call: str, after: bool
) -> None:
    failing(done, call, after=after)
    with pytest.raises(HypervisorError):
        reconcile(done)
    done.hypervisor.fail.clear()
    done.hypervisor.fail_after.clear()
    reconcile(done)
    assert only_foreign(done)
    assert [p.seq for p in done.points()] == [0, 1]


class FailingSweep(LocalStore):
    """A backup folder that fails before or after it was swept."""

    after = False

    def sweep(self, attempt: Attempt, *, keep_mark: bool = False) -> None:
        if self.after:
            super().sweep(attempt, keep_mark=keep_mark)
        raise StoreFailed(str(self.path), "it is read-only now")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_store_that_fails_while_sweeping_is_swept_by_the_next(
    crashed: EngineWorld, after: bool
) -> None:
    whole = crashed.store
    store = crashed.store = FailingSweep(crashed.path, "id", Qcow2Writer, digest_file)
    store.after = after
    with pytest.raises(StoreFailed):
        reconcile(crashed)
    crashed.store = whole
    reconcile(crashed)
    assert only_foreign(crashed)


def test_a_sweep_killed_half_way_is_done_again(world: EngineWorld) -> None:
    world.backup_killed_at("save")
    (directory,) = world.path.rglob("000001-inc")
    files = sorted(directory.iterdir())
    assert len(files) == 2
    files[0].unlink()
    reconcile(world)
    assert only_foreign(world)


def test_bitmaps_of_a_vm_that_is_off_are_removed_from_its_images(crashed: EngineWorld) -> None:
    crashed.vm.stop()
    reconcile(crashed)
    assert crashed.offline_bitmaps.calls == ["remove"]
    assert only_foreign(crashed)


def test_where_that_fails_the_mark_stays_and_tells_whose_bitmaps_those_are(
    crashed: EngineWorld,
) -> None:
    crashed.vm.stop()
    crashed.offline_bitmaps.fail["remove"] = Busy("The disk image 'x'", "another has it open")
    reconcile(crashed)
    assert [a.seq for chain in crashed.chains() for a in chain.attempts] == [1]
    (note,) = crashed.observer.notes
    assert "another has it open" in note
    crashed.vm.start(PowerState.PAUSED)
    reconcile(crashed)
    assert only_foreign(crashed)


def test_so_it_does_while_the_vm_shuts_down(crashed: EngineWorld) -> None:
    crashed.vm.job = None
    crashed.vm.state = PowerState.SHUTTING_DOWN
    reconcile(crashed)
    assert [a.seq for chain in crashed.chains() for a in chain.attempts] == [1]
    crashed.vm.stop()
    reconcile(crashed)
    assert only_foreign(crashed)


def test_so_it_does_where_an_image_is_away(crashed: EngineWorld) -> None:
    crashed.vm.stop()
    crashed.disk.unreadable = "No such file or directory"
    reconcile(crashed)
    assert [a.seq for chain in crashed.chains() for a in chain.attempts] == [1]
    crashed.disk.unreadable = ""
    reconcile(crashed)
    assert only_foreign(crashed)


def test_an_empty_chain_of_an_attempt_goes_too(world: EngineWorld) -> None:
    world.backup_killed_at("copy", force_full=True)
    assert len(world.chains()) == 2
    reconcile(world)
    assert only_foreign(world)
    (chain,) = world.chains()
    assert chain.state is ChainState.LIVE


def test_a_new_full_that_was_committed_closes_the_old_chain(world: EngineWorld) -> None:
    world.backup_killed_at("committed", force_full=True)
    assert [c.state for c in world.chains()] == [ChainState.LIVE, ChainState.LIVE]
    reconcile(world)
    old, new = world.chains()
    assert (old.state, new.state) == (ChainState.ARCHIVED, ChainState.LIVE)
    assert old.why == "a newer backup series was begun"


def test_a_point_without_manifest_and_without_a_mark_is_never_removed(
    crashed: EngineWorld,
) -> None:
    (mark,) = crashed.path.rglob("*.attempt.json")
    mark.unlink()
    reconcile(crashed)
    (chain,) = crashed.chains()
    assert [u.directory for u in chain.unreadable] == ["000001-inc"]
    assert mark.with_name("000001-inc").is_dir()


def test_what_lies_in_the_folder_beside_our_files_is_left_alone(crashed: EngineWorld) -> None:
    (chain,) = (p for p in crashed.path.glob("*/*") if p.is_dir())
    (chain / "notes.txt").write_text("mine")
    (chain / "000007-inc.old").mkdir()
    reconcile(crashed)
    assert (chain / "notes.txt").read_text() == "mine"
    assert (chain / "000007-inc.old").is_dir()


# --- tidying


def test_tidying_removes_only_bitmaps_of_ours_that_serve_nothing(world: EngineWorld) -> None:
    world.backup()
    chain = world.chains()[0]
    orphan = f"vmb-{chain.id[:8]}-000009-0a0b0c"
    world.disk.layers[0].bitmaps[orphan] = FakeBitmap()
    kept = bitmaps_of(*world.points())
    world.reconciler().tidy(world.vm.describe())
    assert world.bitmaps() == {*kept, *FOREIGN}
    assert len(kept) == 2


def test_forgetting_drops_metadata_of_ours_and_keeps_bitmaps(world: EngineWorld) -> None:
    (point,) = world.points()
    (name,) = bitmaps_of(point)
    world.vm.checkpoints[name] = ("vda",)
    world.reconciler().forget(world.vm.describe())
    assert set(world.vm.checkpoints) == set(FOREIGN)
    assert name in world.bitmaps()


class Slow(FakeHypervisor):
    """Takes its time, and counts who is inside."""

    inside = most = 0

    def active_job(self, uuid: str) -> ActiveJob | None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.05)
        self.inside -= 1
        return super().active_job(uuid)


def test_ending_an_attempt_is_done_by_one_at_a_time(ram_path: Path) -> None:
    """The guard of a backup may be at it when the backup gets to it."""
    hypervisor = Slow()
    world = EngineWorld(ram_path, hypervisor=hypervisor)
    reconciler, vm = world.reconciler(), world.vm.describe()
    attempt = replace(an_attempt(), vm_uuid=vm.uuid)
    threads = [threading.Thread(target=reconciler.end_job, args=(vm, attempt)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hypervisor.calls.count("active_job") == 3
    assert hypervisor.most == 1


# -- the mark of the attempt is damaged --------------------------------------------------------


def damage_mark(world: EngineWorld) -> None:
    (mark,) = world.path.glob("*/*/*.attempt.json")
    mark.write_bytes(mark.read_bytes()[:20])


@pytest.mark.parametrize("moment", ["copy", "committed"])
def test_a_job_whose_mark_is_damaged_is_ended_by_what_its_bitmaps_tell(
    world: EngineWorld, moment: str
) -> None:
    world.backup_killed_at(moment)
    damage_mark(world)
    reconcile(world)
    assert world.vm.job is None
    assert world.hypervisor.files == {"/vms/it's a VM/.vmb-999999-vda.scratch", "/vms/somebody's"}
    world.disk.write(2 * 65536, b"three")
    result = world.backup()
    assert result.point.level == "inc"
    (chain,) = world.chains()
    assert world.restored(chain, result.point.seq) == bytes(world.disk.content)
    assert world.bitmaps() == {*bitmaps_of(*world.points()[-2:]), *FOREIGN}


def test_a_full_whose_mark_is_damaged_closes_no_chain_that_is_whole(world: EngineWorld) -> None:
    world.backup_killed_at("copy", force_full=True)
    damage_mark(world)
    reconcile(world)
    old, torn = world.chains()
    assert [c.state for c in (old, torn)] == [ChainState.LIVE, ChainState.LIVE]
    assert torn.unreadable
    made = world.backup()
    assert (made.chain, made.point.level) == (old.directory, "inc")


def test_a_vm_that_is_stuck_is_told_of_where_the_mark_is_damaged(crashed: EngineWorld) -> None:
    damage_mark(crashed)
    crashed.vm.state = PowerState.STUCK
    reconcile(crashed)
    assert crashed.vm.job is None
    assert crashed.vm.state is PowerState.STUCK  # nothing tells that it ran before
    assert "`virsh resume`" in crashed.observer.notes[-1]


# -- somebody is at the attempt ----------------------------------------------------------------


def held(world: EngineWorld) -> None:
    """The process that makes the newest attempt lives."""
    ((attempt,),) = (chain.attempts for chain in world.chains())
    world.places.held[attempt.nonce] = "process 4711"


@pytest.mark.parametrize(
    ("moment", "damaged"),
    [("begin", False), ("copy", False), ("copy", True), ("committed", False), ("committed", True)],
)
def test_a_job_in_a_copy_of_the_store_goes_on_while_somebody_is_at_it(
    world: EngineWorld, moment: str, *, damaged: bool
) -> None:
    world.backup_killed_at(moment)  # what it leaves is what a copy made at that moment has
    held(world)
    if damaged:
        damage_mark(world)
    job, files = world.vm.job, set(world.hypervisor.files)
    bitmaps, store = world.bitmaps(), sorted(world.path.rglob("*"))
    for work in (lambda: reconcile(world), world.backup):
        with pytest.raises(Busy, match=r"a backup of it is running, begun by process 4711"):
            work()
        assert world.vm.job is job
        assert (world.hypervisor.files, world.bitmaps()) == (files, bitmaps)
        assert sorted(world.path.rglob("*")) == store
    world.places.held.clear()  # it is killed
    world.backup()
    assert world.vm.job is None


def test_it_shows_that_we_are_at_an_attempt_until_it_is_undone(world: EngineWorld) -> None:
    seen: list[int] = []
    for step in ("mark", "begin", "copy", "committed", "ended"):
        world.observer.at[step] = lambda: seen.append(len(world.places.held))
    world.backup()
    assert seen == [1] * 5
    assert world.places.held == {}

    def fail() -> None:
        raise StoreFailed("/x", "it is full")

    world.observer.at["copy"] = fail
    world.observer.at["roll back"] = lambda: seen.append(len(world.places.held))
    with pytest.raises(StoreFailed):
        world.backup()
    assert seen[5:] == [1, 1, 1]
    assert world.places.held == {}


def test_no_attempt_is_begun_where_that_cannot_be_shown(world: EngineWorld) -> None:
    world.places.fail["hold"] = StoreFailed("/run", "it is full")
    with pytest.raises(StoreFailed):
        world.backup(force_full=True)
    assert only_foreign(world)
    assert len(world.chains()) == 1


def test_a_job_of_the_same_chain_in_a_copy_of_the_store_goes_on(crashed: EngineWorld) -> None:
    (mark,) = crashed.path.glob("*/*/*.attempt.json")
    mark.unlink()
    (begun,) = crashed.path.glob("*/*/000001-inc")
    shutil.rmtree(begun)
    reconcile(crashed)
    assert crashed.vm.job is not None


def test_a_job_of_another_socket_goes_on_though_bitmaps_tell_of_a_dead_attempt(
    crashed: EngineWorld,
) -> None:
    damage_mark(crashed)
    crashed.vm.job = replace(crashed.vm.job, socket="/somebody/else") if crashed.vm.job else None
    reconcile(crashed)
    assert crashed.vm.job is not None
    assert crashed.observer.notes == []


def test_what_libvirt_was_told_by_a_run_that_died_before_its_mark_is_forgotten(
    world: EngineWorld,
) -> None:
    world.backup_killed_at("adopted")
    assert set(world.vm.checkpoints) > set(FOREIGN)
    assert not list(world.path.rglob("*.attempt.json"))
    reconcile(world)
    assert only_foreign(world)
