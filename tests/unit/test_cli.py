"""The command line: what it prints, as text and as JSON, and how it ends."""

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.points import (
    MIB,
    a_disk,
    bitmap_of,
    chain,
    compared_disk,
    damaged,
    disk_state,
    good,
    line,
    point,
    point_disk,
    tracked_disk,
)
from vm_babysitter.cli import render_plans, render_points, render_results
from vm_babysitter.cli.main import cli
from vm_babysitter.cli.session import show
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.backup_plan import plan_backup
from vm_babysitter.domain.chain import UnreadablePoint
from vm_babysitter.domain.diagnosis import diagnose
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    Cancelled,
    Damaged,
    HypervisorUnreachable,
    InvalidInput,
    NotEnoughSpace,
    PointDamaged,
    PointNotFound,
    StoreRefused,
    UnsupportedFormat,
    VmNotEligible,
    VmNotFound,
)
from vm_babysitter.domain.findings import Facts
from vm_babysitter.domain.vm import DiskKind, PowerState, Vm
from vm_babysitter.engine.app import Effort, Place
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.engine.planning import Planned
from vm_babysitter.engine.restore import Restored
from vm_babysitter.engine.verify import Verified
from vm_babysitter.ports import ActiveJob, JobKind, StoredVm
from vm_babysitter.views import BackupView, PlanView, PointView, VmView


@pytest.fixture
def app(ram_path: Path) -> FakeApp:
    world = EngineWorld(ram_path, name=NAME)
    world.disk.write(0, b"x" * 70000)
    return FakeApp(world)


# --- how hard it works


SUGGEST = Suggest(Place("qemu:///system", None))
COMMANDS = (
    ("backup", NAME),
    ("verify", NAME),
    ("restore", NAME, "latest", "--to", "x"),
    ("convert", NAME, "vda"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_jobs_let_the_vms_go_first_unless_told_otherwise(
    app: FakeApp, command: tuple[str, ...]
) -> None:
    app.answers.restored = Restored("x/000000", (), 0)
    app.answers.verified = (Verified("x/000000", (), content=True),)
    app.call(*command)
    app.call(*command, "--limit", "1.5M", "--priority", "normal")
    assert app.efforts == [Effort(None, True), Effort(3 << 19, False)]


@pytest.mark.parametrize("limit", ["fast", "0", "-5M", "63K", "1e9", "", "5 furlongs"])
def test_a_limit_that_is_no_sensible_rate_is_refused(app: FakeApp, limit: str) -> None:
    result = app.call("backup", NAME, "--limit", limit)
    assert (result.exit_code, app.efforts) == (2, [])
    assert "--limit" in result.stderr
    assert repr(limit) in result.stderr


# --- how it ends


def test_without_a_daemon_and_without_standalone_there_is_nobody_to_talk_to(app: FakeApp) -> None:
    result = app.call("--socket", "/nowhere/x", "vms", standalone=False)
    assert (result.exit_code, result.stdout) == (20, "")
    assert "rc.vm-babysitter start" in result.stderr
    assert "--standalone" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("backup",),
        ("vms", "--nonsense"),
        ("restore", "vm", "latest"),
        ("restore", "vm", "latest", "--to", "x", "--format", "vhd"),
    ],
)
def test_wrong_usage_ends_with_2(app: FakeApp, arguments: tuple[str, ...]) -> None:
    result = app.call(*arguments)
    assert (result.exit_code, app.places) == (2, [])


def test_every_command_has_a_help_that_says_what_it_does(app: FakeApp) -> None:
    for name, command in cli.commands.items():
        result = app.call(name, "-h")
        assert result.exit_code == 0
        assert command.help
        assert command.help.split(".")[0][:40] in " ".join(result.stdout.split())


ERRORS: list[tuple[BabysitterError, int]] = [
    (InvalidInput("--store", "", "is missing", "Name it."), 2),
    (VmNotFound(NAME), 10),
    (PointNotFound(NAME, "x/1"), 10),
    (Busy("VM 'x'", "{something}"), 11),
    (Damaged("/x", "torn", "Look."), 12),
    (UnsupportedFormat("/x", 2, 1), 12),
    (PointDamaged(NAME, "c/000001", 1, "torn"), 12),
    (VmNotEligible(NAME, "it is off"), 1),
    (StoreRefused("/x", "it lies in RAM"), 1),
    (NotEnoughSpace("/x", 1, 2), 1),
    (HypervisorUnreachable("qemu:///system", "no {socket}"), 1),
    (Cancelled(), 130),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda e: getattr(e, "code", ""))
def test_an_error_is_told_with_its_way_out_and_ends_with_its_code(
    app: FakeApp, error: BabysitterError, code: int
) -> None:
    app.error = error
    result = app.call("vms")
    assert (result.exit_code, result.stdout) == (code, "")
    hint = error.hint.replace("`vm-babysitter ", "`vm-babysitter --standalone ")
    assert result.stderr == f"Error: {error.message}\n" + (f"{hint}\n" if hint else "")


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda e: getattr(e, "code", ""))
def test_programs_get_an_error_as_data(app: FakeApp, error: BabysitterError, code: int) -> None:
    app.error = error
    (key, problem), *more = app.json("points", code=code).items()
    assert (key, more) == ("error", [])
    assert problem == {
        "code": error.code,
        "message": error.message,
        "hint": error.hint.replace("`vm-babysitter ", "`vm-babysitter --standalone "),
        "fields": error.fields,
    }


def test_an_error_of_the_system_ends_with_1(app: FakeApp) -> None:
    app.error = OSError(28, "No space left on device")
    result = app.call("vms")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No space left on device" in result.stderr


def test_the_options_say_where_things_are(app: FakeApp) -> None:
    app.call("--uri", "test:///", "--store", "/a b/{c}", "--allow-ram-store", "vms")
    app.call("vms")
    assert app.places == [
        Place("test:///", Path("/a b/{c}"), allow_ram_store=True),
        Place("qemu:///system", None),
    ]


# --- vms, plan


def test_the_list_of_vms_says_what_of_each_would_be_backed_up(app: FakeApp) -> None:
    lines = app.call("vms").stdout.splitlines()
    assert lines[0].split() == ["VM", "STATE", "DISK", "SIZE", "BACKUP"]
    assert lines[1].startswith(NAME)
    assert lines[1].endswith("tracked: qcow2: change tracking tells what to read")
    assert "320 KiB" in lines[1]
    (vm,) = app.json("vms")
    assert (vm["name"], vm["uuid"], vm["state"]) == (NAME, app.world.vm.uuid, "running")
    (disk,) = vm["disks"]
    assert (disk["target"], disk["verdict"], disk["virtual_size"]) == ("vda", "tracked", 328192)


def test_a_vm_with_many_disks_is_named_once_and_one_without_is_named_too() -> None:
    drive = replace(a_disk("hda"), kind=DiskKind.CDROM, virtual_size=0)
    vms = [
        Vm("1", "many", PowerState.OFF, (a_disk("vda"), drive)),
        Vm("2", "none", PowerState.RUNNING, ()),
    ]
    text = render_plans.vms_text([VmView.of(vm) for vm in vms])
    assert text.count("many") == 1
    assert [row.split()[-1] for row in text.splitlines()[2:]] == ["drive", "disk"]
    assert render_plans.vms_text([]) == "There is no persistent VM."


def test_a_plan_says_what_and_why_and_changes_nothing(app: FakeApp) -> None:
    before = sorted(app.world.path.rglob("*"))
    text = app.call("plan", NAME).stdout
    assert f"The next backup of {NAME!r} is a full backup, in a new backup series:" in text
    assert "there is no backup of this VM yet" in text
    assert sorted(app.world.path.rglob("*")) == before
    assert app.world.vm.job is None
    data = app.json("plan", NAME)
    assert data.pop("diagnosis")["health"] == "none"
    assert data == {
        "vm": NAME,
        "uuid": app.world.vm.uuid,
        "level": "full",
        "new_chain": True,
        "parent": None,
        "reasons": ["there is no backup of this VM yet"],
        "warnings": [],
        "notes": [],
        "read_bytes": 2 * 65536,
        "read_bytes_complete": True,
        "seconds": 0.0,
        "bytes_per_second": 150_000_000,
        "speed_measured": False,
        "foreign": [],
        "disks": [
            {
                "target": "vda",
                "method": "full",
                "reason": "no earlier restore point to build on",
                "since": None,
                "tracked": True,
                "read_bytes": 2 * 65536,
                "convertible": False,
            }
        ],
    }
    assert "It reads about 128 KiB, which takes less than a second (assuming 150 MB/s)." in text
    assert "convert" not in text


def test_what_is_worth_knowing_is_a_note_and_no_warning(app: FakeApp) -> None:
    app.world.backup()
    app.world.hypervisor.add("twin", FakeDisk("hdc", path=app.world.disk.path))
    assert "  note: disk vda is disk hdc of VM 'twin' as well" in app.call("plan", NAME).stdout
    result = app.call("backup", NAME)
    assert result.exit_code == 0
    assert "Note: disk vda is disk hdc of VM 'twin' as well; only one" in result.stdout
    assert "Warning" not in result.stdout


def test_the_plan_of_an_increment_names_the_checkpoint_it_goes_on_from(app: FakeApp) -> None:
    point = app.world.backup().point
    assert point.checkpoint is not None
    text = app.call("plan", NAME).stdout
    assert "is an increment:" in text
    assert "only what changed is read" in text
    (disk,) = app.json("plan", NAME)["disks"]
    assert (disk["method"], disk["since"]) == ("bitmap", point.checkpoint.bitmap("vda"))
    assert app.json("plan", NAME, "--full")["new_chain"] is True


def test_a_plan_says_that_it_does_not_know_what_it_does_not_know(app: FakeApp) -> None:
    disk, known = tracked_disk(), chain(*line(1))
    states = {"vda": disk_state(good(bitmap_of(0)))}
    plan = plan_backup([disk], states, known)
    vm = app.world.vm.describe()
    found = diagnose(Facts(vm.name, vm.uuid, (known,), vm, tuple(states.values()), next=plan))
    planned = Diagnosed(found, vm, Planned(plan, known, (disk,), states))
    text = render_plans.plan_text(PlanView.of(planned), SUGGEST)
    assert re.search(r"^vda +not known yet +only what changed is read", text, re.MULTILINE)
    assert "It reads at least about 0 bytes" in text


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("Windows 11", "convert 'Windows 11' vda"),
        ("-rf", "convert -- -rf vda"),
        ("it's $(x)", """convert 'it'"'"'s $(x)' vda"""),
    ],
)
def test_a_plan_names_the_converter_for_a_raw_disk(ram_path: Path, name: str, command: str) -> None:
    app = FakeApp(EngineWorld(ram_path, name=name))
    app.world.disk.format = "raw"
    for _ in range(2):
        text = app.call("plan", "--", name).stdout
        wanted = f"while the VM is off: vm-babysitter --standalone {command}\n"
        assert wanted in text
        app.world.backup()


def test_a_plan_names_what_is_of_other_programs(app: FakeApp) -> None:
    app.world.disk.layers[0].bitmaps["x's"] = FakeBitmap()
    app.world.vm.foreign_job = ActiveJob(JobKind.BACKUP, "serving /run/x", "/run/x")
    said = app.json("plan", NAME)["foreign"]
    assert ["x's" in said[0], "a backup job is running (serving /run/x)" in said[1]] == [True] * 2
    text = app.call("plan", NAME).stdout
    assert all(f"  foreign: {thing}\n" in text for thing in said)


def test_images_with_internal_snapshots_are_tracked_on_demand(app: FakeApp) -> None:
    app.world.disk.internal_snapshots = 1
    for wanted in (["--track-internal-snapshots"], []):
        assert app.json("plan", NAME, *wanted)["disks"][0]["tracked"] is bool(wanted)
        made = app.json("backup", NAME, *wanted)["manifest"]
        assert (made["checkpoint"] is not None) is bool(wanted)
        assert bool(app.world.bitmaps()) is bool(wanted)


# --- backup


def test_a_backup_tells_its_point_and_what_it_read_and_stored(app: FakeApp) -> None:
    result = app.call("backup", NAME)
    assert result.exit_code == 0
    (chain,) = app.world.chains()
    assert f"Restore point {chain.directory}/000000 of {NAME!r} is complete: full" in result.stdout
    assert "128 KiB read, 128 KiB stored" in result.stdout
    assert "Not paused cleanly for the backup: the VM has no guest agent." in result.stdout
    data = app.json("backup", NAME)
    told = {"point", "seconds", "stored_bytes", "left", "vm_resumed", "unchanged", "manifest"}
    assert set(data) == told
    assert data["point"] == f"{chain.directory}/000001"
    assert data["manifest"]["seq"] == 1
    assert data["manifest"]["disks"][0]["method"] == "bitmap"
    assert app.compress == [False, False]


def test_a_compressed_backup_tells_what_it_takes_and_what_it_holds(app: FakeApp) -> None:
    app.call("backup", NAME, "--compress")
    assert app.compress == [True]
    one = replace(point_disk("vda"), compression="zstd", written_bytes=9 * MIB, file_size=3 * MIB)
    two = replace(one, target="vdb", compression="zlib")
    plain = replace(one, target="vdc", compression="")
    tiny = replace(one, written_bytes=0, file_size=4 * 65536)
    made = BackupView.of(BackedUp("20261124T021500Z", point(disks=[one, two, plain]), 1))
    words = "15 MiB stored (27 MiB compressed with zlib and zstd), "
    assert words in render_results.backup_text(made)
    assert made.stored_bytes == 15 * MIB
    empty = BackedUp("20261124T021500Z", point(disks=[tiny]), 1)
    assert BackupView.of(empty).stored_bytes == 0, "tables are no content"


def test_a_full_backup_can_be_asked_for(app: FakeApp) -> None:
    app.world.backup()
    assert app.json("backup", NAME, "--full")["manifest"]["level"] == "full"


def test_a_backup_with_a_warning_is_complete_and_ends_with_3(app: FakeApp) -> None:
    shared = replace(compared_disk("vdb").disk, shareable=True)
    app.world.vm.other_disks = (shared,)
    result = app.call("backup", NAME)
    assert result.exit_code == 3
    assert "is complete" in result.stdout
    assert "Warning: disk vdb is not backed up: shared with other VMs" in result.stdout


def test_a_vm_that_had_to_be_resumed_is_a_warning(app: FakeApp) -> None:
    app.world.backup_killed_at("copied vda")
    app.world.vm.state = PowerState.STUCK
    result = app.call("backup", NAME)
    assert result.exit_code == 3
    assert "is complete" in result.stdout
    assert "Warning: QEMU had paused the VM" in result.stdout


def test_cleaning_up_that_failed_is_a_warning(app: FakeApp) -> None:
    app.world.hypervisor.fail["end_backup"] = Busy("VM 'x'", "it hangs")
    result = app.call("backup", NAME)
    assert result.exit_code == 3
    assert "Warning: cleaning up is left to the next backup. VM 'x' is busy" in result.stdout
    assert app.json("backup", NAME, code=11)["error"]["code"] == "busy"


def test_a_backup_of_an_unknown_vm_ends_with_10(app: FakeApp) -> None:
    assert app.call("backup", "nobody").exit_code == 10


# --- points


def test_points_are_listed_in_order_with_their_states(app: FakeApp) -> None:
    assert app.call("points").stdout == "There is no restore point.\n"
    assert app.json("points") == []
    app.world.backup()
    app.world.backup(force_full=True)
    app.world.disk.write(0, b"y")
    app.world.backup()
    old, new = (chain.directory for chain in app.world.chains())
    rows = app.call("points", NAME).stdout.splitlines()
    assert rows[0].split() == ["VM", "POINT", "TAKEN", "(UTC)", "KIND", "STORED", "STATE"]
    assert [f"{old}/000000" in rows[1], f"{new}/000001" in rows[3]] == [True, True]
    assert rows[1].endswith("full       128 KiB  archived")
    assert rows[2].rstrip().endswith("full       128 KiB")
    assert rows[3].rstrip().endswith("increment  64 KiB")
    data = app.json("points")
    assert [(p["point"], p["chain_state"], p["problem"]) for p in data] == [
        (f"{old}/000000", "archived", ""),
        (f"{new}/000000", "live", ""),
        (f"{new}/000001", "live", ""),
    ]
    assert {p["vm"] for p in data} == {NAME}


@pytest.mark.parametrize("as_json", [True, False])
def test_names_that_are_not_utf_8_can_be_printed(
    as_json: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = os.fsdecode(b"\xff before \xc3\xbc")
    show(as_json, lambda: [name], lambda: name)
    printed = capfdbinary.readouterr().out
    assert printed.strip(b"[] \n") == (b'"%s"' if as_json else b"%s") % b"\\udcff before \xc3\xbc"


def test_points_of_an_unknown_vm_end_with_10(app: FakeApp) -> None:
    assert app.call("points", "nobody").exit_code == 10


def test_broken_and_unreadable_points_say_what_is_wrong() -> None:
    full, first, second = line(3)
    found = replace(
        chain(full, damaged(first), second),
        unreadable=(UnreadablePoint(3, "000003-inc", "its manifest is torn"),),
    )
    vms = [(StoredVm("u", ("old name", NAME), "d"), [found])]
    rows = click.unstyle(render_points.points_text(PointView.all(vms))).splitlines()
    assert all(row.startswith(NAME) for row in rows[1:])
    assert rows[2].endswith("vda.qcow2: it is missing")
    assert rows[3].endswith("it builds on 000001: vda.qcow2: it is missing")
    assert rows[4].endswith("damaged: its manifest is torn")
    shown = PointView.all(vms)
    assert [bool(p.problem) for p in shown] == [False, True, True, True]
    assert shown[3].manifest is None


def test_points_of_vms_of_one_name_tell_by_which_uuid_to_restore_them() -> None:
    found = chain(*line(1))
    vms = [
        (StoredVm(uuid, names, uuid), [found])
        for uuid, names in (("u1", (NAME,)), ("u2", ("other",)), ("u3", (NAME,)))
    ]
    rows = click.unstyle(render_points.points_text(PointView.all(vms))).splitlines()
    assert [row.split("  ")[0] for row in rows[1:]] == [f"{NAME} (u1)", f"{NAME} (u3)", "other"]


# --- verify, restore


GOOD = Verified("c/000000", (), content=True)
FILES = Verified("c/000001", (), content=False)
BAD = Verified("c/000002", ("vda.qcow2: torn", "vda.index: {torn}"), content=False)


def test_verified_points_are_told_as_good(app: FakeApp) -> None:
    app.answers.verified = (GOOD, FILES)
    result = app.call("verify", NAME)
    assert result.exit_code == 0
    assert result.stdout == "c/000000  good: data correct\nc/000001  good: files complete\n"
    assert app.json("verify", NAME, "c/0", "--structure") == [
        {"point": "c/000000", "problems": [], "content": True}
    ]
    assert app.answers.asked == [(NAME, False), (NAME, "c/0", True)]


def test_one_bad_point_ends_with_12_and_all_problems_are_told(app: FakeApp) -> None:
    app.answers.verified = (GOOD, BAD)
    result = app.call("verify", NAME)
    assert result.exit_code == 12
    assert result.stdout.splitlines()[1:] == [
        "c/000002  BAD: vda.qcow2: torn",
        "c/000002  BAD: vda.index: {torn}",
    ]
    assert app.json("verify", NAME, code=12)[1]["problems"] == list(BAD.problems)


def test_verifying_a_vm_without_points_ends_with_10(app: FakeApp) -> None:
    assert app.call("verify", NAME).exit_code == 10


def test_a_restore_names_its_files(app: FakeApp) -> None:
    path = Path("/out/{a} b/vda.qcow2")
    app.answers.restored = Restored("c/000001", (path,), 3 << 20, ("it's at '/x'",))
    arguments = ("restore", NAME, "latest", "--to", "/out", "--disk", "vda", "--disk", "vdb")
    result = app.call(*arguments, "--format", "raw")
    assert result.exit_code == 0
    assert result.stdout == (
        f"Restored c/000001: 3 MiB of content, checked.\n  {path}\nNote: it's at '/x'.\n"
    )
    assert app.json(*arguments) == {
        "point": "c/000001",
        "files": [str(path)],
        "content_bytes": 3 << 20,
        "notes": ["it's at '/x'"],
    }
    assert app.to == [Path("/out")] * 2
    assert app.answers.asked == [
        (NAME, "latest", ("vda", "vdb"), "raw"),
        (NAME, "latest", ("vda", "vdb"), None),
    ]


def test_a_conversion_says_what_is_kept_and_how_to_go_back(app: FakeApp) -> None:
    text = app.call("convert", "--", "-odd 'name'", "vda").stdout
    assert "is now qcow2: 3 MiB of content" in text
    assert "kept until you delete it" in text
    assert "/v/a b.img" in text
    last = text.splitlines()[-1].removeprefix("To go back: vm-babysitter --standalone ")
    app.call(*shlex.split(last))
    assert app.converting.asked == [("-odd 'name'", "vda", None), ("-odd 'name'", "vda", False)]


def test_going_back_says_what_is_kept(app: FakeApp) -> None:
    result = app.call("convert", NAME, "vda", "--undo", "--lose-changes")
    assert "has its raw image /v/a b.img again" in result.stdout
    assert "/v/a b.qcow2 is kept" in result.stdout
    assert app.converting.asked == [(NAME, "vda", True)]
    assert app.call("convert", NAME, "vda", "--lose-changes").exit_code == 2
    assert app.json("convert", NAME, "vda")["kept"] == "/v/a b.img"


def test_release_says_what_was_removed_and_what_is_left(app: FakeApp) -> None:
    app.call("backup", NAME)
    app.world.disk.layers[0].bitmaps["vmb-12345678-000000-abcdef"] = FakeBitmap()
    result = app.call("release", NAME)
    assert result.exit_code == 0
    assert result.stdout == (
        f"VM {NAME!r}: Change tracking was removed from vda. Its restore points stay.\n"
        "Note: 'vmb-12345678-000000-abcdef' is of another backup folder of VM Babysitter, and "
        "stays; --any-folder removes it, too.\n"
    )
    assert app.json("release", NAME, "--any-folder")["removed"] == [
        {"disk": "vda", "bitmap": "vmb-12345678-000000-abcdef"}
    ]
    app.call("backup", NAME)
    app.world.hypervisor.fail["remove_bitmaps"] = Busy("VM 'x'", "no lock")
    result = app.call("release", "--all")
    assert result.exit_code == 3
    assert "Warning: Disk vda: VM 'x' is busy: no lock. It can be done when" in result.stdout
    (found,) = app.json("release", "--all", code=3)
    assert (found["vm"], found["removed"], len(found["left"])) == (NAME, [], 1)
