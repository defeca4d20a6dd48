"""What jobs do, and what is said of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import FakeApp
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.observer import RecordingObserver
from tests.support.fakes.store_place import MARKED, FakeStorePlace
from tests.support.settings import STORE, configured
from vm_babysitter.domain.errors import CommandFailed, VmNotFound
from vm_babysitter.domain.event import NOTHING_LEFT
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Outcome, Result
from vm_babysitter.engine.app import App, Effort
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.restore import Restored
from vm_babysitter.engine.verify import Verified
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.service.works import Works


@dataclass
class Stage:
    """Works around a VM in memory."""

    path: Path
    world: EngineWorld
    sections: dict[str, Any] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    ran: list[Mapping[str, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    observer: RecordingObserver = field(default_factory=RecordingObserver)

    def __post_init__(self) -> None:
        self.app = FakeApp(self.world)
        self.place = FakeStorePlace()
        self.settings = self.path / "settings.json"

    def do(self, kind: JobKind, origin: Origin = Origin.USER, **options: Any) -> Outcome:
        """Do a job with the settings as they are."""
        configuration = configured(self.settings, store={"path": STORE}, **self.sections)
        guard = StoreGuard(configuration, self.place.find, self.place.room, FakeClock())
        self.configuration = configuration
        works = Works(lambda *_: cast(App, self.app), configuration, guard, self._run)
        request = JobRequest(kind, self.world.vm.uuid, self.world.vm.name, options, origin)
        job = Job(1, request, JobState.RUNNING, self.world.clock.now())
        return works.all()[kind](job, self.observer, Cancel())

    def _run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        seconds: float,
        check: Callable[[], None],
    ) -> None:
        check()
        self.seconds.append(seconds)
        self.ran.append(environment)
        if argv[0] in self.failing:
            raise CommandFailed(argv[0], 1, "no such database")


@pytest.fixture
def stage(ram_path: Path) -> Stage:
    folder = ram_path / "store"
    folder.mkdir()
    return Stage(ram_path, EngineWorld(folder))


def hooks(on_failure: str = "warn") -> dict[str, Any]:
    return {when: {"argv": [f"/{when}"], "on_failure": on_failure} for when in ("before", "after")}


def test_a_backup_says_what_it_made_and_notes_where(stage: Stage) -> None:
    outcome = stage.do(JobKind.BACKUP)
    assert outcome.result is Result.OK
    assert outcome.summary.startswith(f"Restore point {outcome.point} is complete: full backup, ")
    assert stage.configuration.settings.store.id == MARKED.id
    again = stage.do(JobKind.BACKUP)
    assert "increment" in again.summary
    assert again.point.endswith("/000001")


def test_a_committed_point_counts_whatever_cannot_be_noted(stage: Stage) -> None:
    def gone() -> None:
        stage.settings.unlink()
        stage.settings.mkdir()

    stage.world.observer.at["commit"] = gone
    assert stage.do(JobKind.BACKUP).result is Result.OK
    assert stage.settings.is_dir()


def test_options_of_a_job_come_before_the_settings(stage: Stage) -> None:
    stage.sections = {"backup": {"limit": "50 MiB", "compress": True, "low_priority": False}}
    stage.do(JobKind.BACKUP)
    outcome = stage.do(JobKind.BACKUP, limit=1 << 30, compress=False, full=True, low_priority=True)
    assert stage.app.efforts == [Effort(50 << 20, low_priority=False), Effort(1 << 30)]
    assert stage.app.compress == [True, False]
    assert "full backup" in outcome.summary


def test_what_is_said_of_one_vm_holds_for_it(stage: Stage) -> None:
    stage.sections = {
        "backup": {"limit": "50 MiB"},
        "per_vm": {stage.world.vm.name: {"backup": {"limit": "1 MiB"}}},
    }
    stage.do(JobKind.BACKUP)
    assert stage.app.efforts == [Effort(1 << 20)]


def test_commands_around_a_backup(stage: Stage) -> None:
    stage.sections = {"hooks": hooks()}
    stage.sections["hooks"]["after"]["timeout"] = 7
    outcome = stage.do(JobKind.BACKUP)
    assert stage.seconds == [60.0, 7.0]
    before, after = stage.ran
    assert before == {
        "VMB_VM": stage.world.vm.name, "VMB_UUID": stage.world.vm.uuid, "VMB_WHEN": "before"
    }  # fmt: skip
    assert (after["VMB_RESULT"], after["VMB_POINT"]) == ("ok", outcome.point)


def test_a_command_that_fails_is_a_warning_or_ends_the_job(stage: Stage) -> None:
    stage.sections, stage.failing = {"hooks": hooks()}, {"/before"}
    outcome = stage.do(JobKind.BACKUP)
    assert outcome.result is Result.WARNINGS
    assert "no such database" in outcome.warnings[-1]
    stage.sections = {"hooks": hooks("stop")}
    with pytest.raises(CommandFailed):
        stage.do(JobKind.BACKUP)
    assert stage.ran[-1]["VMB_RESULT"] == "failed"
    assert len(stage.world.store.chains(stage.world.vm.uuid)[0].points) == 1


def test_an_unchanged_vm_that_is_off_is_nothing_to_do(stage: Stage) -> None:
    stage.world.vm.stop()
    stage.do(JobKind.BACKUP)
    outcome = stage.do(JobKind.BACKUP)
    assert (outcome.result, outcome.point) == (Result.NOTHING, stage.do(JobKind.BACKUP).point)
    assert "has not changed" in outcome.summary


def test_a_vm_that_is_gone_is_an_error_only_to_who_asked(stage: Stage) -> None:
    stage.world.hypervisor.machines.clear()
    with pytest.raises(VmNotFound):
        stage.do(JobKind.BACKUP)
    outcome = stage.do(JobKind.BACKUP, Origin.SCHEDULE)
    assert (outcome.result, outcome.warnings) == (Result.NOTHING, ())


def test_verify_says_what_is_damaged(stage: Stage) -> None:
    good = Verified("c/000000", (), content=True)
    bad = Verified("c/000001", ("vda: block 7",), content=True)
    stage.app.answers.verified = (good,)
    assert stage.do(JobKind.VERIFY).summary == "1 restore point good: data correct."
    stage.app.answers.verified = (good, bad)
    outcome = stage.do(JobKind.VERIFY, structure=True)
    assert (outcome.result, outcome.point) == (Result.FAILED, "c/000001")
    assert outcome.summary == "1 of 2 restore points are damaged: c/000001."
    assert outcome.warnings == ("c/000001: vda: block 7",)
    stage.do(JobKind.VERIFY, point="latest")
    uuid = stage.world.vm.uuid
    assert stage.app.answers.asked == [(uuid, False), (uuid, True), (uuid, "latest", False)]


def test_nothing_to_verify(stage: Stage) -> None:
    assert stage.do(JobKind.VERIFY).result is Result.NOTHING


def test_repair(stage: Stage) -> None:
    stage.do(JobKind.BACKUP)
    assert stage.do(JobKind.REPAIR).result is Result.NOTHING


def test_a_repair_that_finds_nothing_to_restore_says_what_to_do(stage: Stage) -> None:
    stage.do(JobKind.BACKUP)
    for image in stage.world.path.glob("*/*/*/vda.qcow2"):
        image.unlink()
    outcome = stage.do(JobKind.REPAIR)
    assert (outcome.result, outcome.code) == (Result.WARNINGS, NOTHING_LEFT)
    assert "Back up now" in outcome.hint


def test_restore(stage: Stage) -> None:
    stage.app.answers.restored = Restored(
        "c/000001", (Path("/r/vda.qcow2"),), 1 << 20, ("TPM state is beside",)
    )
    outcome = stage.do(JobKind.RESTORE, to="/r", point="latest", disks=["vda"], format="raw")
    assert (outcome.result, outcome.point) == (Result.OK, "c/000001")
    assert "/r/vda.qcow2" in outcome.summary
    assert stage.observer.notes == ["TPM state is beside."]
    assert stage.app.answers.asked == [(stage.world.vm.uuid, "latest", ("vda",), "raw")]
    assert stage.app.to == [Path("/r")]


@pytest.mark.parametrize(("undo", "kind"), [(False, "qcow2"), (True, "raw")])
def test_convert(stage: Stage, undo: bool, kind: str) -> None:
    outcome = stage.do(JobKind.CONVERT, disk="vda", undo=undo, lose_changes=undo)
    assert outcome.summary.startswith(f"Disk vda is {kind} now: ")
    lose = True if undo else None
    assert stage.app.converting.asked == [(stage.world.vm.uuid, "vda", lose)]


def test_an_option_that_nobody_has_checked_is_a_mistake_of_ours(stage: Stage) -> None:
    with pytest.raises(TypeError):
        stage.do(JobKind.BACKUP, full="yes")
