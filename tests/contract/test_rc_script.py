"""The rc script and the event hooks: real bash, the real daemon, on a server that is a folder."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.daemon import until
from tests.support.mounts import lazy_disk, ram_disk
from tests.support.unraid_host import UnraidHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
_STUBBORN = """#!/bin/bash
[[ "$*" == *self-check* ]] && { printf 'ok\\tpython\\tGood.\\n'; exit 0; }
trap '' TERM
while :; do sleep 0.05; done
"""
_SLOW = """#!/bin/bash
[[ "$*" == *self-check* ]] || {{ touch {folder}/launched; exec sleep 60; }}
touch {folder}/checks
until [[ -e {folder}/go ]]; do sleep 0.05; done
printf 'ok\\tpython\\tGood.\\n'
"""
"""Its check lasts until the test says so."""
_SILENT = f"""#!/bin/bash
[[ "$*" == *self-check* ]] && {{ printf 'ok\\tpython\\tGood.\\n'; exit 0; }}
exec {shlex.quote(sys.executable)} -c '
import socket, sys, time
from pathlib import Path
path = Path(sys.argv[2])
path.parent.mkdir()
listening = socket.socket(socket.AF_UNIX)
listening.bind(str(path))
listening.listen(99)
time.sleep(60)' "$@"
"""
"""Takes connections, and answers none."""
_STUCK = """#!/bin/bash
[[ "$*" == *self-check* ]] && {{ printf 'ok\\tpython\\tGood.\\n'; exit 0; }}
trap '' TERM
echo x >>{disk}/file
"""
"""Waits in the kernel for a disk."""
AT_ONCE = 2.0
"""Seconds; on a busy machine bash takes its time."""


@pytest.fixture
def host(folder: Path) -> UnraidHost:
    return UnraidHost(folder / "root")


@pytest.fixture
def up(host: UnraidHost) -> Iterator[UnraidHost]:
    host.array("Started")
    with host.disks():
        yield host
        host.rc("stop")


def test_started_asked_restarted_and_stopped(up: UnraidHost) -> None:
    assert up.rc("status").code == 3
    began = up.rc("start")
    assert (began.code, began.said) == (0, "VM Babysitter is running.\n")
    up.answers()
    first = up.pid
    assert up.rc("start").said == "VM Babysitter runs already.\n"
    assert up.pid == first
    assert (up.pool / "system/vm-babysitter/journal.sqlite").exists()
    again = up.rc("restart", VMB_STOP_SECONDS="3")
    assert again.code == 0
    assert again.seconds < began.seconds + 4, "it does not wait for itself, which is 5 seconds"
    assert up.pid not in {None, first}
    assert up.rc("stop").said == "VM Babysitter is stopped.\n"
    assert up.rc("status").code == 3
    assert up.rc("stop").code == 0, "twice is no failure"
    assert up.rc("sing").code == 2
    up.assert_disks_unused()
    assert up.said("notify") == []


def test_the_daemon_keeps_nothing_of_its_caller(up: UnraidHost) -> None:
    reader, writer = os.pipe()
    subprocess.run(
        [up.root / "etc/rc.d/rc.vm-babysitter", "start"],
        env={**up.environment(), "SECRET": "of the caller"},
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    os.close(writer)
    assert os.read(reader, 1) == b"", "the pipe is closed: nobody holds it"
    os.close(reader)
    pid = up.pid
    assert pid is not None
    assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) == pid, "the end of a terminal or of a web server is not its end"
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")


def test_two_starts_at_once_make_one_daemon(up: UnraidHost) -> None:
    both = [
        subprocess.Popen([up.root / "etc/rc.d/rc.vm-babysitter", "start"], env=up.environment())
        for _ in range(2)
    ]
    assert [each.wait(60) for each in both] == [0, 0]
    assert up.said("notify") == []
    pid = up.pid
    assert pid is not None
    daemons = [
        each
        for each in Path("/proc").glob("[0-9]*/cmdline")
        if str(up.runtime).encode() in _read(each) and b"serve" in _read(each)
    ]
    assert [each.parent.name for each in daemons] == [str(pid)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_daemon_that_died_is_not_taken_for_one_that_runs(up: UnraidHost) -> None:
    up.rc("start")
    pid = up.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: up.rc("status").code == 3)
    # Its number may be another program's by now.
    (up.runtime / "daemon.pid").write_text(f"{os.getpid()} 1\n")
    assert up.rc("stop").code == 0
    assert up.rc("start").code == 0
    up.answers()


def test_a_daemon_that_died_is_revived_and_told_of_once(up: UnraidHost) -> None:
    up.rc("start")
    for _ in range(2):
        _kill(up)
        assert "has died, and is started again" in up.rc("revive").said
        up.answers()
        assert [line.count("had died") for line in up.said("notify")] == [1]
        assert up.rc("revive").said == ""


def test_a_daemon_that_was_stopped_or_never_started_is_not_revived(up: UnraidHost) -> None:
    assert up.rc("revive").said == ""
    up.rc("start")
    _kill(up)
    up.array("Stopping")
    assert up.rc("revive").said == ""
    up.rc("stop")
    up.array("Started")
    assert up.rc("revive").said == ""
    assert up.pid is None


def _kill(host: UnraidHost) -> None:
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    until(lambda: host.rc("status").code == 3)


def test_cron_is_told_of_it_and_the_flash_drive_written_to_once(up: UnraidHost) -> None:
    installed = "usr/local/emhttp/plugins/vm-babysitter/scripts/installed"
    up.run(installed)
    cron = up.config / "vm-babysitter.cron"
    assert "rc.vm-babysitter revive" in cron.read_text()
    before = cron.stat()
    up.run(installed)
    assert cron.stat().st_mtime_ns == before.st_mtime_ns
    assert cron.stat().st_ino == before.st_ino


def test_cron_is_told_again_once_the_plugin_is_registered(up: UnraidHost) -> None:
    """Unraid reads the files of registered plugins, and registers one that is installed."""
    crontab, link = up.root / "crontab", up.root / "var/log/plugins/vm-babysitter.plg"
    up.have_update_cron(crontab)
    up.array("")  # it boots
    up.run("scripts/installed")
    link.parent.mkdir(parents=True)
    link.symlink_to("/boot/config/plugins/vm-babysitter.plg")
    until(lambda: crontab.exists() and "rc.vm-babysitter revive" in crontab.read_text())
    crontab.unlink()
    up.run("scripts/installed")  # an update: at once, as then it is registered anew for a moment
    assert "rc.vm-babysitter revive" in crontab.read_text()


def test_a_daemon_whose_number_is_lost_is_found(up: UnraidHost) -> None:
    up.rc("start")
    pid = up.pid
    (up.runtime / "daemon.pid").unlink()
    assert up.rc("start").said == "VM Babysitter runs already.\n"
    assert up.pid == pid
    (up.runtime / "daemon.pid").unlink()
    up.event("unmounting_disks")
    up.assert_disks_unused()


@pytest.mark.parametrize("verb", ["start", "revive"])
def test_who_is_about_to_start_it_gives_up_when_it_is_stopped(up: UnraidHost, verb: str) -> None:
    if verb == "revive":
        up.rc("start")
        _kill(up)
    up.have_program(_SLOW.format(folder=up.root))
    starting = up.popen("etc/rc.d/rc.vm-babysitter", verb)
    until((up.root / "checks").exists)
    assert up.rc("stop").code == 0
    (up.root / "go").touch()
    said = starting.communicate(timeout=30)[0]
    assert "Not started: it was stopped meanwhile." in said
    assert not (up.root / "launched").exists()
    assert up.said("notify") == []


@pytest.mark.parametrize("stopped_by", ["stop", "array"])
def test_what_fails_because_it_is_stopped_is_no_alarm(up: UnraidHost, stopped_by: str) -> None:
    up.have_program(_SLOW.format(folder=up.root).replace("ok\\tpython", "failed\\tstate"))
    with (up.root / "usr/local/sbin/vm-babysitter").open("a") as program:
        program.write("exit 1\n")
    starting = up.popen("etc/rc.d/rc.vm-babysitter", "start")
    until((up.root / "checks").exists)
    if stopped_by == "stop":
        up.rc("stop")
    else:
        up.array("Stopping")
    (up.root / "go").touch()
    assert starting.communicate(timeout=30)[0].startswith("Not started: ")
    assert up.said("notify") == []


def test_a_start_that_is_stopped_before_it_answers_is_no_alarm(up: UnraidHost) -> None:
    up.have_program(_SLOW.format(folder=up.root))
    (up.root / "go").touch()
    starting = up.popen("etc/rc.d/rc.vm-babysitter", "start")
    until((up.root / "launched").exists)
    assert up.rc("stop").said == "VM Babysitter is stopped.\n"
    assert starting.communicate(timeout=30)[0] == "Not started: it was stopped meanwhile.\n"
    assert up.said("notify") == []


def test_no_start_where_nothing_can_be_put_into_run(up: UnraidHost) -> None:
    up.runtime.write_text("")
    refused = up.rc("start")
    assert refused.code == 1
    assert "Nothing can be put into" in refused.said
    assert len(up.said("notify")) == 1


def test_a_daemon_that_is_ending_is_not_revived(up: UnraidHost) -> None:
    up.have_program(_STUBBORN)
    up.rc("start", VMB_START_SECONDS="1")
    pid = up.pid
    assert pid is not None
    stopping = up.popen("etc/rc.d/rc.vm-babysitter", "stop", VMB_STOP_SECONDS="3")
    until(lambda: not (up.runtime / "wanted").exists())
    os.kill(pid, signal.SIGKILL)
    assert up.rc("revive").said == ""
    assert "is stopped" in stopping.communicate(timeout=30)[0]
    assert up.pid is None


def test_no_place_for_the_number_of_the_process(host: UnraidHost) -> None:
    host.array("Started")
    with ram_disk(host.root / "run", 1 << 20) as run, host.disks():
        with suppress(OSError), (run / "others").open("wb", 0) as file:
            while True:
                file.write(b"x" * 4096)
        assert os.statvfs(run).f_bavail == 0
        started = host.rc("start")
        assert (started.code, started.said) == (0, "VM Babysitter is running.\n")
        assert host.rc("start").said == "VM Babysitter runs already.\n"
        assert host.rc("revive").said == ""
        assert host.rc("status").code == 0
        assert host.event("unmounting_disks") < 10
        assert host.rc("status").code == 3


def test_a_daemon_that_takes_connections_and_does_not_answer(up: UnraidHost) -> None:
    up.have_program(_SILENT)
    started = up.rc("start", VMB_START_SECONDS="1")
    assert started.said == "VM Babysitter runs, and does not answer yet.\n"
    assert started.seconds < 12, "not 21: each try to reach it takes 2 seconds"


def test_a_disk_that_does_not_answer_is_not_waited_for_twice(up: UnraidHost) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(lazy_disk(up.root / "stuck.image", up.root / "stuck"))
        (disk / "file").touch()
        up.have_program(_STUCK.format(disk=disk))
        subprocess.run(["fsfreeze", "--freeze", disk], check=True)
        stack.callback(lambda: subprocess.run(["fsfreeze", "--unfreeze", disk], check=True))
        up.rc("start", VMB_START_SECONDS="1")
        assert up.pid is not None
        first, second = (up.rc("stop", VMB_STOP_SECONDS="6") for _ in range(2))
        assert "cannot be killed: a disk does not answer" in first.said
        assert first.seconds < 6 + 2 + 2 * AT_ONCE
        assert (first.code, second.code) == (1, 1)
        assert second.seconds < 2 + 2 * AT_ONCE
        assert up.rc("start").said == "VM Babysitter runs already.\n"
    until(lambda: up.pid is None)


def test_a_daemon_that_does_not_end_is_killed(up: UnraidHost) -> None:
    up.have_program(_STUBBORN)
    assert up.rc("start", VMB_START_SECONDS="1").said.endswith("does not answer yet.\n")
    pid = up.pid
    assert pid is not None
    stopped = up.rc("stop", VMB_STOP_SECONDS="1")
    assert stopped.code == 0
    assert "did not end within 1 seconds, and is killed" in stopped.said
    assert 1 <= stopped.seconds < 4
    assert up.pid is None


def test_no_start_without_a_disk_for_the_state(host: UnraidHost) -> None:
    host.array("Started")
    (host.pool / "system").mkdir()
    refused = host.rc("start")
    assert refused.code == 1
    assert "mnt/cache/system lies in RAM: no disk is mounted there." in refused.said
    with ram_disk(host.pool, 1 << 20):
        (host.pool / "system").mkdir()
        assert host.rc("start").code == 1
    assert not list(host.pool.rglob("*.sqlite"))
    (told,) = host.said("notify")
    assert "-i alert" in told
    assert "lies in RAM" in told
    assert any("lies in RAM" in line for line in host.said("logger"))


def test_no_start_while_the_array_is_down_or_stops(host: UnraidHost) -> None:
    for state in ("Stopped", ""):
        host.array(state)
        assert "The array is not started" in host.rc("start").said
    with host.disks():
        host.array("Stopping")
        assert "Not started: the array is being stopped" in host.rc("start").said
        assert host.pid is None
        host.array("Stopped")  # Unraid may say so still when the disks are mounted
        assert host.rc("start").code == 0
        host.rc("stop")


def test_a_python_that_is_broken_is_told_once(up: UnraidHost) -> None:
    up.have_program("#!/bin/bash\necho 'python3.11: cannot open libz.so.1' >&2\nexit 127\n")
    refused = up.rc("start")
    assert refused.code == 1
    assert "Its Python does not start: python3.11: cannot open libz.so.1." in refused.said
    up.rc("start")
    (told,) = up.said("notify")
    assert "No VM is backed up: the daemon does not start" in told
    up.have_python()
    assert up.rc("start").code == 0
    up.rc("stop")
    up.have_program("#!/bin/bash\necho 'python3.11: cannot open libz.so.1' >&2\nexit 127\n")
    up.rc("start")
    assert len(up.said("notify")) == 2, "it had been good in between"


def test_a_daemon_that_ends_at_once_is_told_with_its_last_words(up: UnraidHost) -> None:
    (up.runtime / "api").mkdir(parents=True)
    up.api.socket.mkdir()
    refused = up.rc("start")
    assert refused.code == 1
    assert "The daemon ended at once: --socket: " in refused.said
    assert "is there already and is no socket. Remove it, or choose another path.\n" in refused.said
    assert len(up.said("notify")) == 1
    up.rc("revive")
    assert len(up.said("notify")) == 1, "the same is not told again"
    up.api.socket.rmdir()
    assert "VM Babysitter is running." in up.rc("revive").said
    up.answers()


def test_the_users_own_folder_for_the_state(up: UnraidHost) -> None:
    (up.config / "vm-babysitter.cfg").write_text('STATE="/mnt/cache/own"\r\n')
    assert up.rc("start").code == 0
    assert (up.pool / "own/journal.sqlite").exists()
    up.rc("stop")
    (up.config / "vm-babysitter.cfg").write_text('STATE="own"\n')
    assert "has to be the whole path of a folder, it is own." in up.rc("start").said
    (up.config / "vm-babysitter.cfg").write_text('STATE=<b>=;#"x\n')
    assert 'it is <b>=;#"x.' in up.rc("start").said
    assert "it is (b):,_'x." in up.said("notify")[-1]


def test_the_journal_stays_where_it_is_when_a_pool_is_added(up: UnraidHost) -> None:
    up.rc("start")
    up.rc("stop")
    (up.root / "boot/config/pools/apps.cfg").write_text("")
    with ram_disk(up.root / "mnt/apps", 1 << 20):
        (up.root / "mnt/apps/system").mkdir()
        assert up.run("scripts/state-folder").said == f"{up.pool}/system/vm-babysitter\n"


# -- events, in the order in which emhttpd tells of them ------------------------------------------

START = ("starting", "array_started", "disks_mounted", "svcs_restarted", "docker_started")
STOP = ("stopping", "stopping_libvirt", "stopping_docker", "stopping_svcs", "unmounting_disks")


def test_the_array_is_started_and_stopped(host: UnraidHost) -> None:
    host.array("Starting")
    with host.disks():
        assert max(map(host.event, START)) < AT_ONCE
        host.array("Started")
        assert host.event("started") < AT_ONCE
        host.answers()
        host.libvirtd_runs()
        host.array("Stopping")
        assert sum(map(host.event, STOP)) < 10
        host.assert_disks_unused()
        assert host.pid is None
    host.array("Stopped")
    assert sum(map(host.event, ("stopping_array", "stopped"))) < AT_ONCE
    assert host.pid is None


def test_the_vm_service_alone_is_switched_off(up: UnraidHost) -> None:
    up.libvirtd_runs()
    up.rc("start")
    first = up.pid
    up.event("stopping_libvirt")
    assert up.pid is None, "no job may begin while VMs shut down"
    until((up.runtime / "after-libvirt.pid").exists)
    up.libvirtd_runs(False)
    up.answers()
    assert up.pid not in {None, first}


def test_the_array_stops_while_the_vm_service_still_does(up: UnraidHost) -> None:
    up.libvirtd_runs()
    up.rc("start")
    up.event("stopping_libvirt")
    until((up.runtime / "after-libvirt.pid").exists)
    waits = int((up.runtime / "after-libvirt.pid").read_text())
    up.array("Stopping")
    up.event("unmounting_disks")
    until(lambda: _read(Path(f"/proc/{waits}/cmdline")) == b"")  # nothing is left in a zombie's
    assert up.pid is None


def test_installed_while_the_array_runs(up: UnraidHost) -> None:
    ran = up.run("scripts/installed")
    assert (ran.code, ran.said) == (0, "VM Babysitter is running.\n")
    up.answers()


@pytest.mark.parametrize("state", ["", "Stopped", "Starting"])
def test_installed_while_there_is_no_array(host: UnraidHost, state: str) -> None:
    host.array(state)
    ran = host.run("scripts/installed")
    assert (ran.code, ran.said) == (0, "")
    assert ran.seconds < AT_ONCE
    assert host.said("notify") == []
