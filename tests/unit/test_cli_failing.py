"""How the command line fails: no failure is silent, and programs are told of each."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from vm_babysitter.cli import output
from vm_babysitter.cli.main import cli
from vm_babysitter.domain.errors import HypervisorUnreachable, StoreNotGiven, StoreRefused

EMPTY = StoreRefused("/x", "it is empty, there are no backups yet", "Is its disk mounted?")
ARGUMENTS: dict[str, list[str]] = {
    "vms": [],
    "status": [],
    "plan": [NAME],
    "repair": [NAME],
    "release": [NAME],
    "backup": [NAME],
    "points": [],
    "check-store": ["/x"],
    "verify": [NAME],
    "restore": [NAME, "latest", "--to", "/x"],
    "convert": [NAME, "vda"],
}
OF_THE_DAEMON: dict[str, list[str]] = {
    "jobs": [],
    "logs": ["1"],
    "cancel": ["1"],
    "schedules": [],
    "events": [],
    "autostart": ["list"],
    "notify": ["test"],
    "settings": ["show"],
}
BY_ITSELF: dict[str, list[str]] = {"serve": [], "self-check": [], "completion": ["bash"]}
each_command = pytest.mark.parametrize("command", ARGUMENTS)


@pytest.fixture
def app(ram_path: Path) -> FakeApp:
    return FakeApp(EngineWorld(ram_path, name=NAME))


# --- status without a backup folder


@pytest.mark.parametrize(("problem", "code"), [(StoreNotGiven(), 2), (EMPTY, 1)])
@pytest.mark.parametrize("vm", [[], [NAME]])
def test_status_without_backups_lists_the_vms_and_fails(
    app: FakeApp, problem: StoreRefused, code: int, vm: list[str]
) -> None:
    app.world.backup()
    app.no_store = problem
    result = app.call("status", *vm)
    assert result.exit_code == code
    _, row = result.stdout.splitlines()
    assert row.startswith(NAME)
    assert " running " in row
    assert row.endswith("not known: no backup folder")
    assert result.stderr == f"Error: {problem.message}\n{problem.hint}\n"
    data = app.json("status", *vm, code=code)
    assert data["error"]["code"] == problem.code
    (found,) = data["vms"]
    assert (found["vm"], found["health"], found["steps"]) == (NAME, None, [])


def test_status_without_backups_says_nothing_about_them(app: FakeApp) -> None:
    app.no_store = EMPTY
    app.world.vm.disks.clear()
    text = app.call("status").stdout
    assert f"Whether there are backups of {NAME!r} is not known.\n  - VM " in text
    assert "no backup yet" not in text
    assert "lost" not in text
    app.world.hypervisor.machines.clear()
    result = app.call("status")
    assert (result.exit_code, result.stdout) == (1, "There is no VM.\n")


def test_a_vm_that_may_be_left_in_the_backup_folder_only_is_not_called_unknown(
    app: FakeApp,
) -> None:
    app.no_store = EMPTY
    assert app.json("status", "gone", code=1)["error"]["code"] == "store-refused"
    app.no_store = None
    assert app.json("status", "gone", code=10)["error"]["code"] == "vm-not-found"


def test_libvirt_that_does_not_answer_is_told_first(app: FakeApp) -> None:
    app.no_store = EMPTY
    app.world.hypervisor.fail["outlines"] = HypervisorUnreachable("x", "y")
    assert app.json("status", code=1)["error"]["code"] == "hypervisor-unreachable"


# --- what programs are told


def test_each_command_is_tried_here() -> None:
    assert set(ARGUMENTS | OF_THE_DAEMON | BY_ITSELF) == set(cli.commands)


@pytest.mark.parametrize("command", sorted({*ARGUMENTS, *OF_THE_DAEMON} - {"check-store"}))
def test_programs_are_told_that_there_is_no_daemon(app: FakeApp, command: str) -> None:
    words = [command, *(ARGUMENTS | OF_THE_DAEMON)[command], "--json"]
    result = app.call("--socket", "/nowhere/x", *words, standalone=False)
    assert result.exit_code == 20
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "daemon-missing"
    assert "/nowhere/x" in error["message"]
    assert "--standalone" in error["hint"]


@pytest.mark.parametrize("command", OF_THE_DAEMON)
def test_what_only_the_daemon_knows_is_not_asked_for_without_it(app: FakeApp, command: str) -> None:
    error = app.json(command, *OF_THE_DAEMON[command], code=2)["error"]
    assert (error["code"], "leave out --standalone" in error["message"]) == ("usage", True)


@pytest.mark.parametrize("option", [["--store", "/x"], ["--uri", "x:///"], ["--allow-ram-store"]])
def test_the_daemon_is_not_told_where_things_are(app: FakeApp, option: list[str]) -> None:
    result = app.call("--socket", "/nowhere/x", *option, "points", standalone=False)
    assert (result.exit_code, app.places) == (2, [])
    assert "go with --standalone only" in result.stderr


def test_a_folder_is_checked_with_or_without_a_daemon(app: FakeApp) -> None:
    said = [app.call("check-store", "/x", standalone=alone).stdout for alone in (True, False)]
    assert said[0] == said[1] != ""
    assert app.probe.asked == [("look", Path("/x"), [f"{NAME} (vda)"])] * 2


@pytest.mark.parametrize("command", ["backup", "verify", "repair", "restore", "convert"])
def test_nothing_is_left_to_a_daemon_that_is_not_asked(app: FakeApp, command: str) -> None:
    error = app.json(command, *ARGUMENTS[command], "--detach", code=2)["error"]
    assert (error["code"], app.places) == ("usage", [])


@each_command
def test_programs_are_told_of_an_error_of_the_system(app: FakeApp, command: str) -> None:
    app.error = OSError(28, "No space left on device", "/a b")
    error = app.json(command, *ARGUMENTS[command], code=1)["error"]
    assert error == {
        "code": "system-failed",
        "message": "The system refused: No space left on device: '/a b'.",
        "hint": "",
        "fields": {"reason": "No space left on device: '/a b'"},
    }


@pytest.mark.parametrize("command", cli.commands)
def test_programs_are_told_of_wrong_usage(app: FakeApp, command: str) -> None:
    arguments = (ARGUMENTS | OF_THE_DAEMON | BY_ITSELF)[command]
    error = app.json(command, *arguments, "--nonsense", code=2)["error"]
    groups = {"settings": "settings show", "autostart": "autostart list", "notify": "notify test"}
    command = groups.get(command, command)
    assert error["code"] == "usage"
    assert "--nonsense" in error["message"]
    assert f"{command} --help`" in error["hint"]
    assert set(error) == {"code", "message", "hint", "fields"}


@each_command
def test_programs_are_told_of_a_mistake_of_ours(app: FakeApp, command: str) -> None:
    app.error = RuntimeError("what?")
    result = app.call(command, *ARGUMENTS[command], "--json")
    assert isinstance(result.exception, RuntimeError)
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["message"]) == ("internal", "RuntimeError: what?")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["--nonsense", "vms"], ["backup"], ["--store", "", "points"], ["--uri"]],
)
def test_usage_is_told_as_data_to_programs_only(app: FakeApp, arguments: list[str]) -> None:
    error = app.json(*arguments, code=2)["error"] if arguments != ["--uri"] else {"code": "usage"}
    assert error["code"] == "usage"
    result = app.call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_vm_called_like_the_option_is_no_program(app: FakeApp) -> None:
    result = app.call("plan", "--", "--json")
    assert (result.exit_code, result.stdout) == (10, "")


@pytest.mark.parametrize("option", [["--store", "", "points"], ["check-store", ""]])
def test_a_path_of_an_unset_variable_is_not_the_current_folder(
    app: FakeApp, option: list[str]
) -> None:
    result = app.call(*option)
    assert (result.exit_code, app.places) == (2, [])
    assert "is empty; name a folder" in result.stderr
    assert app.call("restore", NAME, "latest", "--to", "").exit_code == 2


# --- standard output and error, whatever they are

SAY = "from vm_babysitter.cli import output; output.have_streams(); "


def in_a_shell(script: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", "bash", sys.executable, "-c", SAY + code],
        capture_output=True,
        check=False,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, **environment},
    )


def test_that_nobody_reads_on_is_no_failure() -> None:
    code = "output.say('a\\n' * 99999); output.say('b' * 99999); raise SystemExit(3)"
    done = in_a_shell('"$@" | head -1', code)
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\n", "")


def test_a_result_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    call = (
        "from tests.support.fakes.app import *; from pathlib import Path; "
        f"app = FakeApp(EngineWorld(Path({str(tmp_path)!r}))); "
        "cli.main(['--standalone', 'vms'], obj=Parts(app.compose))"
    )
    done = in_a_shell('"$@" > /dev/full', call)
    assert done.returncode == 1
    assert done.stderr == "Error: The system refused: No space left on device.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_is_written_to_any_terminal(encoding: str) -> None:
    data = ["é 猫 😀", "\udcff"]
    code = f"output.say_json({data!a}); output.say({data!a}[0])"
    done = in_a_shell('"$@"', code, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0]) == data


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    code = (
        "import os; from vm_babysitter.cli.progress import TerminalObserver; "
        f"number = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY); "
        "output.say('a'); output.complain('b'); TerminalObserver().note('c'); "
        "os.write(number, str(number > 2).encode())"
    )
    done = in_a_shell(f'"$@" {closed}', code)
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "True"


def test_the_same_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("vm_babysitter.test.once")
    log.addHandler(output.Once())
    for _ in range(3):
        log.warning("%s is damaged", "this")
        log.warning("%s is damaged", "that")
        log.info("by the way")
    log.handlers.clear()
    assert capsys.readouterr().err == "this is damaged\nthat is damaged\n"


def test_nothing_that_is_open_is_touched() -> None:
    before = [os.fstat(number) for number in (0, 1, 2)]
    output.have_streams()
    assert [os.fstat(number) for number in (0, 1, 2)] == before
