"""The daemon goes on whatever its world does."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.daemon_stage import DaemonStage
from tests.support.fakes.feed import GONE
from tests.support.fakes.store_place import GIB, MARKED, NOTHING
from tests.support.jobs import eventually, job
from tests.support.settings import STORE
from vm_babysitter.api.app import create_app
from vm_babysitter.domain.errors import Damaged
from vm_babysitter.domain.event import Severity
from vm_babysitter.domain.findings import Code, Finding, Weight
from vm_babysitter.domain.host_state import HostState
from vm_babysitter.domain.job import JobKind, JobRequest, JobState, Origin
from vm_babysitter.ports import HostZone

DAY = 86400.0
SET_UP = {"store": {"path": STORE}}
Make = Callable[..., DaemonStage]


@pytest.fixture
def make(ram_path: Path) -> Iterator[Make]:
    made: list[DaemonStage] = []

    def new(**sections: Any) -> DaemonStage:
        made.append(DaemonStage(ram_path, sections or SET_UP))
        return made[-1]

    yield new
    for stage in made:
        stage.libvirt.answers.set()
        for going in list(stage.works.running.values()):
            going.deaf = False
        stage.daemon.stop(10.0)


@pytest.fixture
def stage(make: Make) -> DaemonStage:
    return make()


def test_what_is_due_is_done(stage: DaemonStage) -> None:
    daemon = stage.start()
    assert daemon.ready
    assert list(daemon.scheduler.next_runs()) == ["daily backup"]
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    (running,) = daemon.runner.running()
    assert (running.request.origin, running.request.schedule) == (Origin.SCHEDULE, "daily backup")
    stage.works.end("house")
    eventually(lambda: daemon.recent.of(stage.uuid))
    assert stage.told() == []


def test_nothing_is_begun_as_long_as_nothing_is_set_up(make: Make) -> None:
    stage = make(store={"path": ""})
    daemon = stage.start()
    stage.looked()
    stage.pass_seconds(DAY)
    assert daemon.runner.queued() == []
    assert (stage.told(), daemon.diagnoses.problem, stage.timer.failures) == ([], "", [])


def test_what_is_due_before_libvirt_was_seen_is_begun_once_it_is(stage: DaemonStage) -> None:
    stage.libvirt.absent = GONE
    daemon = stage.start()
    stage.pass_seconds(DAY)
    assert stage.timer.failures == []  # it is no error: it is tried again
    assert daemon.runner.queued() == []
    stage.libvirt.absent = None
    eventually(lambda: not daemon.watch.now().trouble)
    stage.pass_seconds(60)
    stage.works.wait_for("house")


def test_what_is_due_while_libvirt_is_away_waits_for_it(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.libvirt.absent = GONE
    stage.libvirt.end()
    eventually(lambda: daemon.watch.now().trouble)
    stage.pass_seconds(DAY)
    stage.waiting("it is not there")
    stage.libvirt.absent = None
    eventually(lambda: not daemon.watch.now().trouble)
    daemon.runner.wake()
    stage.works.wait_for("house")


def test_a_broken_file_of_settings_is_told_once_and_corrected_while_it_runs(
    stage: DaemonStage,
) -> None:
    stage.journal.note_run("nightly", stage.clock.now() - timedelta(days=2))
    stage.file.write_text("{")
    daemon = stage.start()
    stage.pass_seconds(DAY)
    assert daemon.scheduler.next_runs() == {}  # none that nobody has asked for
    assert daemon.runner.queued() == []
    assert stage.told() == ["settings-wrong"]
    assert stage.listener.events[0].severity is Severity.ALERT
    status = stage.services.status()
    assert (status.fine, status.sentence) == (False, "The settings cannot be used.")
    assert status.vms
    assert {vm.words for vm in status.vms} == {"not looked at yet"}  # not: no backup yet
    with pytest.raises(Damaged):
        stage.services.submit(JobKind.BACKUP, "house", {})
    schedules = [{"name": "nightly", "when": "@daily"}]
    stage.write(**SET_UP, schedules=schedules)
    stage.works.wait_for("house")  # what was missed meanwhile is made up for
    assert daemon.configuration.problem is None
    assert stage.told() == ["settings-wrong", "settings-right", "schedule-missed"]


def test_schedules_go_on_as_they_were_while_the_file_is_broken(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.file.write_text("{")
    stage.pass_seconds(DAY)
    stage.waiting("the settings to be corrected")
    stage.write(**SET_UP)
    stage.works.wait_for("house")
    assert list(daemon.scheduler.next_runs()) == ["daily backup"]


def test_settings_have_their_effect(stage: DaemonStage) -> None:
    daemon = stage.start()
    schedule = {"name": "proof", "when": "0 5 * * *", "kind": "verify"}
    stage.write(**SET_UP, schedules=[schedule], backup={"parallel": 3}, log={"job_days": 7})
    assert daemon.runner.limits.parallel == 3
    assert list(daemon.scheduler.next_runs()) == ["proof"]
    stage.pass_seconds(3600)
    assert stage.clock.now() - stage.pruned[-1] >= timedelta(days=7)
    assert stage.clock.now() - stage.pruned[-1] < timedelta(days=7, hours=1)


def test_a_folder_named_while_a_job_runs_is_that_of_later_jobs(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    stage.place.found = NOTHING
    stage.write(store={"path": "/elsewhere"})
    stage.works.end("house")
    eventually(lambda: daemon.recent.of(stage.uuid))
    assert daemon.recent.of(stage.uuid).last.state is JobState.DONE  # type: ignore[union-attr]
    stage.pass_seconds(DAY)
    stage.waiting("'/elsewhere' is not there")


def test_a_full_folder_is_told_once_and_backups_go_on_when_there_is_room(
    stage: DaemonStage,
) -> None:
    daemon = stage.start()
    stage.place.free = GIB
    stage.pass_seconds(DAY)
    stage.waiting("10 GiB have to be free")
    for _ in range(3):
        stage.pass_seconds(DAY)
    stage.waiting("10 GiB have to be free")
    assert stage.told() == ["store-full", "vm-stale"]
    assert "is full" in stage.services.status().todo[0].what
    stage.place.free = 500 * GIB
    daemon.runner.wake()
    stage.works.wait_for("house")
    assert stage.guard.troubles() == ()


def test_a_folder_that_is_away_is_told_once_and_what_is_known_stays(stage: DaemonStage) -> None:
    stage.back_up()
    daemon = stage.start()
    stage.looked()
    stage.place.found = NOTHING
    stage.pass_seconds(DAY)
    stage.waiting("is not there")
    daemon.diagnoses.look()
    eventually(lambda: daemon.diagnoses.problem)
    assert stage.told() == ["store-away"]
    known = daemon.diagnoses.of(stage.uuid)
    assert known is not None
    assert known.found.newest is not None
    todo = [each.what for each in stage.services.status().todo]
    assert todo == [f"Backups wait: the backup folder '{STORE}' is not there."]
    stage.place.found = MARKED
    daemon.store_watch.look()
    daemon.runner.wake()
    stage.works.wait_for("house")
    eventually(lambda: not daemon.diagnoses.problem)


def test_a_lost_journal_is_made_up_from_the_backups_once_they_can_be_read(
    stage: DaemonStage,
) -> None:
    stage.back_up()
    stage.journal.words = "it was damaged"
    stage.place.found = NOTHING
    daemon = stage.start()
    assert daemon.ready
    stage.place.found = MARKED
    daemon.store_watch.look()
    eventually(lambda: daemon.recent.of(stage.uuid))
    assert stage.journal.words == ""
    well = "All is well: house was backed up "
    eventually(lambda: stage.services.status().sentence.startswith(well))


def test_a_backup_folder_that_hangs_does_not_hold_up_the_start(stage: DaemonStage) -> None:
    stage.journal.words = "it was damaged"
    held = stage.libvirt.answers  # any event does
    find = stage.place.find

    def hangs(path: Path) -> Any:
        held.wait(30)
        return find(path)

    stage.guard._find = hangs
    held.clear()
    stage.daemon.start()
    assert stage.daemon.ready
    held.set()


def test_changes_of_vms_are_told_once(stage: DaemonStage) -> None:
    stage.start()
    (house,) = stage.libvirt.vms
    stage.libvirt.vms = (house, replace(house, uuid="u2", name="barn"))
    stage.libvirt.wake()
    eventually(lambda: stage.told() == ["vm-appeared"])
    stage.libvirt.vms = (replace(house, name="home"),)
    stage.libvirt.wake()
    eventually(lambda: len(stage.told()) == 3)
    assert sorted(stage.told()[1:]) == ["vm-gone", "vm-renamed"]
    stage.libvirt.absent = GONE
    stage.libvirt.end()
    stage.libvirt.absent = None
    eventually(lambda: stage.libvirt.opened > 1 and not stage.daemon.watch.now().trouble)
    assert len(stage.told()) == 3


def test_what_became_of_a_vm_that_libvirt_tells_of_later_is_known(stage: DaemonStage) -> None:
    (house,) = stage.libvirt.vms
    stage.libvirt.vms = ()
    done = job(7, JobState.DONE, request=JobRequest(JobKind.BACKUP, house.uuid, "house"))
    stage.journal.update(done)
    stage.start()
    stage.libvirt.vms = (house,)
    stage.libvirt.wake()
    eventually(lambda: stage.daemon.recent.of(house.uuid))


def test_vms_that_are_there_are_noted_when_new_ones_are_not_wanted(make: Make) -> None:
    stage = make(**SET_UP, vms={"include_new": False})
    daemon = stage.start()
    eventually(lambda: daemon.configuration.settings.vms.seen == (stage.uuid,))
    (house,) = stage.libvirt.vms
    stage.libvirt.vms = (house, replace(house, uuid="u2", name="barn"))
    stage.libvirt.wake()
    eventually(lambda: stage.told() == ["vm-appeared"])
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    assert daemon.runner.queued() == []
    stage.write(**SET_UP)
    assert daemon.configuration.settings.vms.seen is None


def test_what_a_killed_process_left_is_repaired_once(stage: DaemonStage) -> None:
    stage.findings = (Finding(Code.INTERRUPTED, Weight.NOTE, "a backup was interrupted"),)
    daemon = stage.start()
    stage.works.wait_for("house")
    (running,) = daemon.runner.running()
    assert running.request.kind is JobKind.REPAIR
    stage.works.end("house")
    eventually(lambda: not daemon.runner.running())
    daemon.diagnoses.look()
    assert daemon.diagnoses.wait_idle(10)
    assert daemon.runner.queued() == daemon.runner.running() == []
    stage.findings = ()
    daemon.diagnoses.look()
    assert daemon.diagnoses.wait_idle(10)
    stage.findings = (Finding(Code.STUCK, Weight.NOTE, "a job is stuck"),)
    daemon.diagnoses.look()
    stage.works.wait_for("house")


@pytest.mark.parametrize("error", [GONE, ValueError("odd")])
def test_thawing_that_fails_does_not_end_what_comes_after(
    stage: DaemonStage, error: Exception
) -> None:
    stage.thaw_error = error
    stage.start()
    stage.looked()
    assert stage.daemon.diagnoses.of(stage.uuid) is not None


def test_another_time_zone_is_noticed(stage: DaemonStage) -> None:
    daemon = stage.start()
    before = daemon.scheduler.next_runs()
    stage.zone = HostZone(ZoneInfo("Asia/Tokyo"), "Asia/Tokyo")
    stage.pass_seconds(3600)
    assert daemon.scheduler.next_runs() != before
    assert stage.services.system().time_zone == "Asia/Tokyo"


def test_a_journal_that_fails_stops_nothing(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.journal.broken = "database or disk is full"
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    assert "disk is full" in daemon.journal.trouble
    stage.works.end("house")
    eventually(lambda: daemon.recent.of(stage.uuid))
    stage.journal.broken = ""
    stage.pass_seconds(3600)
    assert daemon.journal.trouble == ""


def test_jobs_that_are_stopped_are_done_again(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    began = time.monotonic()
    assert daemon.stop(10.0) == []
    assert time.monotonic() - began < 5
    assert not daemon.ready
    (again,) = daemon.runner.queued()
    assert again.request.origin is Origin.RETRY


def test_it_ends_in_time_whatever_hangs(stage: DaemonStage) -> None:
    daemon = stage.start()
    stage.looked()
    stage.pass_seconds(DAY)
    stage.works.wait_for("house")
    stage.works.running["house"].deaf = True
    stage.libvirt.answers.clear()
    stage.libvirt.wake()
    began = time.monotonic()
    (left,) = daemon.stop(0.5)
    assert left.request.vm_name == "house"
    assert time.monotonic() - began < 0.5 + 2  # a host that shuts down gives it 20 s


def test_what_a_user_asks_for_is_the_job_that_a_schedule_has_queued(stage: DaemonStage) -> None:
    stage.host = HostState(parity="a parity check")
    stage.start()
    stage.pass_seconds(DAY)
    waiting = stage.waiting("parity check")
    client = create_app(stage.services).test_client()
    answer = client.post("/api/v1/jobs", json={"kind": "backup", "vm": stage.uuid})
    assert answer.status_code == 202
    stage.works.wait_for("house")
    assert [each.id for each in stage.daemon.runner.running()] == [waiting.id]
    assert stage.daemon.runner.queued() == []
    stage.works.end("house")
