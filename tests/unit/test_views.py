"""Documents: their keys are promises, they survive JSON, and odd values do not break them."""

from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from vm_babysitter import views
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.ports import StoredVm
from vm_babysitter.views import (
    ChainView,
    EventView,
    HealthView,
    JobView,
    PlanView,
    PointView,
    ProgressView,
    VmView,
)

PROMISED = {
    "AutostartRunView": "run state begun reason vms",
    "AutostartStateView": "vm uuid mark note",
    "AutostartView": "vms run",
    "AutostartVmView": ("vm uuid listed delay wait_for timeout otherwise tries own taken note"),
    "VmView": "name uuid state disks",
    "DiskView": "target kind source_type source path read_only shareable transient declared_format "
    "real_format virtual_size allocated compat data_file encrypted file_id unreadable error_policy "
    "alias direct beneath partial verdict reason",
    "HealthView": "vm uuid state health newest unchanged_since findings points steps lost",
    "PointHealthView": "point problem disks waits",
    "RepairView": "done left failed before after",
    "PlanView": "vm uuid level unchanged_since new_chain parent reasons warnings notes read_bytes "
    "read_bytes_complete seconds bytes_per_second speed_measured foreign disks diagnosis",
    "PlanDiskView": "target method reason since tracked read_bytes convertible",
    "PointView": "vm uuid point chain_state problem current_as_of manifest",
    "ChainView": "vm uuid chain id state why created points damaged oldest newest stored_bytes",
    "BackupView": "point seconds stored_bytes left vm_resumed unchanged manifest",
    "RestoreView": "point files content_bytes notes",
    "JobView": "id kind vm uuid options origin schedule try_number state waits_for created "
    "not_before started finished result summary code hint point step done_bytes total_bytes",
    "ProgressView": "id kind vm uuid state step done_bytes total_bytes",
    "JobLogView": "id offset next_offset complete text",
    "MessageView": "key at severity subject text details vm link events",
    "NotifyTestView": "channel on sent text hint",
    "EventView": "at kind severity vm uuid job subject text code",
    "ScheduleView": "name kind when words vms enabled next last warnings",
    "SettingsView": "tag settings notes",
    "CheckedView": "errors notes",
    "FieldErrorView": "path value rule hint",
    "NoteView": "path text",
    "StatusView": "fine sentence todo running queued next vms",
    "TodoView": "what hint vm uuid",
    "NextRunView": "schedule kind at",
    "VmStatusView": "vm uuid state backed_up why_not health words newest newest_taken "
    "current_as_of",
    "SystemView": "version started ready time_zone parts",
    "PartView": "name state text hint",
}
VIEWS = {
    name: found
    for name in views.__all__
    if is_dataclass(found := getattr(views, name)) and name.endswith("View")
}


@pytest.fixture
def app(ram_path: Path) -> FakeApp:
    return FakeApp(EngineWorld(ram_path, name=NAME))


def test_every_document_is_promised_with_all_its_keys() -> None:
    found = {name: " ".join(f.name for f in fields(kind)) for name, kind in VIEWS.items()}
    assert found == PROMISED


@pytest.mark.parametrize("kind", VIEWS.values(), ids=VIEWS)
def test_every_document_has_a_schema_and_no_part_that_could_be_changed(kind: Any) -> None:
    assert msgspec.json.schema(kind)["$ref"].endswith(kind.__name__)
    assert kind.__dataclass_params__.frozen
    assert "list[Any]" not in str(get_type_hints(kind))


def test_documents_of_a_vm_come_back_from_json_as_they_were(app: FakeApp) -> None:
    app.world.backup()
    app.world.vm.state = PowerState.OFF
    with app.diagnoser() as diagnoser:
        planned = diagnoser.diagnose(NAME)
        app.world.backup()
        idle = diagnoser.diagnose(NAME)
    stored = app.store().vms()[0]
    chains = app.store().chains(stored.uuid)
    shown: list[Any] = [
        *map(VmView.of, app.world.hypervisor.vms()),
        HealthView.of(planned.diagnosis),
        PlanView.of(planned),
        PlanView.of(idle),
        *PointView.all([(stored, chains)]),
        *(ChainView.of(stored, chain) for chain in chains),
    ]
    for view in shown:
        assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view


def test_a_plan_tells_of_a_backup_or_that_nothing_is_to_do(app: FakeApp) -> None:
    app.world.backup()
    doing = app.json("plan", NAME)
    assert "unchanged_since" not in doing
    assert set(doing) == set(PROMISED["PlanView"].split()) - {"unchanged_since"}
    app.world.vm.state = PowerState.OFF
    app.world.backup()
    app.world.backup()
    idle = app.json("plan", NAME)
    assert set(idle) == {"vm", "uuid", "level", "unchanged_since", "diagnosis"}
    assert idle["level"] is None


def test_a_chain_is_summed_up(app: FakeApp) -> None:
    app.world.backup()
    app.world.disk.write(0, b"x")
    app.world.backup()
    for path in app.world.path.glob("*/*/000001-inc/point.json"):
        path.write_text("{")
    (stored,) = app.store().vms()
    (chain,) = app.store().chains(stored.uuid)
    shown = ChainView.of(stored, chain)
    assert (shown.vm, shown.chain, shown.points, shown.damaged) == (NAME, chain.directory, 2, 1)
    assert shown.oldest == shown.newest == chain.points[0].point.taken
    empty = ChainView.of(StoredVm("u", ("n",), "d"), replace(chain, points=(), unreadable=()))
    assert (empty.oldest, empty.newest, empty.stored_bytes) == (None, None, 0)


def test_jobs_and_events_are_shown_with_the_vm_they_are_about() -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    request = JobRequest(JobKind.RESTORE, "u", NAME, {"disks": ["vda"], "to": "/x", "n": 3})
    job = Job(7, request, JobState.RUNNING, at, step="copy", done_bytes=1, total_bytes=2)
    shown = JobView.of(job)
    assert (shown.id, shown.vm, shown.uuid, shown.options) == (7, NAME, "u", request.options)
    assert msgspec.json.decode(msgspec.json.encode(shown), type=JobView) == shown
    progress = ProgressView.of(job)
    assert (progress.id, progress.step, progress.done_bytes, progress.total_bytes) == (
        7,
        "copy",
        1,
        2,
    )
    event = Event(at, "job-failed", Severity.ALERT, "s", "t", "u", NAME, 7, "c")
    told = EventView.of(event)
    assert (told.vm, told.uuid, told.job, told.code) == (NAME, "u", 7, "c")
    assert EventView.of(replace(event, job_id=0)).job is None
