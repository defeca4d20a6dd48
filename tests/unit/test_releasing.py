"""Jobs that give VMs back: first nothing new is to begin, then what is there is removed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import FakeApp
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.disk import FakeBitmap
from tests.support.fakes.observer import RecordingObserver
from tests.support.fakes.store_place import FakeStorePlace
from tests.support.settings import STORE, configured
from vm_babysitter.domain.errors import HypervisorError, ImageRefused, StoreRefused
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Outcome, Result
from vm_babysitter.engine.app import App
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.releasing import Releasing
from vm_babysitter.service.store_guard import StoreGuard
from vm_babysitter.service.works import Works

AWAY = StoreRefused("/mnt/user/backups", "it does not exist")
NO_LIBVIRT = HypervisorError("Switching autostart on", 38, "it went wrong")


class Stage:
    """A VM in memory that was backed up, and the settings."""

    def __init__(self, path: Path) -> None:
        (path / "store").mkdir()
        self.world = EngineWorld(path / "store")
        self.world.backup()
        self.app = FakeApp(self.world)
        self.file = path / "settings.json"
        self.observer = RecordingObserver()
        self.given: list[str] = []
        self.no_flag: Exception | None = None
        self.uuid = self.world.vm.uuid
        self.name = self.world.vm.name

    def release(self, configuration: Configuration, **options: Any) -> Outcome:
        work = Releasing(lambda *_: cast(App, self.app), configuration, self._give_back)
        return work.release(self.job(JobKind.RELEASE, **options), self.observer, Cancel())

    def job(self, kind: JobKind, origin: Origin = Origin.USER, **options: Any) -> Job:
        request = JobRequest(kind, self.uuid, self.name, options, origin)
        return Job(1, request, JobState.RUNNING, self.world.clock.now())

    def settings(self, **vms: Any) -> Configuration:
        return configured(self.file, store={"path": STORE}, vms=vms)

    def vms(self) -> dict[str, Any]:
        """The section `vms` as the file has it."""
        return cast(dict[str, Any], json.loads(self.file.read_text())["vms"])

    def _give_back(self, uuid: str) -> None:
        assert any(name.startswith("vmb-") for name in self.world.bitmaps())  # it comes first
        self.given.append(uuid)
        if self.no_flag is not None:
            raise self.no_flag


@pytest.fixture
def stage(ram_path: Path) -> Stage:
    return Stage(ram_path)


def test_it_is_left_alone_given_back_and_cleared(stage: Stage) -> None:
    outcome = stage.release(stage.settings())
    assert outcome == Outcome(
        Result.OK, "Change tracking was removed from vda. Its restore points stay."
    )
    assert stage.vms() == {"ignored": [stage.uuid]}
    assert stage.given == [stage.uuid]
    assert stage.world.bitmaps() == set()
    assert len(stage.world.points()) == 1


def test_again_nothing_is_left_to_do(stage: Stage) -> None:
    configuration = stage.settings()
    stage.release(configuration)
    before = stage.file.stat().st_mtime_ns
    stage.world.disk.layers[0].bitmaps["vmb-12345678-000000-abcdef"] = FakeBitmap()
    outcome = stage.release(configuration)
    assert (outcome.result, outcome.summary) == (
        Result.OK,
        "No change tracking was there. Its restore points stay.",
    )
    assert "another backup folder" in stage.observer.notes[-1]
    assert stage.file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "vms",
    [
        {"ignored": ["it's a VM"]},
        {"ignored": ["lab"], "groups": {"lab": ["it's a VM"]}},
        {"mode": "chosen", "chosen": []},
        {"mode": "chosen", "chosen": ["another"]},
    ],
)
def test_settings_that_leave_it_alone_anyway_stay(stage: Stage, vms: dict[str, Any]) -> None:
    stage.release(stage.settings(**vms))
    assert stage.vms() == vms
    assert stage.world.bitmaps() == set()


def test_one_that_was_chosen_is_ignored(stage: Stage) -> None:
    stage.release(stage.settings(mode="chosen", chosen=["lab"], groups={"lab": [stage.name]}))
    assert stage.vms()["ignored"] == [stage.uuid]


def test_ignored_vms_that_somebody_adds_meanwhile_are_kept(stage: Stage) -> None:
    configuration = stage.settings()
    old = json.loads(stage.file.read_text())
    stage.file.write_text(json.dumps({**old, "vms": {"ignored": ["another"]}}))
    stage.release(configuration)
    assert stage.vms()["ignored"] == ["another", stage.uuid]


def test_settings_that_are_wrong_are_told_and_the_rest_is_done(stage: Stage) -> None:
    configuration = stage.settings()
    stage.file.write_text("{")
    outcome = stage.release(configuration)
    assert outcome.result is Result.WARNINGS
    assert "settings" in outcome.warnings[0]
    assert stage.file.read_text() == "{"
    assert stage.world.bitmaps() == set()


def test_settings_that_take_no_more_names(stage: Stage) -> None:
    outcome = stage.release(stage.settings(ignored=[f"vm {n}" for n in range(1000)]))
    assert outcome.result is Result.WARNINGS
    assert "it cannot be noted that" in outcome.warnings[0]


def test_a_flag_that_cannot_be_given_back_is_told_and_the_rest_is_done(stage: Stage) -> None:
    stage.no_flag = NO_LIBVIRT
    outcome = stage.release(stage.settings())
    assert outcome.result is Result.WARNINGS
    assert outcome.warnings == (str(NO_LIBVIRT),)
    assert stage.world.bitmaps() == set()


def test_what_is_left_is_a_warning(stage: Stage) -> None:
    stage.world.vm.stop()
    stage.world.offline_bitmaps.fail["remove"] = ImageRefused("/vms/x", "it lies behind FUSE")
    outcome = stage.release(stage.settings())
    assert outcome.result is Result.WARNINGS
    assert outcome.summary == "No change tracking was removed. Its restore points stay."
    assert outcome.warnings[0].startswith("Disk vda: ")


def test_a_backup_folder_that_is_away(stage: Stage) -> None:
    stage.app.no_store = AWAY
    with pytest.raises(StoreRefused):
        stage.release(stage.settings())
    assert stage.vms()["ignored"] == [stage.uuid]  # nothing new begins all the same
    outcome = stage.release(stage.settings(), any_folder=True)
    assert outcome.result is Result.OK
    assert stage.world.bitmaps() == set()


def test_a_vm_that_is_gone(stage: Stage) -> None:
    stage.world.hypervisor.machines.clear()
    stage.name = "it's a VM"
    stage.world.disk.layers[0].bitmaps.clear()
    outcome = _gone(stage)
    assert outcome.result is Result.OK
    assert "no such VM any more" in stage.observer.notes[0]
    stage.uuid = "00000000-0000-4000-8000-000000000000"
    assert _gone(stage).result is Result.NOTHING


def _gone(stage: Stage) -> Outcome:
    work = Releasing(lambda *_: cast(App, stage.app), stage.settings(), lambda _: None)
    return work.release(stage.job(JobKind.RELEASE), stage.observer, Cancel())


@pytest.mark.parametrize("origin", [Origin.SCHEDULE, Origin.RETRY])
@pytest.mark.parametrize(
    "change",
    [lambda uuid: {"ignored": [uuid]}, lambda _: {"mode": "chosen"}],
    ids=["ignored", "not chosen"],
)
def test_a_backup_that_was_queued_before_is_not_made_any_more(
    stage: Stage, origin: Origin, change: Callable[[str], dict[str, Any]]
) -> None:
    configuration = stage.settings(**change(stage.uuid))
    place = FakeStorePlace()
    guard = StoreGuard(configuration, place.find, place.room, FakeClock())
    works = Works(lambda *_: cast(App, stage.app), configuration, guard, lambda *_: None)
    outcome = works.backup(stage.job(JobKind.BACKUP, origin), stage.observer, Cancel())
    assert outcome == Outcome(Result.NOTHING, "It is not backed up by itself any more.")
    outcome = works.backup(stage.job(JobKind.BACKUP), stage.observer, Cancel())
    assert outcome.result is Result.OK  # who asks for it gets it
