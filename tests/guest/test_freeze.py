"""A real Linux with a real guest agent: frozen for the moment of a backup, never left frozen."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.guest import Guest, guest_on, wait_until
from tests.support.libvirt_host import kill_and_wait
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import run
from tests.support.vm import copy_content
from tests.support.world import environment
from vm_babysitter.adapters.freeze_guard import WatchdogGuard
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.errors import HypervisorUnreachable
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.quiesce import Quiesced, quiesced
from vm_babysitter.ports import FreezeGuard

NAME = "- \"Gast\", 'ü' & 日本"
SHORT = 1.0
"""Seconds that a watchdog of these tests waits for us."""


@dataclass
class Witness:
    """An observer that remembers."""

    times: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        self.times.setdefault(name, time.monotonic())

    def progress(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


class Stage:
    """The guest, a backup folder, and what happened."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.guest = guest
        self.folder = folder
        self.runtime = folder / "run"
        self.place = Place(guest.host.uri, folder / "store", True, self.runtime)
        self.witness = Witness()
        (folder / "store").mkdir()

    @property
    def app(self) -> Standalone:
        return Standalone(self.place, self.witness, Cancel())

    @property
    def mark(self) -> Path:
        return WatchdogGuard(self.runtime, self.place.uri)._mark(self.guest.uuid)

    def backup(self) -> BackedUp:
        with self.app.backup() as backup:
            return backup.run(NAME)

    @contextmanager
    def backup_that(self, action: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a backup that dies or stops when the guest is frozen; returns when it has."""
        faults = json.dumps([list(asdict(Fault(action, "step", "frozen")).values())])
        program = [sys.executable, "-m", "tests.support.faulty", str(self.runtime), faults]
        place = ["--standalone", "--uri", self.place.uri, "--store", str(self.place.store)]
        command = [*program, *place, "--allow-ram-store", "backup", "--", NAME]
        with subprocess.Popen(command, env=environment()) as process:
            try:
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                yield process
            finally:
                process.kill()

    @contextmanager
    def frozen(self, guard: FreezeGuard) -> Iterator[Quiesced]:
        """Freeze as a backup does, with a guard of the test's."""
        with self.app.hypervisor() as hypervisor:
            vm = hypervisor.vm(NAME)
            with quiesced(hypervisor, guard, self.witness, vm) as state:
                yield state

    def restored(self) -> Path:
        """The newest point's disk, raw."""
        self.app.restore(self.folder / "restored").run(NAME, "latest")
        image = self.folder / "restored" / "vda.qcow2"
        return copy_content(image, "qcow2", self.folder / "restored.raw")


@pytest.fixture(scope="module")
def linux(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for all."""
    with guest_on(libvirtd, tmp_path_factory.mktemp("guest"), NAME) as guest:
        yield guest


@pytest.fixture
def stage(linux: Guest, tmp_path: Path) -> Iterator[Stage]:
    """The guest with a healthy agent, thawed, and an empty store."""
    linux.have_agent()
    linux.agent("guest-fsfreeze-thaw")  # in case a test before this one failed
    assert linux.writes()
    yield Stage(linux, tmp_path)
    # Whatever a test did, nothing is left frozen.
    assert linux.writes()


def needs_recovery(raw: Path) -> bool:
    """Whether the ext4 was caught in the middle of its work."""
    return "needs_recovery" in run("/usr/sbin/dumpe2fs", "-h", str(raw))


def numbers(raw: Path) -> list[int]:
    """What the guest's writer had in its file."""
    text = run("/usr/sbin/debugfs", "-R", "cat /sequence", str(raw))
    return [int(number) for number in re.findall(r"^\d+$", text, re.MULTILINE)]


def test_healthy_guest_is_frozen_for_a_moment(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.guest.sequence()
    done = stage.backup()
    after = stage.guest.sequence()
    assert (done.point.quiesced, done.point.quiesce_note) == (True, "")
    assert not stage.guest.is_frozen()
    assert not stage.witness.notes
    assert not list(stage.runtime.iterdir())
    seconds = stage.witness.times["begun"] - stage.witness.times["frozen"]
    with capsys.disabled():
        sys.stdout.write(f" [frozen for {seconds * 1000:.0f} ms] ")
    assert seconds < 5
    raw = stage.restored()
    assert not needs_recovery(raw)
    run("/usr/sbin/e2fsck", "-fn", str(raw))
    written = numbers(raw)
    assert written == list(range(1, len(written) + 1))
    assert before <= written[-1] <= after + 1


def test_guest_without_a_running_agent_is_backed_up_as_after_a_power_cut(stage: Stage) -> None:
    stage.guest.stop_agent()
    done = stage.backup()
    assert not done.point.quiesced
    assert done.point.quiesce_note == "no guest agent is running in the VM"
    # What shows that the other test looks at the right thing.
    assert needs_recovery(stage.restored())


def test_agent_that_refuses_is_a_note(stage: Stage) -> None:
    stage.guest.have_agent("--block-rpcs=guest-fsfreeze-freeze")
    done = stage.backup()
    assert not done.point.quiesced
    assert done.point.quiesce_note.startswith("the guest agent refused: Command guest-fsfreeze")
    assert not stage.witness.notes
    assert not stage.mark.exists()


def test_agent_that_refuses_to_freeze_and_to_thaw_is_only_a_note(stage: Stage) -> None:
    stage.guest.have_agent("--block-rpcs=guest-fsfreeze-freeze,guest-fsfreeze-thaw")
    assert not stage.backup().point.quiesced
    assert not stage.mark.exists()


def test_hung_agent_costs_seconds_and_is_never_told_to_freeze(stage: Stage) -> None:
    stage.guest.run("killall -STOP qemu-ga")
    started = time.monotonic()
    done = stage.backup()
    assert time.monotonic() - started < 12
    assert not done.point.quiesced
    assert done.point.quiesce_note == "the guest agent does not answer"
    assert not list(stage.runtime.iterdir())
    stage.guest.run("killall -CONT qemu-ga")
    wait_until(stage.guest.agent_answers)
    assert not stage.guest.is_frozen()


def test_agent_that_freezes_too_late_is_thawed_all_the_same(stage: Stage) -> None:
    stage.guest.run("echo 17 >/run/delay")
    stage.guest.have_agent("-F/run/slow-hook")
    done = stage.backup()  # gives up waiting for the freeze, and then for the thaw
    assert done.seconds < 25
    assert not done.point.quiesced
    assert done.point.quiesce_note == "the guest agent does not answer"
    assert ["may still be frozen" in note for note in stage.witness.notes] == [True]
    assert stage.mark.exists()
    stage.guest.wait_for("hook thaw")
    wait_until(lambda: not stage.mark.exists())
    assert stage.guest.writes()


def test_agent_that_never_answers_a_freeze_costs_seconds_and_no_backup(stage: Stage) -> None:
    stage.guest.run("echo 1000 >/run/delay")
    stage.guest.have_agent("-F/run/slow-hook")  # it answers the ping, and then nothing more
    done = stage.backup()
    assert done.seconds < 25
    assert (done.point.quiesced, done.point.quiesce_note) == (
        False,
        "the guest agent does not answer",
    )
    assert stage.guest.writes()
    assert [found.good for found in stage.app.verify().all(NAME)] == [True]
    stage.guest.run("killall -KILL sleep slow-hook; true")
    stage.guest.stop_agent()
    stage.guest.have_agent()
    wait_until(lambda: not stage.mark.exists())
    assert stage.backup().point.quiesced


def test_watchdog_thaws_when_we_are_killed(stage: Stage) -> None:
    stage.backup()
    with stage.backup_that("die") as process:
        assert process.wait(30) == -signal.SIGKILL
    assert stage.guest.writes(5)
    wait_until(lambda: not stage.mark.exists())
    done = stage.backup()
    assert done.point.quiesced
    assert done.point.seq == 1
    assert not needs_recovery(stage.restored())
    assert [found.good for found in stage.app.verify().all(NAME)] == [True, True]


def test_next_run_thaws_when_the_watchdog_was_killed_too(stage: Stage) -> None:
    with stage.backup_that("stop") as process:
        assert stage.guest.is_frozen()
        kill_and_wait(int(stage.mark.read_text().split()[2]))
        process.kill()
    assert not stage.guest.writes(1)
    done = stage.backup()
    assert "A guest left frozen by an earlier run was thawed." in stage.witness.notes
    assert done.point.quiesced
    assert not list(stage.runtime.iterdir())


# Only libvirtd admits the watchdog while we live: an embedded one has one opener at a time.
def test_watchdog_thaws_when_we_hang_and_the_backup_is_not_called_quiesced(stage: Stage) -> None:
    guard = WatchdogGuard(stage.runtime, stage.place.uri, longest=SHORT)
    with stage.frozen(guard) as state:
        assert state.done
        assert stage.guest.writes(10)
        assert stage.mark.exists()  # the watch goes on
    assert (state.done, "did not stay frozen" in state.note) == (False, True)
    assert not stage.mark.exists()


def test_watchdog_thaws_when_libvirtd_dies_meanwhile(
    stage: Stage, libvirtd: PrivateLibvirtd
) -> None:
    guard = WatchdogGuard(stage.runtime, stage.place.uri)
    with pytest.raises(HypervisorUnreachable), stage.frozen(guard):
        libvirtd.restart()
    assert stage.guest.writes(10)
    wait_until(lambda: not stage.mark.exists())


def test_guest_that_thawed_by_itself_is_not_called_quiesced(stage: Stage) -> None:
    with stage.frozen(WatchdogGuard(stage.runtime, stage.place.uri)) as state:
        stage.guest.agent("guest-fsfreeze-thaw")
    assert not state.done


def test_guest_is_not_frozen_twice(stage: Stage) -> None:
    guard = WatchdogGuard(stage.runtime, stage.place.uri)
    with stage.backup_that("stop"), stage.frozen(guard) as state:
        assert state.note == "another backup has the guest frozen"
        assert stage.guest.is_frozen()
