"""The watch goes on whatever libvirt does."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.feed import GONE, HOUSE, Libvirt
from vm_babysitter.domain.vm_changes import Change, VmChange
from vm_babysitter.engine.vm_watch import Rhythm, VmWatch

QUICK = Rhythm(settle=0.0, look=30.0, reconnect=(0.01,))


class Stage:
    """A watch and all it meets."""

    def __init__(self) -> None:
        self.libvirt = Libvirt()
        self.clock = FakeClock()
        self.told: queue.Queue[tuple[VmChange, ...]] = queue.Queue()
        self.watch = VmWatch(self.libvirt.open, self.clock, self.told.put, QUICK)

    def changes(self) -> list[Change]:
        return [change.change for change in self.told.get(timeout=10)]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.libvirt.answers.set()
    assert made.watch.stop()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nothing_is_known_before_the_first_look(stage: Stage) -> None:
    found = stage.watch.now()
    assert (found.vms, found.at) == ((), None)
    assert found.trouble


def test_the_first_look_is_no_change(stage: Stage) -> None:
    stage.watch.start()
    found = stage.watch.wait_first(10)
    assert (found.vms, found.at, found.trouble) == ((HOUSE,), stage.clock.now(), "")
    assert stage.told.empty()


def test_an_event_is_told(stage: Stage) -> None:
    stage.watch.start()
    stage.watch.wait_first(10)
    stage.libvirt.vms = (replace(HOUSE, name="home"),)
    stage.libvirt.wake()
    assert stage.changes() == [Change.RENAMED]
    assert stage.watch.now().vms[0].name == "home"


def test_it_connects_again_and_tells_what_it_has_missed(stage: Stage) -> None:
    stage.watch.start()
    stage.watch.wait_first(10)
    stage.libvirt.absent = GONE
    stage.libvirt.end()
    until(lambda: stage.libvirt.opened > 3)
    found = stage.watch.now()
    assert found.vms == (HOUSE,)  # what was seen last stays
    assert "it is not there" in found.trouble
    stage.libvirt.vms = ()
    stage.libvirt.absent = None
    assert stage.changes() == [Change.GONE]
    assert stage.watch.now().trouble == ""
    assert stage.libvirt.closed == 1


def test_it_waits_for_a_libvirt_that_is_not_there_yet(stage: Stage) -> None:
    stage.libvirt.absent = GONE
    stage.watch.start()
    assert "it is not there" in stage.watch.wait_first(10).trouble
    stage.libvirt.absent = None
    until(lambda: stage.watch.now().trouble == "")
    assert stage.told.empty()


def test_a_libvirt_that_does_not_answer_is_told_and_waits_for_nobody(stage: Stage) -> None:
    stage.libvirt.answers.clear()
    stage.watch.start()
    until(lambda: stage.libvirt.opened == 1)
    stage.clock.advance(31)
    assert "does not answer, since 2026-11-24 02:15:00" in stage.watch.now().trouble
    assert not stage.watch.stop(0.05)
    stage.libvirt.answers.set()
    assert stage.watch.stop(10)


def test_it_ends_at_once(stage: Stage) -> None:
    stage.watch.start()
    stage.watch.wait_first(10)
    began = time.monotonic()
    assert stage.watch.stop(10)
    assert time.monotonic() - began < 5
    assert stage.libvirt.closed == 1


def test_an_error_that_nobody_thought_of_does_not_end_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.watch.start()
    stage.watch.wait_first(10)
    stage.libvirt.odd = ValueError("an answer in no words of ours")
    stage.libvirt.wake()
    until(lambda: "ValueError" in stage.watch.now().trouble)
    stage.libvirt.odd = None
    until(lambda: stage.watch.now().trouble == "")
    assert "nobody thought of" in caplog.text


def test_a_listener_that_fails_is_no_trouble_with_libvirt(caplog: pytest.LogCaptureFixture) -> None:
    libvirt = Libvirt()

    def fails(_: object) -> None:
        raise GONE

    watch = VmWatch(libvirt.open, FakeClock(), fails, QUICK)
    watch.start()
    try:
        watch.wait_first(10)
        libvirt.vms = ()
        libvirt.wake()
        until(lambda: "Not everybody was told" in caplog.text)
        assert watch.now().vms == ()
        assert (watch.now().trouble, libvirt.opened) == ("", 1)
    finally:
        watch.stop()


def test_it_says_that_libvirt_answers_at_first_and_again(stage: Stage) -> None:
    answers: queue.Queue[str] = queue.Queue()
    stage.watch.answered = lambda: answers.put(stage.watch.now().trouble)
    stage.watch.start()
    assert answers.get(timeout=10) == ""
    stage.libvirt.absent = GONE
    stage.libvirt.end()
    until(lambda: stage.watch.now().trouble != "")
    assert answers.empty()
    stage.libvirt.absent = None
    assert answers.get(timeout=10) == ""
