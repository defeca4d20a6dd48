"""When the watchdog thaws, and whose marks count."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vm_babysitter.adapters import freeze_guard
from vm_babysitter.adapters.freeze_guard import WatchdogGuard, keep_watch
from vm_babysitter.domain.agent import AgentAnswer

URI = "test:///default"
SHORT = 0.05
LONG = 30.0


@dataclass
class Owner:
    """The end of the pipe that the watchdog's owner holds, and what the watchdog did."""

    reading: int
    writing: int
    thaws: int = 0
    mine: bool = True

    def is_mine(self) -> bool:
        return self.mine

    def thaw(self) -> AgentAnswer:
        self.thaws += 1
        return AgentAnswer(1)

    def thaw_and_release(self) -> AgentAnswer:
        """Thaw; the owner wakes up and has nothing more to do."""
        os.write(self.writing, b"done\n")
        return self.thaw()

    def thaw_at_second_try(self) -> AgentAnswer:
        if self.thaw() and self.thaws == 1:
            raise OSError
        return AgentAnswer(1)


@pytest.fixture
def owner() -> Iterator[Owner]:
    """An owner that lives and is silent."""
    owner = Owner(*os.pipe())
    yield owner
    os.close(owner.reading)
    if owner.writing >= 0:
        os.close(owner.writing)


def die(owner: Owner) -> None:
    os.close(owner.writing)
    owner.writing = -1


def test_dismissed_watchdog_does_nothing(owner: Owner) -> None:
    os.write(owner.writing, b"done\n")
    assert not keep_watch(owner.reading, LONG, owner.is_mine, owner.thaw)
    assert owner.thaws == 0


def test_watchdog_thaws_when_its_owner_is_gone(owner: Owner) -> None:
    die(owner)
    assert keep_watch(owner.reading, LONG, owner.is_mine, owner.thaw)
    assert owner.thaws == 1


def test_watchdog_tries_again_after_a_failure(owner: Owner) -> None:
    die(owner)
    assert keep_watch(owner.reading, LONG, owner.is_mine, owner.thaw_at_second_try)
    assert owner.thaws == 2


def test_watchdog_thaws_when_its_owner_is_silent_too_long_and_goes_on(owner: Owner) -> None:
    assert not keep_watch(owner.reading, SHORT, owner.is_mine, owner.thaw_and_release)
    assert owner.thaws == 1


def test_watchdog_leaves_alone_what_is_not_its_own_any_more(owner: Owner) -> None:
    owner.mine = False
    die(owner)
    assert not keep_watch(owner.reading, LONG, owner.is_mine, owner.thaw)
    assert owner.thaws == 0


def test_watchdog_waits_for_a_silent_owner(owner: Owner) -> None:
    watch = threading.Thread(
        target=keep_watch, args=(owner.reading, LONG, owner.is_mine, owner.thaw)
    )
    watch.start()
    watch.join(0.2)
    assert watch.is_alive()
    os.write(owner.writing, b"done\n")
    watch.join(LONG)
    assert owner.thaws == 0


def test_mark_is_there_while_watched_and_names_us(tmp_path: Path) -> None:
    guard = WatchdogGuard(tmp_path / "run", URI)
    with guard.watch("uuid") as watch:
        (mark,) = (tmp_path / "run").glob("frozen-uuid-*")
        assert mark.read_text().split()[0] == str(os.getpid())
        assert guard.leftovers() == ()
        with guard.watch("uuid") as second:
            assert second.unfit
        assert mark.exists()
        watch.thawed()
    assert not mark.exists()


def test_mark_that_names_another_watchdog_is_left_alone(tmp_path: Path) -> None:
    with WatchdogGuard(tmp_path, URI).watch("uuid") as watch:
        (mark,) = tmp_path.glob("frozen-uuid-*")
        mark.write_text("0 0 1\n")
        watch.thawed()
    assert mark.exists()


def test_watchdog_that_is_left_alone_finds_out_that_the_vm_is_gone(tmp_path: Path) -> None:
    guard = WatchdogGuard(tmp_path, URI)
    with guard.watch(str(uuid.UUID(int=7))):
        assert guard.leftovers() == ()
    deadline = time.monotonic() + LONG
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "garbage", "a b c", "0 0 1", "4194305 7 1"])
def test_mark_of_nobody_is_a_leftover(tmp_path: Path, content: str) -> None:
    guard = WatchdogGuard(tmp_path, URI)
    guard._mark("uuid").write_text(content)
    assert guard.leftovers() == ("uuid",)
    guard.forget("uuid")
    assert guard.leftovers() == ()


def test_marks_of_another_libvirt_are_left_to_it(tmp_path: Path) -> None:
    """There the VM may run and be frozen, though this one has none of that UUID."""
    there = WatchdogGuard(tmp_path, "qemu+tcp://host/system")
    there._mark("uuid").write_text("0 0 1")
    here = WatchdogGuard(tmp_path, URI)
    assert here.leftovers() == ()
    here.forget("uuid")
    assert there.leftovers() == ("uuid",)


def test_mark_of_a_dead_process_that_nobody_buried_is_a_leftover(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = freeze_guard._start_of(process.pid)
        guard = WatchdogGuard(tmp_path, URI)
        guard._mark("uuid").write_text(f"{process.pid} {started} 1\n")
        assert guard.leftovers() == ()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert guard.leftovers() == ("uuid",)


def test_watchdog_takes_no_code_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libvirt.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with WatchdogGuard(tmp_path / "run", URI).watch(str(uuid.uuid4())) as watch:
        assert watch.unfit == ""
        watch.thawed()
    assert not (tmp_path / "ran").exists()


def test_nothing_is_frozen_where_no_mark_can_be_put(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with WatchdogGuard(tmp_path / "run", URI).watch("uuid") as watch:
        assert watch.unfit


def test_nothing_is_frozen_without_a_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # no Python starts
    with WatchdogGuard(tmp_path / "run", URI).watch("uuid") as watch:
        assert "did not start" in watch.unfit
    assert not list((tmp_path / "run").iterdir())
