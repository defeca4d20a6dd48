"""The watch goes on whatever libvirt does."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from tests.support.fakes.clock import FakeClock
from vm_babysitter.domain.errors import BabysitterError, HypervisorUnreachable
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.domain.vm_changes import Change, VmChange
from vm_babysitter.engine.vm_watch import Rhythm, VmWatch

HOUSE = Vm("u1", "house", PowerState.RUNNING, ())
QUICK = Rhythm(settle=0.0, look=30.0, reconnect=(0.01,))
GONE = HypervisorUnreachable("qemu:///system", "it is not there")


@dataclass
class Libvirt:
    """A libvirt that can be absent, end, or not answer; ``ports.OpenFeed``."""

    vms: tuple[Vm, ...] = (HOUSE,)
    absent: BabysitterError | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    news: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    opened: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.answers.set()

    @contextmanager
    def open(self) -> Iterator["Libvirt"]:
        self.opened += 1
        self.answers.wait(30)
        if self.absent is not None:
            raise self.absent
        self.lost = False
        try:
            yield self
        finally:
            self.closed += 1

    def outlines(self) -> tuple[Vm, ...]:
        self.answers.wait(30)
        return self.vms

    def wait(self, seconds: float) -> bool:
        came = self.news.wait(seconds)
        self.news.clear()
        if self.lost:
            raise GONE
        return came

    def wake(self) -> None:
        self.news.set()

    def end(self) -> None:
        self.lost = True
        self.news.set()


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
