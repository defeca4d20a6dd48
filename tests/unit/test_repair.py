"""Repairs of a VM in memory: what is planned is what is done, and it can be done again."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld, exact, lived_in
from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.images import FakeImageTool
from tests.support.fakes.places import FakeScratchPlaces
from tests.support.killing import each_kill
from tests.unit.test_verify import file_of, flip, results, two_disks
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.restore_place import EmptyDirectory
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.chain import Chain, ChainState
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import (
    Busy,
    HypervisorError,
    StoreFailed,
    UnsupportedFormat,
    VmNotFound,
)
from vm_babysitter.domain.findings import Code, Weight
from vm_babysitter.domain.presence import Since
from vm_babysitter.domain.repair_plan import By, RepairPolicy, StepKind, plan_repair
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.catalog import find_point
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.engine.repair import Repair, Repaired
from vm_babysitter.engine.restore import Restore
from vm_babysitter.ports import ActiveJob, JobKind, Store, StoredVm

STEPS = (
    "adopted", "mark", "begin", "begun", "copy", "save", "confirm", "commit", "committed",
    "ended", "tidy",
)  # fmt: skip
"""Of a backup, at which it is killed."""


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    return lived_in(ram_path)


def repair(world: EngineWorld) -> Repaired:
    return Repair(world.tools(), world.store).run(world.name)


def diagnose(world: EngineWorld) -> Diagnosed:
    return Diagnoser(world.tools().sight, world.open()).diagnose(world.name)


def planned(found: Diagnosed) -> list[StepKind]:
    return [step.kind for step in plan_repair(found.diagnosis).of(By.BOTH, By.REPAIR)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("force_full", [False, True], ids=["increment", "full"])
def test_what_a_killed_backup_left_is_planned_away_and_then_away(
    world: EngineWorld, step: str, force_full: bool
) -> None:
    world.backup()
    world.backup_killed_at(step, force_full=force_full)
    points = world.points()
    before = diagnose(world)
    result = repair(world)
    assert [done.kind for done in result.done] == planned(before)
    assert result.left == ()
    assert planned(result.after) == []
    assert result.after.diagnosis.health is Health.GOOD
    assert world.points() == points
    assert world.leftovers() == []
    assert repair(world).done == ()
    # What the plan said of the next backup is what it then does.
    assert before.planned is not None
    made = world.backup()
    exact(world, made)
    assert made.point.parent == (before.planned.plan.parent and before.planned.plan.parent.seq)
    methods = [disk.method for disk in before.planned.plan.disks]
    assert [disk.method for disk in made.point.disks] == methods


@pytest.mark.parametrize("step", ["look", "mend", "look again"])
def test_a_repair_that_is_killed_is_done_by_the_next(world: EngineWorld, step: str) -> None:
    world.backup()
    world.backup_killed_at("copy")
    world.killed_at(step, lambda: repair(world))
    assert repair(world).after.diagnosis.health is Health.GOOD
    assert world.leftovers() == []
    exact(world, world.backup())


def test_a_vm_that_is_stuck_goes_on(world: EngineWorld) -> None:
    world.vm.state = PowerState.RUNNING
    world.backup()
    world.backup_killed_at("copy")
    world.vm.state = PowerState.STUCK
    assert {f.code for f in diagnose(world).diagnosis.findings} >= {Code.STUCK, Code.INTERRUPTED}
    assert StepKind.RESUME in [step.kind for step in repair(world).done]
    assert world.vm.state is PowerState.RUNNING


def test_of_two_chains_that_grow_the_older_one_is_closed(world: EngineWorld) -> None:
    world.backup()
    world.backup_killed_at("ended", force_full=True)
    assert [step.kind for step in repair(world).done] == [StepKind.ARCHIVE]
    assert [chain.state for chain in world.chains()] == [ChainState.ARCHIVED, ChainState.LIVE]


def test_what_is_left_of_a_vm_that_is_gone_is_swept(world: EngineWorld) -> None:
    world.backup()
    world.backup_killed_at("copy")
    points = world.points()
    del world.hypervisor.machines[world.vm.uuid]
    found = diagnose(world)
    assert isinstance(found.error, VmNotFound)
    assert planned(found) == [StepKind.UNDO]
    result = repair(world)
    assert [step.kind for step in result.done] == [StepKind.UNDO]
    assert result.after.diagnosis.health is Health.GOOD
    assert world.points() == points
    assert not world.hypervisor.files  # no scratch, no socket
    assert [a for chain in world.chains() for a in chain.attempts] == []


IN_SIGHT = "a QEMU with its UUID runs"


@pytest.mark.parametrize(
    ("boot", "used", "swept"),
    [
        ("", "", True),
        ("", IN_SIGHT, False),
        ("this one", "", True),
        ("this one", IN_SIGHT, False),
        ("another", IN_SIGHT, True),  # no job outlives its host
    ],
)
def test_what_may_still_have_a_job_that_libvirt_does_not_see_is_left_alone(
    world: EngineWorld, boot: str, used: str, *, swept: bool
) -> None:
    world.host = replace(world.host, boot_id=boot and "this one")
    world.store = world.open()
    world.backup()
    world.backup_killed_at("copy")
    if boot == "another":
        world.host = replace(world.host, boot_id=boot)
        world.store = world.open()
    del world.hypervisor.machines[world.vm.uuid]  # another libvirt, or undefined while it runs
    world.places.used_by = used
    files, store = set(world.hypervisor.files), sorted(world.path.rglob("*"))
    told = f"this libvirt (fake:///system) has no VM {world.name!r}, but {IN_SIGHT}"
    gone = [f.what for f in diagnose(world).diagnosis.findings if f.code is Code.VM_GONE]
    assert gone[0].startswith(told) is not swept
    result = Repair(world.tools(), world.store).run(world.name)
    if swept:
        assert [step.kind for step in result.done] == [StepKind.UNDO]
        assert not world.hypervisor.files
        return
    assert [step.kind for step in result.left] == [StepKind.UNDO]
    assert (world.hypervisor.files, sorted(world.path.rglob("*"))) == (files, store)
    assert told[1:] in " ".join(world.observer.notes)
    world.hypervisor.machines[world.vm.uuid] = world.vm
    exact(world, world.backup())


def test_what_is_left_of_a_vm_that_is_gone_still_tells_of_a_crash_of_the_host(
    world: EngineWorld,
) -> None:
    world.backup()
    world.backup_killed_at("copy")
    world.vm.stop()  # its change tracking is in good order, and tells nothing
    world.host = replace(world.host, boot_id="another")
    world.store = world.open()
    del world.hypervisor.machines[world.vm.uuid]
    Repair(world.tools(), world.store).run(world.name)
    assert [a for chain in world.chains() for a in chain.attempts] == []
    world.vm.start()
    world.hypervisor.machines[world.vm.uuid] = world.vm
    world.observer.steps.clear()
    world.backup()
    assert [step for step in world.observer.steps if step.startswith("check ")]


@pytest.mark.parametrize("gone", [False, True])
def test_nothing_is_repaired_while_somebody_is_at_a_backup(
    world: EngineWorld, *, gone: bool
) -> None:
    world.backup()
    world.backup_killed_at("copy")
    ((attempt,),) = (chain.attempts for chain in world.chains())
    world.places.held[attempt.nonce] = "process 4711"
    if gone:
        del world.hypervisor.machines[world.vm.uuid]
    files, store = set(world.hypervisor.files), sorted(world.path.rglob("*"))
    found = diagnose(world).diagnosis
    assert Code.UNDER_WAY in {finding.code for finding in found.findings}
    assert Code.NO_BACKUP not in {finding.code for finding in found.findings}
    assert StepKind.UNDO not in planned(diagnose(world))
    with pytest.raises(Busy, match="begun by process 4711"):
        repair(world)
    assert (world.hypervisor.files, sorted(world.path.rglob("*"))) == (files, store)


@pytest.mark.parametrize("kind", JobKind)
def test_a_job_that_every_backup_would_meet_is_told(world: EngineWorld, kind: JobKind) -> None:
    world.backup()
    world.vm.foreign_job = ActiveJob(kind, "x", "/somebody/else")
    found = diagnose(world).diagnosis
    (finding,) = found.findings
    assert (finding.code, finding.weight) == (Code.NO_BACKUP, Weight.NOTE)
    with pytest.raises(Busy) as caught:
        world.backup()
    assert finding.what == str(caught.value)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_job_that_the_next_backup_ends_hinders_none(world: EngineWorld, *, damaged: bool) -> None:
    world.backup()
    world.backup_killed_at("copy")
    if damaged:
        (mark,) = world.path.glob("*/*/*.attempt.json")
        mark.write_bytes(mark.read_bytes()[:20])
    codes = {finding.code for finding in diagnose(world).diagnosis.findings}
    assert Code.NO_BACKUP not in codes
    world.backup()


def test_a_crash_of_the_host_is_told_though_it_is_not_noted_how_the_vm_was_seen(
    world: EngineWorld,
) -> None:
    world.backup()
    world.backup_killed_at("copy")
    (seen,) = world.path.glob("*/seen.json")
    seen.unlink()
    world.host = replace(world.host, boot_id="another")
    world.vm.kill()
    world.vm.start()
    found = diagnose(world).diagnosis
    assert found.facts.since is Since.WENT_DOWN_HARD
    assert StepKind.REREAD in [step.kind for step in plan_repair(found).steps]


def test_nobody_else_may_be_at_the_folder(world: EngineWorld) -> None:
    world.backup()
    with world.open().lock(), pytest.raises(Busy):
        repair(world)


def test_a_vm_that_nobody_knows_is_not_found(world: EngineWorld) -> None:
    world.backup()
    with pytest.raises(VmNotFound):
        Repair(world.tools(), world.store).run("another")


def test_all_vms_are_diagnosed_those_that_are_gone_as_well(world: EngineWorld) -> None:
    world.backup()
    gone = world.vm.uuid
    del world.hypervisor.machines[gone]
    world.hypervisor.add("another")
    found = list(Diagnoser(world.tools().sight, world.store).all())
    health = {each.diagnosis.facts.name: each.diagnosis.health for each in found}
    assert health == {"another": Health.NONE, world.name: Health.GOOD}


def test_a_vm_that_is_off_and_unchanged_has_nothing_to_do(world: EngineWorld) -> None:
    world.vm.state = PowerState.OFF
    world.backup()
    found = diagnose(world)
    assert found.current is not None
    assert found.diagnosis.facts.current.endswith("/000000")
    assert plan_repair(found.diagnosis).steps == ()


def test_what_hinders_the_next_backup_is_a_finding_and_no_error(world: EngineWorld) -> None:
    world.backup()
    world.vm.state = PowerState.SHUTTING_DOWN
    found = diagnose(world)
    assert isinstance(found.error, Busy)
    (finding,) = found.diagnosis.findings
    assert finding.code is Code.NO_BACKUP
    assert "shutting down" in finding.what
    assert found.diagnosis.health is Health.GOOD


def test_a_vm_with_which_all_goes_wrong_spares_the_others(world: EngineWorld) -> None:
    world.backup()
    world.hypervisor.add("another")
    (document,) = world.path.glob("*/*/chain.json")
    document.write_text(document.read_text().replace('"format": 1', '"format": 2'))
    found = {d.diagnosis.facts.name: d for d in Diagnoser(world.tools().sight, world.store).all()}
    assert found["another"].error is None
    assert isinstance(found[world.name].error, UnsupportedFormat)
    (finding,) = found[world.name].diagnosis.findings
    assert finding.weight is Weight.PERSON


class Unreadable(LocalStore):
    """Cannot read the backups of some VMs, or of all."""

    def __init__(self, world: EngineWorld, *uuids: str, listed: bool = True) -> None:
        super().__init__(world.path, "id", Qcow2Writer, digest_file)
        self._uuids, self._listed = uuids, listed

    def vms(self) -> tuple[StoredVm, ...]:
        if not self._listed:
            raise StoreFailed(str(self.path), "Input/output error")
        return super().vms()

    def chains(self, vm_uuid: str) -> tuple[Chain, ...]:
        if vm_uuid in self._uuids:
            raise StoreFailed(str(self.path), "Stale file handle")
        return super().chains(vm_uuid)


def every(world: EngineWorld, store: Store | None = None) -> dict[str, Diagnosed]:
    """Diagnose all VMs; what came of them by name."""
    found = Diagnoser(world.tools().sight, store or world.store).all()
    return {each.diagnosis.facts.name: each for each in found}


def test_backups_that_cannot_be_read_are_not_called_none(world: EngineWorld) -> None:
    world.backup()
    world.hypervisor.add("another")
    found = every(world, Unreadable(world, world.vm.uuid))
    assert found["another"].diagnosis.health is Health.NONE
    diagnosis = found[world.name].diagnosis
    assert diagnosis.health is Health.UNKNOWN
    (finding,) = diagnosis.findings
    assert (finding.code, finding.weight) == (Code.OUT_OF_REACH, Weight.PERSON)
    assert "Stale file handle" in finding.what


def test_a_gone_vm_whose_backups_cannot_be_read_spares_the_others(world: EngineWorld) -> None:
    world.backup()
    gone = world.vm.uuid
    del world.hypervisor.machines[gone]
    world.hypervisor.add("another")
    found = every(world, Unreadable(world, gone))
    assert found["another"].diagnosis.health is Health.NONE
    assert found[world.name].diagnosis.health is Health.UNKNOWN
    assert found[world.name].vm is None


def test_a_folder_that_cannot_be_read_at_all_is_told_for_each_vm(world: EngineWorld) -> None:
    world.backup()
    (found,) = every(world, Unreadable(world, world.vm.uuid, listed=False)).values()
    assert found.diagnosis.health is Health.UNKNOWN
    others = every(world, Unreadable(world, listed=False))  # a folder of somebody else fails
    assert others[world.name].diagnosis.health is Health.GOOD
    assert others["?"].diagnosis.health is Health.UNKNOWN
    world.hypervisor.machines.clear()
    with pytest.raises(StoreFailed):
        every(world, Unreadable(world, listed=False))


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("call", ["active_job", "started"])
def test_a_libvirt_that_fails_does_not_make_backups_unknown(
    world: EngineWorld, call: str, transient: bool
) -> None:
    world.backup()
    error = Busy("it", "it is busy") if transient else HypervisorError("ask", 1, "no")
    world.hypervisor.fail[call] = error
    (found,) = every(world).values()
    assert found.error is error
    assert found.diagnosis.health is Health.GOOD
    assert [point.seq for point in found.diagnosis.points] == [0]
    (finding,) = found.diagnosis.findings
    assert finding.code is Code.NO_BACKUP
    assert finding.weight is (Weight.NOTE if transient else Weight.PERSON)


def test_an_index_that_is_damaged_does_not_have_other_disks_offered_for_removal(
    ram_path: Path,
) -> None:
    world = two_disks(ram_path)
    flip(file_of(world, 2, "vdb.index"), -1)
    found = diagnose(world).diagnosis
    assert [(p.disks, bool(p.problem)) for p in found.points] == [
        (("vda", "vdb"), False),
        (("vda", "vdb"), False),
        (("vda",), True),
    ]
    assert StepKind.REMOVE_LOST not in [step.kind for step in plan_repair(found).steps]


@pytest.mark.parametrize("state", [PowerState.RUNNING, PowerState.OFF])
def test_a_damaged_file_beside_the_disks_is_made_good_by_the_next_backup(
    world: EngineWorld, state: PowerState
) -> None:
    world.vm.state = state
    first = world.backup().point
    (path,) = world.path.glob(f"*/*/{first.directory}/domain.xml")
    path.unlink()
    assert diagnose(world).diagnosis.health is Health.REPAIRABLE
    made = world.backup()
    assert not made.unchanged
    assert (made.point.seq, made.point.parent) == (1, 0)
    assert "domain.xml" in made.point.warnings[0]
    assert world.restored(world.chains()[0], 1) == bytes(world.disk.content)
    assert diagnose(world).diagnosis.health is Health.GOOD


def test_a_job_of_a_vm_that_only_this_libvirt_has_switched_off_is_left_alone(
    world: EngineWorld,
) -> None:
    world.backup()
    world.backup_killed_at("copy")
    world.vm.state, job = PowerState.OFF, world.vm.job
    world.vm.job = None
    world.places.used_by = IN_SIGHT
    files, store = set(world.hypervisor.files), sorted(world.path.rglob("*"))
    told = f"this libvirt (fake:///system) has it switched off, but {IN_SIGHT}"
    assert told in diagnose(world).diagnosis.facts.hindrance
    for work in (lambda: repair(world), world.backup):
        with pytest.raises(Busy, match=re.escape(told)):
            work()
    assert (world.hypervisor.files, sorted(world.path.rglob("*"))) == (files, store)
    world.vm.state, world.vm.job = PowerState.RUNNING, job
    exact(world, world.backup())


def test_a_backup_that_ends_during_the_look_is_not_called_interrupted(world: EngineWorld) -> None:
    world.backup()
    world.backup_killed_at("committed")

    class Ending(FakeScratchPlaces):
        def holder(self, nonce: str) -> str:
            for mark in world.path.rglob("*.attempt.json"):
                mark.unlink()
            return super().holder(nonce)

    sight = replace(world.tools().sight, places=Ending(world.hypervisor.files))
    found = Diagnoser(sight, world.open()).diagnose(world.name).diagnosis
    assert not {f.code for f in found.findings} & {Code.INTERRUPTED, Code.UNFINISHED}
    assert [point.seq for point in found.points] == [0, 1]


def test_an_interrupted_backup_whose_mark_is_damaged_is_no_lost_point(world: EngineWorld) -> None:
    world.backup()
    world.backup_killed_at("copy")
    (mark,) = world.path.rglob("*.attempt.json")
    mark.write_bytes(b"{")
    found = diagnose(world).diagnosis
    assert found.lost == ()
    assert Code.UNREADABLE not in {finding.code for finding in found.findings}
    assert results(world).keys() == {0}
    made = world.backup()
    assert made.point.warnings == ()
    (chain,) = world.chains()
    assert world.restored(chain, made.point.seq) == bytes(world.disk.content)
    assert find_point(world.store, world.name, "latest").point == made.point


def rebase(path: Path) -> None:
    """Give an image another backing file, as `qemu-img rebase -u` does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"../000000-full")
    content[at + 3 : at + 9] = b"000009"
    path.write_bytes(content)


def image_of(world: EngineWorld, point: str) -> Path:
    (path,) = world.path.glob(f"*/*/{point}/vda.qcow2")
    return path


@pytest.fixture
def relinked(world: EngineWorld) -> EngineWorld:
    world.backup()
    world.disk.write(0, b"z")
    world.backup()
    rebase(image_of(world, "000001-inc"))
    return world


@pytest.mark.parametrize("verified", [False, True])
def test_a_header_is_put_back_by_a_repair_whether_a_verify_has_noted_it_or_not(
    relinked: EngineWorld, verified: bool
) -> None:
    if verified:
        results(relinked)
        assert list(relinked.path.rglob("*.damage.json"))
    found = diagnose(relinked)
    assert [finding.code for finding in found.diagnosis.findings] == [Code.RELINK]
    assert found.diagnosis.health is Health.REPAIRABLE
    assert not found.diagnosis.lost
    result = repair(relinked)
    assert [step.kind for step in result.done] == [StepKind.RELINK]
    assert result.after.diagnosis.findings == ()
    assert not list(relinked.path.rglob("*.damage.json"))
    assert "is put back" in " ".join(relinked.observer.notes)
    assert all(result.good for result in results(relinked).values())
    made = relinked.backup()
    assert made.point.parent == 1
    exact(relinked, made)


def test_a_backup_puts_a_header_back_by_itself(relinked: EngineWorld) -> None:
    made = relinked.backup()
    assert made.point.parent == 1
    assert made.point.warnings == ()
    exact(relinked, made)
    assert all(result.good for result in results(relinked).values())


def test_where_more_than_the_header_is_wrong_it_is_tried_once_and_noted(
    relinked: EngineWorld,
) -> None:
    path = image_of(relinked, "000001-inc")
    content = bytearray(path.read_bytes())
    content[70000] ^= 1
    path.write_bytes(content)
    result = repair(relinked)
    assert path.read_bytes() == content
    assert (result.done, result.left) == ((), ())
    assert [step.kind for step in result.failed] == [StepKind.RELINK]
    assert [finding.code for finding in result.after.diagnosis.findings] == [Code.DAMAGED]
    relinked.observer.steps.clear()
    made = relinked.backup()
    assert not [step for step in relinked.observer.steps if step.startswith("check ")]
    assert made.point.parent == 0
    (warning,) = made.point.warnings
    assert "000001 cannot be restored as a whole any more: vda.qcow2: it builds on" in warning


def test_a_header_that_is_put_back_is_done_although_another_one_of_the_point_is_not(
    world: EngineWorld,
) -> None:
    world.vm.disks["vdb"] = FakeDisk("vdb", path="/vm/b.qcow2")
    for disk in world.vm.disks.values():
        disk.write(0, b"a")
    world.backup()
    for disk in world.vm.disks.values():
        disk.write(0, b"z")
    world.backup()
    first, second = sorted(world.path.glob("*/*/000001-inc/*.qcow2"))
    rebase(first)
    rebase(second)
    content = bytearray(second.read_bytes())
    content[70000] ^= 1
    second.write_bytes(content)
    result = repair(world)
    assert [f"000001/{first.name}" in step.what for step in result.done] == [True]
    assert [f"000001/{second.name}" in step.what for step in result.failed] == [True]


def test_the_folder_of_a_point_that_has_its_name_back_is_done(relinked: EngineWorld) -> None:
    folder = image_of(relinked, "000001-inc").parent
    folder.rename(folder.with_name("my copy"))
    result = repair(relinked)
    assert {step.kind for step in result.done} == {StepKind.RELINK, StepKind.RENAME}
    assert (result.left, result.failed) == ((), ())
    assert folder.is_dir()


@pytest.mark.parametrize("state", [PowerState.RUNNING, PowerState.OFF])
def test_after_a_crash_the_newest_point_is_to_be_read_again_and_then_is(
    world: EngineWorld, state: PowerState
) -> None:
    world.vm.state = PowerState.RUNNING
    world.backup()
    world.backup_killed_at("copy")
    world.host = replace(world.host, boot_id="another")
    world.vm.kill()
    if state is PowerState.RUNNING:
        world.vm.start()
    found = diagnose(world).diagnosis
    assert Code.HOST in {finding.code for finding in found.findings}
    assert StepKind.REREAD in [step.kind for step in plan_repair(found).steps]
    world.observer.steps.clear()
    world.backup()
    assert [step for step in world.observer.steps if step.startswith("check ")]
    assert diagnose(world).diagnosis.findings == ()


@pytest.fixture
def lossy(world: EngineWorld) -> EngineWorld:
    """Of four points the second is damaged; the last one builds on the first."""
    for number in range(3):
        world.disk.write(0, bytes([number + 1]))
        world.backup()
    image_of(world, "000001-inc").unlink()
    world.backup()
    return world


def seqs(world: EngineWorld) -> list[int]:
    return [point.seq for point in world.points()]


def test_lost_points_are_removed_if_somebody_says_so(lossy: EngineWorld) -> None:
    assert seqs(lossy) == [0, 1, 2, 3]
    assert repair(lossy).done == ()
    assert seqs(lossy) == [0, 1, 2, 3]
    result = Repair(lossy.tools(), lossy.store).run(lossy.name, RepairPolicy(remove_lost=True))
    assert [step.kind for step in result.done] == [StepKind.REMOVE_LOST]
    assert seqs(lossy) == [0, 3]
    assert result.after.diagnosis.findings == ()
    exact(lossy, lossy.backup())


def test_what_comes_back_while_a_repair_is_at_work_is_not_removed(lossy: EngineWorld) -> None:
    image = image_of(lossy, "000002-inc").parent.with_name("000001-inc") / "vda.qcow2"
    size = lossy.chains()[0].points[1].point.disks[0].file_size

    def bring_back() -> None:
        image.write_bytes(bytes(size))

    lossy.observer.at["mend"] = bring_back
    Repair(lossy.tools(), lossy.store).run(lossy.name, RepairPolicy(remove_lost=True))
    assert seqs(lossy) == [0, 1, 2, 3]


@pytest.mark.parametrize("file", ["vda.qcow2", "vda.index"])
def test_what_a_verify_found_may_still_be_had_and_is_not_removed(
    world: EngineWorld, file: str, ram_path: Path
) -> None:
    world.backup()
    flip(file_of(world, 0, file), 50_000 if file == "vda.qcow2" else -1)
    assert not results(world)[0].good
    assert diagnose(world).diagnosis.health is Health.LOST
    Repair(world.tools(), world.store).run(world.name, RepairPolicy(remove_lost=True))
    (chain,) = world.chains()
    assert world.restored(chain, 0) == bytes(world.disk.content)  # as qemu-img does, by hand
    if file == "vda.qcow2":  # no block is wrong
        tools, place = world.read_tools(FakeImageTool()), EmptyDirectory(ram_path / "to")
        Restore(world.store, tools, FileImages(), place).run(world.name, "latest", ())


def test_a_removal_that_was_interrupted_is_told_and_finished(lossy: EngineWorld) -> None:
    (chain,) = lossy.chains()
    for _ in each_kill(lambda: lossy.open().remove_points(lossy.vm.uuid, chain, (1, 2))):
        if any(not removal.done for removal in lossy.chains()[0].removals):
            break
    found = diagnose(lossy)
    assert Code.REMOVAL in {finding.code for finding in found.diagnosis.findings}
    assert StepKind.REMOVE in planned(found)
    assert StepKind.REMOVE in [step.kind for step in repair(lossy).done]
    assert lossy.chains()[0].removals == ()
    assert seqs(lossy) == [0, 1, 3]
    made = lossy.backup()
    assert lossy.restored(lossy.chains()[0], made.point.seq) == bytes(lossy.disk.content)


def test_a_glance_finds_what_the_folder_and_libvirt_tell_and_opens_no_image(
    world: EngineWorld,
) -> None:
    world.backup_killed_at("copy")
    world.hypervisor.fail["disk_states"] = HypervisorError("Asking", 1, "it is asked")
    world.hypervisor.fail["vm"] = HypervisorError("Asking", 1, "it is asked")
    diagnoser = Diagnoser(world.tools().sight, world.open())
    found = diagnoser.diagnose(world.name, planned=False).diagnosis
    assert Code.INTERRUPTED in {finding.code for finding in found.findings}
    assert found.facts.next is None
    (same,) = diagnoser.all(planned=False)
    assert same.diagnosis == found
