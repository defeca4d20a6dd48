"""The fail-safe of the autostart in shell: VMs come up whatever has become of the daemon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.autostart_host import (
    GUARD,
    HOOK,
    AutostartHost,
    FakeDaemon,
    states,
)
from tests.support.served import short_folder

A, B, C, D = (f"{n}0000000-1111-4222-8333-444444444444" for n in "abcd")
Answer = Callable[[Mapping[str, object]], tuple[int, object]]


@pytest.fixture
def host() -> Iterator[AutostartHost]:
    with short_folder() as folder:
        host = AutostartHost(folder / "host")
        yield host


@pytest.fixture
def three(host: AutostartHost) -> AutostartHost:
    """Three VMs that are off, in another order than that of their names."""
    for uuid in (A, B, C):
        host.vm(uuid)
    host.write_list((B, 0, "router"), (C, 0, "mail"), (A, 0, "db"))
    return host


@contextmanager
def daemon(host: AutostartHost, answer: Answer) -> Iterator[FakeDaemon]:
    found = FakeDaemon(host.socket, answer)
    try:
        yield found
    finally:
        with suppress(OSError):
            found.close()


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def all_started(host: AutostartHost) -> None:
    """Judge that the three VMs were started in order, once, and that this was told once."""
    assert host.started() == [B, C, A]
    assert host.markers() == {A: "done", B: "done", C: "done"}
    assert (host.folder / "finished").exists()
    [told] = host.told()
    assert (told.severity, told.subject) == ("warning", "VMs were started without the daemon")
    assert "did not answer for 60 seconds" in told.text
    assert "Started: router, mail, db." in told.text


def test_nobody_there_starts_all_in_order_and_tells_once(three: AutostartHost) -> None:
    done = three.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    all_started(three)
    arguments = three.told()[0].arguments
    assert arguments[:2] == ("-e", "VM Babysitter")
    assert arguments[-2:] == ("-l", "/Settings/VMBabysitter")


def test_a_minute_is_waited_before(three: AutostartHost) -> None:
    began = time.monotonic()
    three.run()
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    "command",
    [
        ["false"],
        ["/usr/local/vm-babysitter/no-such/python3.11", "-m", "vm_babysitter", "serve"],
        [sys.executable, "-m", "vm_babysitter", "serve", "--state", "/no-such-pool/state"],
    ],
    ids=["replaced by false", "Python is missing", "the state folder is missing"],
)
def test_a_daemon_that_does_not_start(three: AutostartHost, command: list[str]) -> None:
    if "--state" in command:
        command += ["--socket", str(three.socket), "--settings", str(three.config / "s.json")]
    try:
        serving = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        three.run()
    else:
        with serving:
            three.run()
            assert serving.wait(60) != 0
    all_started(three)


def test_a_socket_that_nobody_listens_at(three: AutostartHost) -> None:
    with daemon(three, states(then="running")) as dead:
        dead.close()
        assert three.socket.exists()
        three.run()
    all_started(three)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: (404, {"title": "not found"}),
        lambda _: (500, {"state": "running"}),
        lambda _: (202, {"state": "whatever"}),
        lambda _: (202, ["running"]),
    ],
    ids=["knows no autostart", "fails", "tells nothing", "nonsense"],
)
def test_an_answer_that_is_none(three: AutostartHost, answer: Answer) -> None:
    with daemon(three, answer):
        three.run()
    all_started(three)


def test_a_daemon_that_hangs(three: AutostartHost) -> None:
    def hang(_: Mapping[str, object]) -> tuple[int, object]:
        time.sleep(1.0)
        return 202, {"state": "running"}

    with daemon(three, hang):
        three.run(VMB_ANSWER_SECONDS="0.1")
    all_started(three)


def test_curl_is_missing(three: AutostartHost) -> None:
    (three.root / "bin/curl").symlink_to("/no-such-program")
    (three.root / "bin/curl").unlink()
    (three.root / "bin/curl").write_text("#!/bin/bash\nexit 127\n")
    (three.root / "bin/curl").chmod(0o755)
    with daemon(three, states(then="finished")):
        three.run()
    all_started(three)


@pytest.mark.parametrize("last", ["finished", "held"])
def test_a_daemon_that_answers_does_it_alone(three: AutostartHost, last: str) -> None:
    with daemon(three, states(*["running"] * 35, then=last)) as found:
        three.run()
    assert three.calls() == []
    assert three.told() == []
    assert len(found.asked) == 36  # longer than a minute
    assert found.asked[0] == {"run": three.run_id}
    assert set(found.paths) == {"/api/v1/autostart/runs"}


def test_a_daemon_that_comes_late_does_it_alone(three: AutostartHost) -> None:
    guard = three.begin(VMB_SECOND="50")
    time.sleep(0.5)
    with daemon(three, states("running", then="finished")) as found:
        assert guard.wait(60) == 0
    assert len(found.asked) == 2
    assert three.calls() == []


def test_a_daemon_that_comes_when_the_first_vm_was_started_has_the_rest(
    host: AutostartHost,
) -> None:
    come = host.root / "come"
    host.vm(A, start=f"touch {come}; while [[ -e {come} ]]; do sleep 0.01; done")
    host.vm(B)
    host.write_list((A, 0, "router"), (B, 0, "mail"))
    guard = host.begin()
    eventually(come.exists)
    with daemon(host, states("running", then="finished")):
        come.unlink()
        assert guard.wait(60) == 0
    assert host.started() == [A]
    assert host.markers() == {A: "done"}
    assert not (host.folder / "finished").exists()
    assert "Started: router." in host.told()[0].text


def test_a_daemon_that_died_in_the_middle(host: AutostartHost) -> None:
    """It had started A, was starting B, and a user has switched C off since; D had failed."""
    last = "e0000000-1111-4222-8333-444444444444"
    host.vm(A)  # which the user has switched off later: it was started
    host.vm(B)
    host.vm(C)
    host.vm(D)
    host.vm(last)
    named = [(A, "a"), (B, "b"), (C, "c"), (D, "d"), (last, "e")]
    host.write_list(*((uuid, 0, name) for uuid, name in named))
    for uuid, state in [(A, "done"), (B, "begun"), (C, "stopped"), (D, "failed")]:
        host.mark(uuid, state)
    with daemon(host, states(then="running")) as found:
        guard = host.begin()
        eventually(lambda: len(found.asked) > 2)
    assert guard.wait(60) == 0
    assert host.started() == [B, last]
    expected = {A: "done", B: "done", C: "stopped", D: "failed", last: "done"}
    assert host.markers() == expected
    assert len(host.told()) == 1


def test_a_start_that_was_begun_and_has_succeeded_is_not_repeated(host: AutostartHost) -> None:
    host.vm(A, "running")
    host.write_list((A, 0, "router"))
    host.mark(A, "begun")
    host.run()
    assert host.started() == []
    assert host.markers() == {A: "done"}
    assert host.told() == []


def test_what_all_was_done_is_not_told(three: AutostartHost) -> None:
    for uuid in (A, B, C):
        three.mark(uuid, "done")
    three.run()
    assert three.calls() == []
    assert three.told() == []


def test_a_run_is_begun_once_for_each_start_of_the_vm_service(three: AutostartHost) -> None:
    three.run()
    (three.root / "vms" / B).write_text("shut off\n")  # by its user
    three.run()
    assert three.started() == [B, C, A]
    assert len(three.told()) == 1
    three.libvirtd_starts(1_764_009_999)
    three.run()
    assert three.started() == [B, C, A, B]


@pytest.mark.parametrize("state", ["running", "paused", "in shutdown", "pmsuspended", "idle"])
def test_a_vm_that_runs_already(host: AutostartHost, state: str) -> None:
    host.vm(A, state)
    host.write_list((A, 0, "router"))
    host.run()
    assert host.started() == []
    assert host.markers() == {A: "done"}


def test_a_crashed_vm_is_started(host: AutostartHost) -> None:
    host.vm(A, "crashed")
    host.write_list((A, 0, "router"))
    host.run()
    assert host.started() == [A]


def test_a_vm_that_was_started_by_somebody_meanwhile(host: AutostartHost) -> None:
    host.vm(A, start=f"echo running >{host.root}/vms/{A}")
    host.write_list((A, 0, "router"))
    host.run()
    assert host.markers() == {A: "done"}
    assert host.told()[0].severity == "warning"


# -- virsh ------------------------------------------------------------------------------------


def test_one_vm_that_does_not_start(three: AutostartHost) -> None:
    why = "echo 'error: Failed to start domain'; echo 'error: no medium in /dev/x' >&2; exit 1"
    three.vm(C, start=why)
    three.run()
    assert three.started() == [B, C, C, A]
    assert three.markers() == {A: "done", B: "done", C: "failed"}
    [told] = three.told()
    assert (told.severity, told.subject) == ("alert", "VM mail did not start")
    assert "Started: router, db." in told.text
    assert "Did not start: mail." in told.text
    assert "mail: no medium in /dev/x" in told.more


def test_odd_names_and_reasons_are_told_as_one_line_without_html(host: AutostartHost) -> None:
    host.vm(A, start="printf 'error: no <medium> in \\\\x\\n' >&2; exit 1")
    host.write_list((A, 0, 'My "VM" <b>& co \\'))
    host.run()
    [told] = host.told()
    assert told.subject == "VM My 'VM' (b)& co / did not start"
    assert not set('<>"\\\n') & set(told.subject + told.text + told.more)
    assert "by hand" in told.text


def test_a_second_try_helps(three: AutostartHost) -> None:
    once = three.root / "once"
    three.vm(C, start=f"[[ -e {once} ]] || {{ touch {once}; echo 'error: busy' >&2; exit 1; }}")
    three.run()
    assert three.started() == [B, C, C, A]
    assert three.told()[0].severity == "warning"


def test_a_vm_that_is_gone(host: AutostartHost) -> None:
    host.vm(B)
    host.write_list((A, 0, "old"), (B, 0, "router"))
    host.run()
    assert host.started() == [B]
    assert host.markers() == {A: "failed", B: "done"}
    assert "old: libvirt has no such VM" in host.told()[0].more


def test_libvirt_restarts_meanwhile(host: AutostartHost) -> None:
    back = f"(($(grep -c {A} {host.root}/virsh.log) > 4))"
    away = f"{back} || {{ echo 'error: no socket' >&2; exit 1; }}"
    host.vm(A, domstate=away, start=away)
    host.write_list((A, 0, "router"))
    host.run()
    assert host.started() == [A]
    assert host.markers() == {A: "done"}


def test_a_vm_is_gone_only_if_libvirt_can_list_the_others(host: AutostartHost) -> None:
    host.write_list((A, 0, "router"))
    (host.root / "unlisted").touch()
    host.run()
    assert host.started() == [A, A]  # it may be there
    assert "no such VM" not in host.told()[0].more


def test_virsh_hangs(three: AutostartHost) -> None:
    three.vm(B, start="exec sleep 30")
    three.vm(C, domstate="exec sleep 30")
    began = time.monotonic()
    three.run(VMB_START_SECONDS="0.2", VMB_LOOK_SECONDS="0.2")
    assert time.monotonic() - began < 20
    assert three.started() == [B, B, C, A]
    assert three.markers() == {A: "done", B: "failed", C: "done"}
    assert "router: no answer within 0.2 seconds" in three.told()[0].more


def test_virsh_is_missing(host: AutostartHost) -> None:
    host.write_list((A, 0, "router"))
    (host.root / "bin/virsh").write_text("#!/no-such-shell\n")
    host.run()
    [told] = host.told()
    assert (told.severity, told.subject) == ("alert", "VM router did not start")


@pytest.mark.parametrize("script", [None, "#!/bin/bash\nexec sleep 30\n", "#!/bin/bash\nexit 1\n"])
def test_a_notify_that_is_missing_hangs_or_fails(three: AutostartHost, script: str | None) -> None:
    notify = three.root / "usr/local/emhttp/webGui/scripts/notify"
    if script is None:
        notify.unlink()
        assert three.run().returncode == 0
    else:
        notify.write_text(script)
        guard = three.begin()
        try:
            eventually((three.folder / "finished").exists)
        finally:
            guard.kill()
            guard.wait()
    assert three.markers() == {A: "done", B: "done", C: "done"}


# -- the list ---------------------------------------------------------------------------------


def test_no_list_and_none_expected(host: AutostartHost) -> None:
    (host.config / "settings.json").write_text('{"version": 1}')
    host.run()
    assert host.calls() == []
    assert host.told() == []


def test_no_list_where_there_should_be_one(host: AutostartHost) -> None:
    (host.config / "settings.json").write_text('{"autostart": {"vms": [{"vm": "router"}]}}')
    host.run()
    [told] = host.told()
    assert (told.severity, told.subject) == ("alert", "The autostart list is missing")


def test_names_are_data(host: AutostartHost) -> None:
    names = {A: "-rf $(touch x) `id` %s \\n", B: 'it\'s a "VM"; 猫', C: " two  spaces "}
    for uuid in names:
        host.vm(uuid)
    host.write_list(*((uuid, 0, name) for uuid, name in names.items()))
    host.run()
    assert host.started() == [A, B, C]
    told = ", ".join(names.values()).translate(str.maketrans('"\\;', "'/,"))
    assert f"Started: {told}." in host.told()[0].text
    assert not (host.root / "x").exists()


@pytest.mark.parametrize(
    ("text", "started", "unreadable"),
    [
        (f"# vm-babysitter autostart 1\r\n{B}\t0\trouter\r\n{A}\t0\tdb\r\n", [B, A], 0),
        (f"\ufeff# vm-babysitter autostart 1\n{B}\t0\trouter\n", [B], 0),
        (f"# vm-babysitter autostart 1\n{B}\t0\trouter\n{A}\t0\tdb", [B, A], 0),
        (f"{B}\r\n{A}\t\t\n", [B, A], 0),
        (f"{B}\tsoon\trouter\n{A}\t-1\tdb\n", [B, A], 0),
        (f"{B.upper()}\t008\trouter\n\n  \n{B}\t0\tagain\n", [B], 0),
        (f"\x00\x01garbage\n{B}\t0\trouter\n{A[:-3]}\n", [B], 2),
        ("../../etc/passwd\t0\tx\n--all\t0\ty\n", [], 2),
        ("", [], 0),
    ],
    ids=["CRLF", "BOM", "no end", "UUIDs alone", "delays", "twice", "garbage", "evil", "empty"],
)
def test_a_list_that_is_not_as_it_was_written(
    host: AutostartHost, text: str, started: list[str], unreadable: int
) -> None:
    host.vm(A)
    host.vm(B)
    host.list.write_bytes(text.encode())
    done = host.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert host.started() == started
    assert [(t.severity == "alert") for t in host.told()] == [bool(unreadable)] * bool(
        started or unreadable
    )
    if unreadable:
        assert f"unreadable lines: {unreadable}." in host.told()[0].text


def test_delays_are_kept(host: AutostartHost) -> None:
    """From the start of the run for the first, else from when the one before was dealt with."""
    for uuid in (A, B, C):
        host.vm(uuid, start=f"date +%s%3N >>{host.root}/times")
    host.write_list((A, 30, "a"), (B, 40, "b"), (C, 0, "c"))
    host.run(VMB_SECOND="10")
    a, b, c = (int(word) for word in (host.root / "times").read_text().split())
    assert b - a >= 400
    assert c - b < 400


def test_fifty_vms(host: AutostartHost) -> None:
    uuids = [host.vm(f"{n:08x}-1111-4222-8333-444444444444") for n in range(50, 0, -1)]
    host.write_list(*((uuid, 0, f"vm {uuid[:8]}") for uuid in uuids))
    host.run()
    assert host.started() == uuids
    assert len(host.told()) == 1


# -- where nothing is to be started -----------------------------------------------------------


@pytest.mark.parametrize("line", ['DISABLE="yes"\n', "DISABLE=yes\r\n", 'A="1"\nDISABLE="YES"'])
def test_vms_are_not_to_be_started(three: AutostartHost, line: str) -> None:
    (three.root / "boot/config/domain.cfg").write_text(line)
    three.run()
    assert three.calls() == []
    [told] = three.told()
    assert (told.severity, told.subject) == ("warning", "VMs were not started")
    assert "DISABLE:'yes'" in told.text


@pytest.mark.parametrize("line", ['DISABLE="no"\n', '#DISABLE="yes"\n', 'XDISABLE="yes"\n', ""])
def test_another_setting_holds_nothing(three: AutostartHost, line: str) -> None:
    (three.root / "boot/config/domain.cfg").write_text(line)
    three.run()
    all_started(three)


def test_autostart_was_suppressed_for_want_of_a_device(three: AutostartHost) -> None:
    three.autostarted.touch()
    os.utime(three.autostarted, (1_763_999_000, 1_763_999_000))
    three.run()
    assert three.calls() == []
    assert "VFIO" in three.told()[0].text


def test_libvirts_own_mark_suppresses_nothing(three: AutostartHost) -> None:
    three.autostarted.touch()
    os.utime(three.autostarted, (1_764_000_000, 1_764_000_000))
    three.run()
    all_started(three)


def test_what_libvirt_left_is_judged_as_it_was_at_the_start(three: AutostartHost) -> None:
    """A restart of libvirtd alone makes its mark look like one that suppresses the autostart."""
    os.utime(three.pid_file, (1_764_000_000, 1_764_000_000))
    three.autostarted.touch()
    os.utime(three.autostarted, (1_764_000_001, 1_764_000_001))
    folder = three.folder
    guard = three.begin()
    eventually((three.runtime / "autostart/guard.pid").exists)
    time.sleep(0.1)
    three.libvirtd_starts(1_764_000_100)
    assert guard.wait(60) == 0
    assert three.started() == [B, C, A]
    assert (folder / "finished").exists()


# -- beginning and ending ---------------------------------------------------------------------


def test_the_vm_service_ends_meanwhile(three: AutostartHost) -> None:
    guard = three.begin()
    eventually((three.runtime / "autostart/guard.pid").exists)
    time.sleep(0.1)
    three.pid_file.unlink()
    assert guard.wait(60) == 0
    assert three.calls() == []
    assert three.told() == []


def test_the_vm_service_ends_while_the_daemon_goes_on_for_ever(three: AutostartHost) -> None:
    with daemon(three, states(then="running")) as found:
        guard = three.begin()
        eventually(lambda: len(found.asked) > 2)
        three.pid_file.unlink()
        assert guard.wait(60) == 0
    assert three.calls() == []


def test_another_call_for_the_same_start_leaves_the_first_alone(three: AutostartHost) -> None:
    with daemon(three, states(then="running")) as found:
        guard = three.begin()
        eventually(lambda: bool(found.asked))
        assert three.run().returncode == 0
        assert guard.poll() is None
        three.run("stop")
        guard.wait(20)


def test_it_is_told_that_the_vm_service_is_about_to_end(three: AutostartHost) -> None:
    guard = three.begin()
    eventually((three.runtime / "autostart/guard.pid").exists)
    assert three.run("stop").returncode == 0
    assert guard.wait(20) == -signal.SIGTERM
    assert three.calls() == []
    assert three.run("stop").returncode == 0


def test_what_it_ends_is_a_guard(three: AutostartHost) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (three.runtime / "autostart").mkdir(parents=True)
        (three.runtime / "autostart/guard.pid").write_text(f"{other.pid} {three.run_id}\n")
        three.run("stop")
        assert other.poll() is None
        (three.runtime / "autostart/guard.pid").write_text(f"{other.pid} {three.run_id}\n")
        three.run()
        assert other.poll() is None
        other.kill()
    all_started(three)


def test_a_later_start_of_the_vm_service_ends_the_run_of_an_earlier_one(
    three: AutostartHost,
) -> None:
    first = three.begin()
    eventually((three.runtime / "autostart/guard.pid").exists)
    three.libvirtd_starts(1_764_005_000)
    three.run()
    assert first.wait(20) == -signal.SIGTERM
    all_started(three)


def test_nothing_can_be_written(three: AutostartHost) -> None:
    three.runtime.write_text("not a folder")
    three.run()
    assert three.started() == [B, C, A]
    assert len(three.told()) == 1


def test_the_hook_returns_at_once_and_holds_nothing(three: AutostartHost) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [HOOK], env=three.environment(), capture_output=True, timeout=20, check=True
    )
    assert time.monotonic() - began < 1
    assert (done.stdout, done.stderr) == (b"", b"")
    eventually((three.folder / "finished").exists)
    eventually(lambda: bool(three.told()))
    all_started(three)


def test_the_hook_with_its_output_closed(three: AutostartHost) -> None:
    script = '"$1" <&- >&- 2>&-'
    subprocess.run(
        ["bash", "-c", script, "bash", HOOK], env=three.environment(), timeout=20, check=True
    )
    eventually(lambda: bool(three.told()))
    all_started(three)


def test_the_hook_is_called_twice(three: AutostartHost) -> None:
    for _ in range(2):
        subprocess.run([HOOK], env=three.environment(), timeout=20, check=True)
    eventually((three.folder / "finished").exists)
    eventually(lambda: bool(three.told()))
    time.sleep(0.3)
    all_started(three)


def open_files(pid: int) -> Iterator[str]:
    """What a process has open, some of it for a moment only."""
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(each.readlink())


def test_a_guard_keeps_no_file_of_its_caller_open(three: AutostartHost, tmp_path: Path) -> None:
    with (tmp_path / "caller's").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        guard = subprocess.Popen(
            [GUARD], env=three.environment(), close_fds=False, start_new_session=True
        )
        eventually((three.runtime / "autostart/guard.pid").exists)
        held = list(open_files(guard.pid))
        folder = Path(f"/proc/{guard.pid}/cwd").readlink()
        assert guard.wait(60) == 0
    assert not [path for path in held if "caller's" in path]
    assert folder == Path("/")


def test_another_word_is_a_mistake(three: AutostartHost) -> None:
    done = three.run("start")
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_a_full_place_for_markers_keeps_no_vm_off(three: AutostartHost) -> None:
    three.runtime.mkdir(exist_ok=True)
    script = (
        'mount -t tmpfs -o size=64k tmpfs "$VMB_RUNTIME" && mkdir "$VMB_RUNTIME/autostart" &&'
        ' { head -c 1M /dev/zero >"$VMB_RUNTIME/fill"; exec "$0"; }'
    )
    environment = three.environment(VMB_RUNTIME=str(three.runtime))
    command = ["unshare", "--mount", "bash", "-c", script, str(GUARD)]
    subprocess.run(command, env=environment, check=True, timeout=60, stderr=subprocess.DEVNULL)
    assert three.started() == [B, C, A]
    [told] = three.told()
    assert "Started: router, mail, db." in told.text
