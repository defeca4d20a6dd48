"""The command line as a client of the daemon, over a real socket."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fakes.services import AT, NAME
from tests.support.fakes.working import Daemon, a_daemon, ends, runs
from tests.support.served import eventually
from vm_babysitter.cli import follow
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    Damaged,
    HypervisorUnreachable,
    VmNotFound,
)
from vm_babysitter.domain.job import (
    Job,
    JobKind,
    JobRequest,
    JobState,
    Origin,
    Outcome,
    Result,
    interrupt,
    transition,
)
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.app import ServeOptions
from vm_babysitter.views import JobView, SettingsView

DONE = ends(Outcome(Result.OK, "All is done."))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    store = tmp_path / "store"
    store.mkdir()
    with a_daemon(store) as found:
        yield found


def standalone(daemon: Daemon, *arguments: str) -> str:
    return daemon.app.call(*arguments).stdout.replace("vm-babysitter --standalone", "PROGRAM")


def asked(daemon: Daemon, *arguments: str) -> str:
    program = f"vm-babysitter --socket {daemon.socket}"
    return daemon.call(*arguments).stdout.replace(program, "PROGRAM")


# --- what is looked at


@pytest.mark.parametrize(
    "command",
    [("vms",), ("points",), ("points", NAME), ("plan", NAME), ("status", NAME)],
    ids=" ".join,
)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_the_daemon_and_this_process_tell_the_same(
    daemon: Daemon, command: tuple[str, ...], as_json: list[str]
) -> None:
    for _ in ("good", "interrupted"):
        mine = standalone(daemon, *command, *as_json)
        assert mine
        assert asked(daemon, *command, *as_json) == mine
        daemon.app.world.backup_killed_at("copy")
        daemon.show()


def test_a_plan_that_is_hindered_says_how_the_backups_are_and_fails(daemon: Daemon) -> None:
    daemon.app.world.vm.state = PowerState.SHUTTING_DOWN
    daemon.show()
    daemon.services.failures["plan"] = Busy("VM 'x'", "it is shutting down")
    result = daemon.call("plan", NAME)
    assert result.exit_code == 11
    assert result.stdout.startswith("The backups of ")
    assert "it is shutting down" in result.stderr
    assert daemon.json("plan", NAME, code=11)["error"]["code"] == "busy"
    assert daemon.call("plan", "nobody").stdout == ""


@pytest.mark.parametrize(
    "error", [VmNotFound(NAME), Busy("VM", "{it}"), HypervisorUnreachable("qemu:///system", "no")]
)
def test_what_is_wrong_is_told_as_if_it_had_happened_here(
    daemon: Daemon, error: BabysitterError
) -> None:
    daemon.services.error = daemon.app.error = error
    mine, theirs = daemon.app.call("vms"), daemon.call("vms")
    assert theirs.exit_code == mine.exit_code == int(error.exit_code)
    told = theirs.stderr.replace(f" --socket {daemon.socket}", " --standalone")
    assert (told, theirs.stdout) == (mine.stderr, mine.stdout)
    data = daemon.json("vms", code=int(error.exit_code))
    assert data["error"]["fields"] == error.fields
    assert set(data["error"]) == {"code", "message", "hint", "fields"}


def test_a_daemon_of_another_version_is_not_misunderstood(daemon: Daemon) -> None:
    daemon.services.vm_view = replace(daemon.services.vm_view, disks=7)  # type: ignore[arg-type]
    error = daemon.json("vms", code=20)["error"]
    assert "may be of another version" in error["message"]
    daemon.services.error = RuntimeError("a bug")
    assert daemon.json("vms", code=1)["error"]["code"] == "bug"


def test_the_socket_is_named_in_the_environment_too(daemon: Daemon) -> None:
    daemon.environment = {"VMB_SOCKET": str(daemon.socket)}
    daemon.socket = Path("/nowhere/x")
    assert daemon.call("vms").exit_code == 20, "the option counts"
    daemon.named = False
    assert daemon.call("vms").exit_code == 0


# --- status


def test_the_status_says_whether_all_is_fine_what_runs_what_is_next_and_what_to_do(
    daemon: Daemon,
) -> None:
    daemon.call("backup", NAME, "--detach")
    daemon.call("verify", NAME, "--detach")
    daemon.services.ahead = [runs(step="copy vda", done_bytes=1 << 20, total_bytes=4 << 20)]
    daemon.call("jobs", "1")
    result = daemon.call("status")
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "See below.",
        "To do:",
        "  - The backup folder is nearly full.",
    ]
    assert lines[3] == "      -> Free some space."
    assert lines[4] == f"Now:    job 1, backup of {NAME!r}: copy vda: 25%, 1 MiB of 4 MiB"
    assert lines[5] == f"Queued: job 2, verify of {NAME!r}: queued"
    assert lines[6] == f"Next:   daily (backup) {AT.astimezone():%Y-%m-%d %H:%M %Z}"
    assert lines[8].split() == ["VM", "STATE", "BACKED", "UP", "BACKUPS"]
    assert lines[9].endswith("good")
    data = daemon.json("status", code=3)
    assert (data["fine"], len(data["running"]), len(data["queued"])) == (False, 1, 1)


# --- jobs that are followed


def test_a_backup_is_followed_and_told_as_if_made_here(daemon: Daemon) -> None:
    point = daemon.services.point_views[-1]
    daemon.services.ahead = [
        lambda job: transition(job, JobState.WAITING, waits_for="the array is not started"),
        runs(started=point.manifest.started if point.manifest else AT, step="copy vda"),
        ends(Outcome(Result.OK, "Done.", point.point)),
    ]
    daemon.services.logs = [
        b"",
        b"2026-11-24 02:15:00.000Z info job 1: backup of x begins.\n"
        b"2026-11-24 02:15:00.000Z info job 1: step: copy vda\n"
        b"2026-11-24 02:15:00.000Z info job 1: It's odd: {really}.\n    and so on\n",
        b"2026-11-24 02:15:00.000Z info job 1: ok: Done.\n",
    ]
    result = daemon.call("backup", NAME, "--full", "--limit", "1M", "--no-compress")
    assert result.exit_code == 0, result.output
    assert f"Restore point {point.point} of {NAME!r} is complete: increment" in result.stdout
    waited, _, noted = result.stderr.partition("\n")
    assert waited == "Job 1 waits: the array is not started."
    assert noted == "It's odd: {really}.\n    and so on\n"
    asked = next(call for call in daemon.services.asked if call[0] == "submit")
    options = {"full": True, "limit": 1 << 20, "compress": False}
    assert asked == ("submit", JobKind.BACKUP, NAME, options)


@pytest.mark.parametrize(
    ("arguments", "kind", "options"),
    [
        (["backup", NAME], JobKind.BACKUP, {}),
        (
            ["backup", NAME, "--reread-runs", "30", "--track-internal-snapshots"],
            JobKind.BACKUP,
            {"reread_runs": 30, "track_snapshots": True},
        ),
        (
            ["verify", NAME, "latest", "--structure", "--priority", "low"],
            JobKind.VERIFY,
            {"point": "latest", "structure": True, "low_priority": True},
        ),
        (["repair", NAME, "--remove-lost"], JobKind.REPAIR, {"remove_lost": True}),
        (["release", NAME], JobKind.RELEASE, {}),
        (["release", NAME, "--any-folder"], JobKind.RELEASE, {"any_folder": True}),
        (
            ["restore", NAME, "latest", "--to", "a b", "--disk", "vda", "--format", "raw"],
            JobKind.RESTORE,
            {
                "point": "latest",
                "to": f"{Path.cwd()}/a b",
                "disks": ["vda"],
                "format": "raw",
            },
        ),
        (
            ["convert", NAME, "vda", "--undo", "--lose-changes"],
            JobKind.CONVERT,
            {"disk": "vda", "undo": True, "lose_changes": True},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_only_what_was_said_is_asked_for(
    daemon: Daemon, arguments: list[str], kind: JobKind, options: dict[str, object]
) -> None:
    result = daemon.call(*arguments, "--detach")
    assert result.exit_code == 0, result.output
    assert f"Job 1, {kind} of {NAME!r}: queued." in result.stdout
    assert result.stdout.endswith(" jobs 1\n")
    job = daemon.services.taken[0]
    assert (job.request.kind, dict(job.request.options)) == (kind, options)
    assert daemon.json("jobs", "1")["state"] == "queued"
    assert daemon.json(*arguments, "--detach")["id"] == 2


@pytest.mark.parametrize("command", ["verify", "repair", "restore", "convert", "release"])
def test_what_other_jobs_came_to_is_told(daemon: Daemon, command: str) -> None:
    words = {"restore": ["latest", "--to", "/x"], "convert": ["vda"]}.get(command, [])
    daemon.services.ahead = [runs(), DONE]
    result = daemon.call(command, NAME, *words)
    assert result.exit_code == 0, result.output
    told = {
        "repair": f"The backups of {NAME!r} are good.\n",
        "convert": "To go back: vm-babysitter --socket ",
    }.get(command, "")
    assert result.stdout.startswith(f"All is done.\n{told}")
    daemon.services.ahead = [runs(), DONE]
    data = daemon.json(command, NAME, *words)
    assert (data["id"], data["result"], data["summary"]) == (2, "ok", "All is done.")


def test_all_vms_are_given_back(daemon: Daemon) -> None:
    daemon.services.raw["vms"] = {"chosen": ["x"], "ignored": ["y"]}
    daemon.services.raw["autostart"] = {"vms": [{"vm": "gone"}], "taken": ["z"]}
    daemon.services.ahead = [runs(), DONE]
    daemon.services.logs = [b"2026-11-24 02:15:00.000Z warning job 1: Disk vda: it is away.\n"]
    result = daemon.call("release", "--all")
    assert result.exit_code == 0, result.output
    expected = f"VM {NAME!r}: All is done.\nWarning: Disk vda: it is away.\n"
    assert result.stdout == expected
    chosen = {"mode": "chosen", "chosen": [], "ignored": ["y"]}
    assert daemon.services.raw["vms"] == chosen
    assert daemon.services.raw["autostart"] == {"vms": [], "taken": ["z"]}
    order = [call[0] for call in daemon.services.asked if call[0] in {"save", "submit"}]
    assert order == ["save", "submit"]
    assert daemon.services.asked[-1][0] == "job"
    daemon.services.ahead = [runs(), ends(Outcome(Result.WARNINGS, "Not all."))]
    (found,) = daemon.json("release", "--all", "--any-folder", code=3)
    assert (found["summary"], found["options"]) == ("Not all.", {"any_folder": True})
    result = daemon.call("release", "--all", "--detach")
    assert f"Job 3, release of {NAME!r}: queued." in result.stdout


@pytest.mark.parametrize("words", [[], [NAME, "--all"]])
def test_one_vm_is_given_back_or_all(daemon: Daemon, words: list[str]) -> None:
    result = daemon.call("release", *words)
    assert result.exit_code == 2
    assert "Name one VM, or give --all." in result.stderr
    assert daemon.services.taken == []


WARNED = b"2026-11-24 02:15:00.000Z warning job 1: c/000000: vda.qcow2 is torn\n"


@pytest.mark.parametrize(
    ("outcome", "code", "error"),
    [
        (Outcome(Result.NOTHING, "Nothing was to be done."), 0, ""),
        (Outcome(Result.WARNINGS, "Done."), 3, ""),
        (Outcome(Result.FAILED, "Bad.", code="point-damaged", hint="Look."), 12, "point-damaged"),
        (Outcome(Result.FAILED, "Busy.", code="busy"), 11, "busy"),
        (Outcome(Result.FAILED, "What?", code="unheard-of"), 1, "unheard-of"),
        (Outcome(Result.CANCELLED, "Stopped on request."), 130, "cancelled"),
    ],
)
def test_it_ends_as_the_job_did(daemon: Daemon, outcome: Outcome, code: int, error: str) -> None:
    daemon.services.ahead, daemon.services.logs = [runs(), ends(outcome)], [WARNED]
    result = daemon.call("verify", NAME)
    assert result.exit_code == code
    assert result.stdout.endswith("Warning: c/000000: vda.qcow2 is torn\n")
    if error:
        assert f"Error: {outcome.summary}\n{outcome.hint}" in result.stderr
    else:
        assert result.stdout.startswith(outcome.summary)
    daemon.services.ahead = [runs(), ends(outcome)]
    data = daemon.json("verify", NAME, code=code)
    if error:
        told = {"code": error, "message": outcome.summary, "hint": outcome.hint}
        assert data["error"] == {**told, "fields": {"job": 2}}
        assert data["job"]["id"] == 2
    else:
        assert data["summary"] == outcome.summary


def test_a_job_that_the_end_of_the_daemon_interrupted_has_failed(daemon: Daemon) -> None:
    daemon.services.ahead = [runs(), lambda job: interrupt(job, AT)]
    error = daemon.json("verify", NAME, code=1)["error"]
    assert error["code"] == "interrupted"


def test_what_is_not_taken_on_is_told_with_all_that_is_wrong(daemon: Daemon) -> None:
    data = daemon.json("restore", NAME, "not a point", "--to", "/x", "--disk", "v d a", code=2)
    assert [each["path"] for each in data["error"]["errors"]] == ["options.point", "options.disks"]
    result = daemon.call("restore", NAME, "not a point", "--to", "/x", "--disk", "v d a")
    assert result.stderr.count("is not allowed") >= 2
    assert daemon.json("verify", "nobody", code=10)["error"]["code"] == "vm-not-found"


def press_ctrl_c(job: Job) -> Job:
    os.kill(os.getpid(), signal.SIGINT)
    return job


def test_ctrl_c_cancels_the_job_and_waits_for_its_end(daemon: Daemon) -> None:
    cancelled: list[int] = []

    def slowly(job: int) -> JobView:
        cancelled.append(job)
        daemon.services.ahead = [runs(), ends(Outcome(Result.CANCELLED, "Stopped on request."))]
        found = daemon.services.taken[job - 1]
        assert found.state is JobState.RUNNING
        return JobView.of(found)

    daemon.services.cancel = slowly  # type: ignore[method-assign]
    daemon.services.ahead = [runs(), press_ctrl_c]
    result = daemon.call("backup", NAME)
    assert (result.exit_code, cancelled) == (130, [1])
    assert "Job 1 is being cancelled" in result.stderr
    assert "Error: Stopped on request." in result.stderr


def test_a_second_ctrl_c_does_not_wait(daemon: Daemon) -> None:
    daemon.services.ahead = [runs()]
    daemon.services.cancel = daemon.services.job  # type: ignore[method-assign]
    words = ["--socket", str(daemon.socket), "backup", NAME]
    with subprocess.Popen(
        [sys.executable, "-m", "vm_babysitter", *words], stderr=subprocess.PIPE
    ) as process:
        eventually(lambda: any(j.state is JobState.RUNNING for j in daemon.services.taken))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"being cancelled" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert b"goes on ending the job" in process.stderr.read()


def test_a_closed_terminal_leaves_the_job_alone(daemon: Daemon) -> None:
    daemon.services.ahead = [runs()]
    words = ["--socket", str(daemon.socket), "backup", NAME]
    with subprocess.Popen([sys.executable, "-m", "vm_babysitter", *words]) as process:
        eventually(lambda: any(j.state is JobState.RUNNING for j in daemon.services.taken))
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == -signal.SIGHUP
    assert daemon.services.taken[0].state is JobState.RUNNING


def test_a_daemon_that_is_gone_is_waited_for_and_then_given_up(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.2)

    def vanish(job: Job) -> Job:
        daemon.socket.unlink()
        return job

    daemon.services.ahead = [runs(), vanish]
    result = daemon.call("backup", NAME)
    assert result.exit_code == 20
    assert "it may be starting again" in result.stderr


# --- jobs, logs, cancel, schedules, events


def test_jobs_are_listed_and_filtered(daemon: Daemon) -> None:
    assert daemon.call("jobs").stdout == "There is no such job.\n"
    daemon.services.ahead = [runs(), ends(Outcome(Result.FAILED, "It\nbroke.", hint="Mend it."))]
    daemon.call("backup", NAME)
    daemon.call("verify", NAME, "--detach")
    rows = daemon.call("jobs").stdout.splitlines()
    assert rows[0].split() == ["JOB", "KIND", "VM", "BEGUN", "TOOK", "STATE", "WHAT"]
    assert rows[1].startswith("2    verify  ")
    assert rows[2].endswith("1 min 30 s  failed  It broke.")
    data = daemon.json("jobs", "--vm", NAME, "--state", "failed", "--state", "done", "--limit", "7")
    assert [job["id"] for job in data] == [1]
    states = (JobState.FAILED, JobState.DONE)
    assert daemon.services.asked[-1] == ("jobs", NAME, states, 7, None)
    text = daemon.call("jobs", "1").stdout
    assert "Mend it." in text
    assert text.splitlines()[-1] == f"log            vm-babysitter --socket {daemon.socket} logs 1"
    assert daemon.json("jobs", "9", code=10)["error"]["code"] == "job-not-found"
    assert daemon.call("jobs", "x").exit_code == daemon.call("jobs", "0").exit_code == 2


def test_a_job_of_a_schedule_says_so(daemon: Daemon) -> None:
    request = JobRequest(JobKind.BACKUP, "u", NAME, {}, Origin.RETRY, "daily", 2, AT)
    daemon.services.taken.append(Job(1, request, JobState.QUEUED, AT))
    text = daemon.call("jobs", "1").stdout
    assert "retry 'daily', try 2, " in text
    assert f"not before {AT.astimezone():%Y-%m-%d %H:%M %Z}" in text


def test_a_log_is_printed_as_it_is(daemon: Daemon) -> None:
    daemon.services.log = b"a {line}\n" * 40000
    daemon.call("verify", NAME, "--detach")
    assert daemon.call("logs", "1").stdout == "a {line}\n" * 40000
    data = daemon.json("logs", "1", "--follow")
    assert (data["offset"], data["next_offset"], data["complete"]) == (0, 9 * 40000, True)
    assert data["text"] == "a {line}\n" * 40000
    assert daemon.call("logs", "2").exit_code == 10


def test_a_job_is_cancelled(daemon: Daemon) -> None:
    daemon.call("verify", NAME, "--detach")
    assert daemon.call("cancel", "1").stdout == "Job 1 has ended: cancelled\n"
    assert daemon.json("cancel", "1")["state"] == "cancelled"
    assert daemon.call("cancel", "2").exit_code == 10


def test_schedules_and_events_are_listed(daemon: Daemon) -> None:
    header, row = daemon.call("schedules").stdout.splitlines()
    assert header.split() == ["SCHEDULE", "KIND", "WHEN", "VMS", "LAST", "NEXT"]
    at = f"{AT.astimezone():%Y-%m-%d %H:%M %Z}"
    assert row == f"daily     backup  every day at 00:00  all that are backed up  -     {at}"
    assert daemon.json("schedules")[0]["name"] == "daily"
    header, row = daemon.call("events", "--vm", NAME, "--job", "1").stdout.splitlines()
    assert header.split() == ["WHEN", "JOB", "WEIGHT", "WHAT"]
    assert row == f"{at}  1    alert   Failed"
    assert daemon.services.asked[-1] == ("events", NAME, 1, 50)
    assert daemon.json("events")[0]["severity"] == "alert"


# --- settings


def test_settings_are_shown_with_their_defaults(daemon: Daemon) -> None:
    daemon.services.raw = {"version": 1, "backup": {"limit": 7}, "per_vm": {"a.b": {"x": 1}}}
    rows = [line.split() for line in daemon.call("settings", "show").stdout.splitlines()]
    assert ["backup.limit", "7"] in rows
    assert ["backup.parallel", "1", "(default)"] in rows
    assert ["schedules.0.when", '"@daily"', "(default)"] in rows
    assert ["per_vm.a\\.b.x", "1"] in rows
    assert daemon.json("settings", "show")["settings"] == daemon.services.raw


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("backup.limit", "7\n"),
        ("backup.parallel", "1\n"),
        ("schedules.0.when", "@daily\n"),
        ("per_vm.a\\.b", '{"x": 1}\n'),
    ],
)
def test_a_setting_is_got(daemon: Daemon, key: str, text: str) -> None:
    daemon.services.raw = {"version": 1, "backup": {"limit": 7}, "per_vm": {"a.b": {"x": 1}}}
    assert daemon.call("settings", "get", key).stdout == text


@pytest.mark.parametrize("key", ["nonsense", "backup.limit.more", "schedules.1", "schedules.x"])
def test_a_setting_that_is_not_there_is_not_found(daemon: Daemon, key: str) -> None:
    for words in (["get", key], ["unset", key]):
        error = daemon.json("settings", *words, code=10)["error"]
        assert (error["code"], key in error["message"]) == ("key-not-found", True)
    assert daemon.call("settings", "get", "a..b").exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "section"),
    [
        ("backup.limit", "50 MiB", {"backup": {"compress": True, "limit": "50 MiB"}}),
        ("backup.limit", "50", {"backup": {"compress": True, "limit": 50}}),
        ("backup.limit", '"50"', {"backup": {"compress": True, "limit": "50"}}),
        ("waits.parity", "ignore", {"waits": {"parity": "ignore"}}),
        ("vms.ignored", '["a", "b"]', {"vms": {"ignored": ["a", "b"]}}),
        ("vms.ignored.0", "a", {"vms": {"ignored": ["a"]}}),
        ("per_vm.a\\.b.compress", "true", {"per_vm": {"a.b": {"compress": True}}}),
    ],
)
def test_a_setting_is_set_and_nothing_else(
    daemon: Daemon, key: str, value: str, section: dict[str, object]
) -> None:
    daemon.services.raw = before = {"version": 1, "backup": {"compress": True}}
    tag = daemon.services.tag
    result = daemon.call("settings", "set", key, value)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{key} = ")
    assert daemon.services.raw == before | section
    assert ("save", tag) in daemon.services.asked


def test_an_entry_of_a_list_is_changed_though_the_list_was_the_default_one(daemon: Daemon) -> None:
    daemon.call("settings", "set", "schedules.0.when", "@weekly")
    (schedule,) = daemon.services.raw["schedules"]
    assert (schedule["when"], schedule["name"]) == ("@weekly", "daily backup")
    daemon.call("settings", "unset", "schedules.0")
    assert daemon.services.raw == {"version": 1, "schedules": []}
    daemon.call("settings", "unset", "schedules")
    assert daemon.services.raw == {"version": 1}
    daemon.call("settings", "unset", "schedules.0")
    assert daemon.services.raw == {"version": 1, "schedules": []}


def test_a_setting_of_somebody_else_is_not_overwritten(daemon: Daemon) -> None:
    show = daemon.services.settings

    def changing() -> SettingsView:
        found = show()
        daemon.services.raw = {"version": 1, "backup": {"parallel": 2}}
        return found

    daemon.services.settings = changing  # type: ignore[method-assign]
    error = daemon.json("settings", "set", "backup.limit", "1", code=11)["error"]
    assert error["code"] == "settings-changed"
    assert daemon.services.raw == {"version": 1, "backup": {"parallel": 2}}


def test_all_mistakes_are_told_at_once(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "it's a {file}"
    path.write_text('\ufeff{"version": 1, "bad": 1, "odd": 2}')
    result = daemon.call("settings", "check", str(path))
    assert result.exit_code == 2
    for number in range(2):
        assert f"bad.{number}: 1 must be good.\n      -> For example 2.\n" in result.stdout
    assert "Note: odd: is unknown\n" in result.stdout
    assert len(daemon.json("settings", "check", str(path), code=2)["errors"]) == 2
    for words in (["import", str(path)], ["set", "bad", "1"]):
        result = daemon.call("settings", *words)
        assert result.exit_code == 2
        assert all(f"bad.{n}: 1 must be good.\n" in result.stderr for n in range(2))
        assert len(daemon.json("settings", *words, code=2)["error"]["errors"]) == 2
    assert daemon.services.raw == {"version": 1}


def test_settings_are_exported_and_imported(daemon: Daemon, tmp_path: Path) -> None:
    daemon.services.raw = first = {"version": 1, "per_vm": {NAME: {"compress": True}}}
    path = tmp_path / "s.json"
    text = daemon.call("settings", "export").stdout
    assert json.loads(text) == first
    assert daemon.call("settings", "export", str(path)).exit_code == 0
    assert path.read_text() == text
    daemon.services.raw = {"version": 1}
    assert "Imported.\nNote: per_vm" in daemon.call("settings", "import", str(path)).stdout
    assert daemon.services.raw == first
    daemon.services.raw = {"version": 1}
    daemon.call("settings", "import", "-", typed=text.encode())
    assert daemon.services.raw == first
    for content in ("[1]", "{", "\udcff"):
        path.write_bytes(content.encode(errors="surrogateescape"))
        assert daemon.json("settings", "import", str(path), code=2)["error"]["code"] == (
            "invalid-input"
        )
    assert daemon.json("settings", "check", "/nowhere", code=1)["error"]["code"] == "system-failed"


def test_settings_are_imported_in_place_of_damaged_ones(daemon: Daemon) -> None:
    def damaged() -> SettingsView:
        raise Damaged("/boot/settings.json", "it is no JSON", "Correct it, or save settings anew.")

    daemon.services.settings = damaged  # type: ignore[method-assign]
    assert daemon.call("settings", "show").exit_code == 12
    new = {"version": 1, "backup": {"parallel": 2}}
    assert daemon.call("settings", "import", "-", typed=json.dumps(new).encode()).exit_code == 0
    assert daemon.services.raw == new


# --- serve, completion, colours


def test_the_daemon_is_run_as_it_is_told(daemon: Daemon) -> None:
    error = daemon.json("serve", code=1)["error"]
    assert error["code"] == "no-daemon"
    told: list[ServeOptions] = []

    def serve(options: ServeOptions) -> int:
        told.append(options)
        return 5

    daemon.serve = serve
    words = ["--settings", "/a b", "--state", "/s", "--socket", "/k", "--uri", "u"]
    words += ["--runtime", "/r", "--allow-ram-store"]
    assert daemon.call("serve", *words).exit_code == 5
    assert daemon.call("serve").exit_code == 5
    paths = map(Path, ("/a b", "/s", "/k", "/r"))
    settings, state, socket, runtime = paths
    assert told == [
        ServeOptions(settings, state, socket, "u", runtime, allow_ram_store=True),
        ServeOptions(socket=daemon.socket),
    ]

    def busy(_options: ServeOptions) -> int:
        raise Busy("The socket", "somebody has it")

    daemon.serve = busy
    assert daemon.json("serve", code=11)["error"]["code"] == "busy"


def completed(daemon: Daemon, *words: str) -> list[str]:
    """What a shell is told to complete the last word to."""
    daemon.environment = {
        "COMP_WORDS": " ".join(["vm-babysitter", *words]),
        "COMP_CWORD": str(len(words)),
        "_VM_BABYSITTER_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-m", "vm_babysitter"],
        env={**os.environ, **daemon.environment, "VMB_SOCKET": str(daemon.socket)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_names_and_numbers_are_completed_by_the_daemon(daemon: Daemon) -> None:
    daemon.call("verify", NAME, "--detach")
    assert completed(daemon, "plan", "''") == [f"plain,{NAME}"]
    assert completed(daemon, "points", "x") == [""]
    assert completed(daemon, "logs", "''") == ["plain,1"]
    assert completed(daemon, "settings", "get", "backup.l") == [
        "plain,backup.limit",
        "plain,backup.low_priority",
        "plain,backup.longest",
    ]
    daemon.socket = Path("/nowhere")
    assert completed(daemon, "plan", "''") == [""]


def test_bash_takes_a_completed_name_as_one_word(daemon: Daemon, tmp_path: Path) -> None:
    script = daemon.call("completion", "bash").stdout
    program = tmp_path / "vm-babysitter"
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -m vm_babysitter "$@"\n')
    program.chmod(0o755)
    code = f"""{script}
COMP_WORDS=(vm-babysitter plan it) COMP_CWORD=2
_vm_babysitter_completion vm-babysitter
eval "set -- ${{COMPREPLY[0]}}"
printf '%s\\n' "$#" "$1"
"""
    done = subprocess.run(
        ["bash", "-c", code],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        | {"VMB_SOCKET": str(daemon.socket), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == f"1\n{NAME}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts_too(daemon: Daemon, shell: str) -> None:
    assert "_VM_BABYSITTER_COMPLETE" in daemon.call("completion", shell).stdout
    assert daemon.json("completion", shell)["shell"] == shell


def test_colours_are_for_terminals_that_want_them(daemon: Daemon) -> None:
    assert "\x1b[" in daemon.call("status", color=True).stdout
    assert "\x1b[" not in daemon.call("status").stdout
    assert "\x1b[" not in daemon.call("status", "--json", color=True).stdout
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        daemon.environment = environment
        assert "\x1b[" not in daemon.call("status", color=True).stdout
