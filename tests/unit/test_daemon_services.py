"""What the daemon answers."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_stage import DaemonStage
from tests.support.fakes.feed import GONE
from tests.support.fakes.store_place import GIB, MARKED, NOTHING, FakeStorePlace
from tests.support.jobs import eventually
from tests.support.settings import STORE
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.errors import (
    Busy,
    HypervisorUnreachable,
    SettingsChanged,
    StoreAway,
    StoreFailed,
    StoreNotSetUp,
    VmNotFound,
)
from vm_babysitter.domain.job import JobKind, JobState, Origin
from vm_babysitter.domain.store_standing import FoundStore
from vm_babysitter.service import lookups
from vm_babysitter.service.store_watch import StoreWatch
from vm_babysitter.views import CheckedView, PartState, SettingsView


@pytest.fixture
def stage(ram_path: Path) -> Iterator[DaemonStage]:
    made = DaemonStage(ram_path)
    yield made
    made.libvirt.answers.set()
    made.daemon.stop(10.0)


def nothing_set_up(stage: DaemonStage) -> None:
    stage.start()
    stage.write(store={"path": ""})


def without_libvirt(stage: DaemonStage) -> None:
    stage.libvirt.absent = GONE
    stage.daemon.start()
    eventually(lambda: "not there" in stage.daemon.watch.now().trouble)


def part(stage: DaemonStage, name: str) -> tuple[PartState, str]:
    """Return how a part is, and in which words."""
    found = next(part for part in stage.services.system().parts if part.name == name)
    return found.state, found.text


def test_vms_and_their_backups(stage: DaemonStage) -> None:
    stage.back_up()
    stage.start()
    stage.looked()
    services, uuid = stage.services, stage.uuid
    assert [vm.name for vm in services.vms()] == ["house"]
    assert services.vm("house").uuid == uuid
    assert [found.vm for found in services.health()] == ["house"]
    assert services.health_of(uuid).vm == "house"
    assert services.plan("house", full=True, track_snapshots=False)
    for name in ("house", uuid, uuid.upper()):
        assert len(services.chains(name)) == 1
        assert len(services.points(name)) == 1
    assert services.points(None) == services.points("house")


def test_before_anything_is_set_up(stage: DaemonStage) -> None:
    nothing_set_up(stage)
    services = stage.services
    with pytest.raises(StoreNotSetUp):
        services.submit(JobKind.BACKUP, "house", {})
    with pytest.raises(StoreNotSetUp):
        services.points(None)
    assert services.plan("house", full=False, track_snapshots=False)
    assert services.health_of("house")
    assert "not set up" in services.status().sentence
    assert part(stage, "store")[0] is PartState.WAITS
    with pytest.raises(VmNotFound):
        services.submit(JobKind.CONVERT, "barn", {"disk": "vda"})
    taken = services.submit(JobKind.CONVERT, "house", {"disk": "vda"})
    assert taken.state in {JobState.QUEUED, JobState.RUNNING}


def test_a_job_of_a_user(stage: DaemonStage) -> None:
    stage.start()
    taken = stage.services.submit(JobKind.BACKUP, stage.uuid.upper(), {"full": True})
    stage.works.wait_for("house")
    (running,) = stage.daemon.runner.running()
    assert (running.request.origin, running.request.options) == (Origin.USER, {"full": True})
    running_now = stage.services.status().running
    assert [job.id for job in running_now] == [taken.id]
    (listed,) = stage.services.jobs(vm=None, states=(), limit=5, before=None)
    assert listed.state is JobState.RUNNING
    assert not stage.services.job_log(taken.id, 0, 10).complete
    stage.services.cancel(taken.id)
    eventually(lambda: stage.services.job(taken.id).state is JobState.CANCELLED)
    assert stage.services.job_log(taken.id, 0, 10).complete
    assert stage.services.events(vm=None, job=taken.id, limit=5)


def test_what_somebody_has_seen_of_a_vm_is_in_the_status_too(stage: DaemonStage) -> None:
    stage.back_up()
    stage.start()
    services, diagnoses = stage.services, stage.daemon.diagnoses
    assert diagnoses.wait_idle(10)
    assert services.status().vms[0].health is Health.GOOD
    for image in stage.path.rglob("*.qcow2"):
        image.unlink()
    assert services.status().vms[0].health is Health.GOOD  # nobody has looked
    assert services.health_of("house").health is Health.LOST
    eventually(lambda: services.status().vms[0].health is Health.LOST)


def test_jobs_of_a_vm_from_before_it_was_renamed(stage: DaemonStage) -> None:
    stage.start()
    services = stage.services
    taken = services.submit(JobKind.BACKUP, "house", {})
    services.cancel(taken.id)
    eventually(lambda: services.job(taken.id).state is JobState.CANCELLED)
    (house,) = stage.libvirt.vms
    stage.libvirt.vms = (replace(house, name="home"),)
    stage.libvirt.wake()
    eventually(lambda: "vm-renamed" in stage.told())
    for name in ("home", "house", stage.uuid):
        assert [j.id for j in services.jobs(vm=name, states=(), limit=5, before=None)] == [taken.id]


def test_a_job_for_a_vm_that_only_has_backups_waits_for_nothing(stage: DaemonStage) -> None:
    stage.back_up()
    stage.libvirt.vms = ()
    stage.start()
    taken = stage.services.submit(JobKind.VERIFY, "house", {})
    assert taken.uuid == stage.uuid
    with pytest.raises(VmNotFound):
        stage.services.submit(JobKind.VERIFY, "barn", {})


def test_without_libvirt(stage: DaemonStage) -> None:
    stage.back_up()
    without_libvirt(stage)
    services = stage.services
    calls = (
        services.vms,
        lambda: services.vm("house"),
        lambda: services.health_of("house"),
        lambda: services.plan("house", full=False, track_snapshots=False),
        # Nobody can tell whether there is such a VM.
        lambda: services.submit(JobKind.BACKUP, "barn", {}),
    )
    for call in calls:
        with pytest.raises(HypervisorUnreachable, match="not there"):
            call()
    assert len(services.points("house")) == 1
    taken = services.submit(JobKind.BACKUP, "house", {})
    stage.waiting("not there")
    assert services.cancel(taken.id).state is JobState.CANCELLED
    assert part(stage, "libvirt")[0] is PartState.WAITS
    assert services.status().vms == ()


def test_a_folder_that_is_away_is_not_one_without_backups(stage: DaemonStage) -> None:
    stage.back_up()
    stage.start()
    stage.place.found = NOTHING
    services = stage.services
    calls = (
        lambda: services.points(None),
        lambda: services.chains("house"),
        lambda: services.health_of("house"),
        lambda: services.plan("house", full=False, track_snapshots=False),
    )
    for call in calls:
        with pytest.raises(StoreAway, match="not there"):
            call()
    stage.place.found = MARKED
    assert services.points(None)


@pytest.mark.parametrize(
    ("place", "state", "words"),
    [
        (FakeStorePlace(), PartState.OK, "Backups go to '/mnt/user/backups'."),
        (FakeStorePlace(NOTHING), PartState.FAILED, "is not there"),
        (FakeStorePlace(error=StoreFailed("/b", "stale")), PartState.FAILED, "cannot be used"),
        (FakeStorePlace(free=GIB), PartState.FAILED, "is full"),
        (FakeStorePlace(free=20 * GIB), PartState.WARNING, "fills up"),
    ],
)
def test_how_the_backup_folder_is(
    stage: DaemonStage, place: FakeStorePlace, state: PartState, words: str
) -> None:
    vars(stage.place).update(vars(place))
    stage.start()
    eventually(lambda: part(stage, "store")[0] is state)
    assert words in part(stage, "store")[1]
    assert stage.services.status().fine == (state is PartState.OK)


def test_a_folder_that_does_not_answer(stage: DaemonStage) -> None:
    daemon = stage.daemon
    stage.libvirt.answers.clear()

    def hangs() -> str:
        stage.libvirt.answers.wait(10)
        return ""

    daemon.store_watch = StoreWatch(hangs, lambda: None, lambda: None, patience=0.0)
    daemon.start()
    eventually(lambda: "does not answer" in part(stage, "store")[1])
    stage.libvirt.answers.set()
    eventually(lambda: part(stage, "store")[0] is PartState.OK)
    daemon.store_watch.stop(10.0)


def test_another_folder_in_its_place(stage: DaemonStage) -> None:
    stage.start()
    stage.guard.note()
    stage.place.found = FoundStore(there=True, id="another", filesystem=MARKED.filesystem)
    stage.daemon.store_watch.look()
    eventually(lambda: part(stage, "store")[0] is PartState.FAILED)
    assert "another backup folder" in part(stage, "store")[1]


def test_backups_that_cannot_be_looked_at_are_told(stage: DaemonStage) -> None:
    stage.diagnosis_error = OSError("Input/output error")
    stage.start()
    eventually(lambda: stage.daemon.diagnoses.problem)
    assert part(stage, "diagnoses") == (
        PartState.WARNING,
        "The backups cannot be looked at: Input/output error",
    )


def test_few_questions_at_a_time(stage: DaemonStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "_PATIENCE", 0.01)
    stage.start()
    held, entered = threading.Event(), threading.Semaphore(0)
    hypervisor = stage.app.hypervisor

    def slow() -> AbstractContextManager[Any]:
        entered.release()
        held.wait(10)
        return hypervisor()

    stage.app.hypervisor = slow  # type: ignore[method-assign, assignment]
    threads = [threading.Thread(target=stage.services.vms) for _ in range(3)]
    for thread in threads:
        thread.start()
        assert entered.acquire(timeout=10)
    with pytest.raises(Busy):
        stage.services.points(None)
    assert stage.services.status()  # waits for nobody
    held.set()
    for thread in threads:
        thread.join(10)
    assert stage.services.vms()


def test_settings(stage: DaemonStage) -> None:
    stage.start()
    services = stage.services
    old = services.settings()
    wrong = services.save_settings({"version": 1, "store": {"path": 7}}, old.tag)
    assert isinstance(wrong, CheckedView)
    assert [error.path for error in wrong.errors] == ["store.path"]
    new = {"version": 1, "store": {"path": STORE}, "vms": {"ignored": ["barn"]}}
    assert services.check_settings(new).notes
    saved = services.save_settings(new, old.tag)
    assert isinstance(saved, SettingsView)
    assert saved.notes
    assert saved.tag != old.tag
    with pytest.raises(SettingsChanged):
        services.save_settings(new, old.tag)


def test_schedules(stage: DaemonStage) -> None:
    stage.start()
    off = {"name": "off", "when": "* 2 * * *", "kind": "verify", "enabled": False}
    on = {"name": "on", "when": "@daily", "vms": ["house"]}
    stage.write(store={"path": STORE}, schedules=[on, off])
    first, second = stage.services.schedules()
    assert (first.words, first.kind, first.vms) == ("every day at 00:00", "backup", ("house",))
    assert first.next is not None
    assert (first.last, second.last) == (None, None)  # nothing was begun yet
    assert second.next is None
    assert second.warnings


def test_the_status_of_a_vm_that_is_left_out(stage: DaemonStage) -> None:
    stage.start()
    stage.write(store={"path": STORE}, vms={"ignored": ["house"]})
    stage.looked()
    status = stage.services.status()
    (line,) = status.vms
    assert (line.backed_up, line.why_not) == (False, "it is among the ignored VMs")
    assert status.sentence == "No VM is backed up."


def test_nothing_is_fine_as_long_as_libvirt_was_never_seen(stage: DaemonStage) -> None:
    stage.libvirt.absent = GONE
    stage.start()
    eventually(lambda: stage.daemon.watch.now().trouble)
    status = stage.services.status()
    assert not status.fine
    assert status.sentence == "Which VMs there are is not known yet."
    assert [todo.what for todo in status.todo] == [stage.daemon.watch.now().trouble]
    stage.libvirt.absent = None
    eventually(lambda: not stage.daemon.watch.now().trouble)
    assert stage.services.status().fine


def test_a_backup_that_is_overdue_is_told(stage: DaemonStage) -> None:
    stage.start()
    stage.looked()
    stage.place.free = GIB
    stage.pass_seconds(86400)
    stage.waiting("have to be free")
    assert len(stage.services.status().todo) == 1
    stage.pass_seconds(2 * 86400)
    assert "house has had no backup that went well yet." in [
        todo.what for todo in stage.services.status().todo
    ]


def test_figures(stage: DaemonStage) -> None:
    stage.back_up()
    stage.start()
    stage.looked()
    stage.pass_seconds(86400)
    stage.works.wait_for("house")
    stage.works.end("house")
    eventually(lambda: stage.daemon.recent.of(stage.uuid))
    found = {metric.name: metric.samples for metric in stage.services.metrics()}
    assert found["vm_babysitter_fine"][0].value == 1
    assert found["vm_babysitter_up_seconds"][0].value >= 86400
    (age,) = found["vm_babysitter_newest_point_age_seconds"]
    assert age.value >= 86400
    assert age.labels == {"vm": "house", "uuid": stage.uuid}
    (ended,) = found["vm_babysitter_jobs_ended_total"]
    assert (ended.value, ended.labels) == (1, {"kind": "backup", "result": "ok"})
