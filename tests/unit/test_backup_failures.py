"""Backups that fail, are stopped or are killed: rolled back, and the next run goes on."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.engine_world import FOREIGN, EngineWorld, exact, lived_in
from tests.support.fakes.disk import FakeBitmap
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.chain import ChainState
from vm_babysitter.domain.errors import (
    Cancelled,
    ConnectionLost,
    HypervisorError,
    StoreFailed,
    TransferFailed,
    VmStopped,
)
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import WrittenFile

BLOCK = 65536
LOST = HypervisorError("Asking", 1, "it went wrong")
STEPS = ("mark", "probe", "begin", "begun", "copy", "copied vda", "save", "commit")


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
    "belongings",
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


def test_a_vm_that_goes_off_in_the_middle_is_backed_up_off(grown: EngineWorld) -> None:
    def stop() -> None:
        if grown.vm.state is not PowerState.OFF:
            grown.vm.stop()

    grown.observer.at["copy"] = stop
    result = grown.backup()
    exact(grown, result)
    assert result.point.off
    assert [d.method for d in result.point.disks] == [Method.BITMAP]
    assert any("switched off or crashed" in note for note in grown.observer.notes)
    grown.observer.at.clear()
    grown.vm.start()
    exact(grown, grown.backup())


def test_a_vm_that_never_stays_as_it_is_is_told_as_such(grown: EngineWorld) -> None:
    def switch() -> None:
        if grown.vm.state is PowerState.OFF:
            grown.vm.start()
        else:
            grown.vm.stop()

    grown.observer.at["copy"] = switch
    with pytest.raises(VmStopped):
        grown.backup()
    assert grown.observer.steps.count("copy") == 1 + 3
    grown.observer.at.clear()
    exact(grown, grown.backup())


def test_a_qemu_that_dies_in_the_middle_costs_a_scan_and_no_point(grown: EngineWorld) -> None:
    def kill() -> None:
        if grown.vm.state is not PowerState.OFF:
            grown.vm.kill()
            grown.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap()

    grown.observer.at["copy"] = kill
    result = grown.backup()
    exact(grown, result)
    assert result.point.off
    assert [d.method for d in result.point.disks] == [Method.SCAN]
    grown.observer.at.clear()
    grown.vm.start()
    result = grown.backup()
    exact(grown, result)
    assert [d.method for d in result.point.disks] == [Method.BITMAP]


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
    exact(grown, grown.backup())
    grown.vm.start(PowerState.PAUSED)
    exact(grown, grown.backup())
