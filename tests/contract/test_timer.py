"""Alarms: the fake and APScheduler keep the same promises. Real time is short here."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.timer import FakeTimer
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.timer import ApsTimer
from vm_babysitter.ports import Timer

SHORT = 0.2
LONG = timedelta(hours=5)
PATIENCE = 20.0
"""Seconds until a machine, however busy, has done what was due."""


class SetClock(SystemClock):
    """The system's clock, which tests may set without setting it for all others."""

    shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


class Stage(Protocol):
    timer: Timer

    def now(self) -> datetime: ...
    def until(self, done: Callable[[], bool]) -> None: ...
    def a_moment(self) -> None: ...
    def jump(self, amount: timedelta) -> None: ...


class FakeStage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fake = FakeTimer(self.clock)
        self.timer: Timer = self.fake

    def now(self) -> datetime:
        return self.clock.now()

    def until(self, done: Callable[[], bool]) -> None:
        for _ in range(20):
            self.a_moment()
            if done():
                return
        raise AssertionError("it never happened")

    def a_moment(self) -> None:
        self.fake.pass_time(timedelta(seconds=2 * SHORT))

    def jump(self, amount: timedelta) -> None:
        self.fake.jump(amount)


class RealStage:
    def __init__(self) -> None:
        self.clock = SetClock()
        self.real = ApsTimer(self.clock, beat=0.05)
        self.timer: Timer = self.real

    def now(self) -> datetime:
        return self.clock.now()

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    def a_moment(self) -> None:
        time.sleep(2 * SHORT)

    def jump(self, amount: timedelta) -> None:
        self.clock.shift += amount
        time.sleep(2 * SHORT)


@pytest.fixture(params=["fake", "apscheduler"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    real = RealStage()
    real.real.start()
    yield real
    real.real.stop()


def soon(stage: Stage, seconds: float = SHORT) -> datetime:
    return stage.now() + timedelta(seconds=seconds)


def test_an_alarm_rings_once_and_not_too_early(stage: Stage) -> None:
    rung: list[datetime] = []
    moment = soon(stage)
    stage.timer.at("a", moment, lambda: rung.append(stage.now()))
    assert stage.timer.alarms() == {"a": moment}
    assert rung == []
    stage.until(lambda: bool(rung))
    stage.a_moment()
    assert len(rung) == 1
    assert rung[0] >= moment
    assert stage.timer.alarms() == {}


def test_a_moment_that_is_over_rings_at_once(stage: Stage) -> None:
    rung: list[str] = []
    stage.timer.at("a", stage.now() - timedelta(days=400), lambda: rung.append("a"))
    stage.until(lambda: rung == ["a"])


def test_moments_may_be_told_in_any_zone(stage: Stage) -> None:
    rung: list[str] = []
    there = soon(stage).astimezone(tz=None)
    stage.timer.at("a", there, lambda: rung.append("a"))
    assert stage.timer.alarms() == {"a": there}
    stage.until(lambda: rung == ["a"])


def test_an_alarm_is_replaced_by_one_of_the_same_name(stage: Stage) -> None:
    rung: list[str] = []
    stage.timer.at("a", soon(stage), lambda: rung.append("old"))
    stage.timer.at("a", soon(stage), lambda: rung.append("new"))
    stage.timer.at("b", soon(stage), lambda: rung.append("b"))
    stage.until(lambda: len(rung) == 2)
    stage.a_moment()
    assert sorted(rung) == ["b", "new"]


def test_a_cancelled_alarm_does_not_ring(stage: Stage) -> None:
    rung: list[str] = []
    stage.timer.at("a", soon(stage), lambda: rung.append("a"))
    stage.timer.cancel("a")
    stage.timer.cancel("a")
    stage.timer.cancel("never set")
    stage.a_moment()
    assert rung == []
    assert stage.timer.alarms() == {}


def test_a_call_may_set_its_own_alarm_anew_even_for_now(stage: Stage) -> None:
    rung: list[int] = []

    def ring() -> None:
        rung.append(len(rung))
        if len(rung) < 5:
            stage.timer.at("a", stage.now(), ring)

    stage.timer.at("a", stage.now(), ring)
    stage.until(lambda: rung == [0, 1, 2, 3, 4])


def test_a_call_that_fails_keeps_no_other_from_being_made(stage: Stage) -> None:
    rung: list[str] = []

    def fail() -> None:
        rung.append("failed")
        raise OSError("the disk is full")

    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    stage.timer.at("a", stage.now(), fail)
    stage.until(lambda: rung == ["failed"])
    stage.timer.at("b", soon(stage), lambda: rung.append("b"))
    stage.until(lambda: rung == ["failed", "b"])
    logging.getLogger("apscheduler").setLevel(logging.NOTSET)


def test_a_clock_set_forward_rings_what_it_has_passed(stage: Stage) -> None:
    rung: list[str] = []
    stage.timer.at("a", stage.now() + LONG, lambda: rung.append("a"))
    stage.timer.at("b", stage.now() + 3 * LONG, lambda: rung.append("b"))
    stage.a_moment()
    assert rung == []
    stage.jump(2 * LONG)
    stage.until(lambda: bool(rung))
    stage.a_moment()
    assert rung == ["a"]


def test_a_clock_set_back_rings_when_it_gets_there_again(stage: Stage) -> None:
    rung: list[str] = []
    stage.timer.at("a", soon(stage, 60), lambda: rung.append("a"))
    stage.jump(-LONG)
    stage.a_moment()
    assert rung == []
    stage.timer.at("b", soon(stage), lambda: rung.append("b"))  # not silent for five hours
    stage.until(lambda: rung == ["b"])
    stage.jump(LONG + timedelta(seconds=60))
    stage.until(lambda: rung == ["b", "a"])


def test_who_wants_to_know_is_told_that_the_clock_was_set(stage: Stage) -> None:
    told: list[str] = []
    stage.timer.on_jump(lambda: told.append("x"))
    stage.timer.on_jump(lambda: told.append("y"))
    stage.a_moment()
    assert told == []
    stage.jump(timedelta(seconds=30))
    stage.until(lambda: sorted(told) == ["x", "y"])
    stage.jump(timedelta(seconds=-30))
    stage.until(lambda: sorted(told) == ["x", "x", "y", "y"])


# --- of the real one -----------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[ApsTimer]:
    timer = ApsTimer(SystemClock())
    yield timer
    timer.stop()


def test_alarms_set_before_the_start_ring_after_it(real: ApsTimer) -> None:
    rung = threading.Event()
    real.at("a", datetime.now(UTC), rung.set)
    real.at("b", datetime.now(UTC), rung.set)
    real.cancel("b")
    assert not rung.wait(SHORT)
    real.start()
    assert rung.wait(PATIENCE)


def test_calls_come_one_at_a_time(real: ApsTimer) -> None:
    at_once: list[int] = []
    running = threading.Semaphore(10)
    done = threading.Semaphore(0)

    def call() -> None:
        running.acquire()
        at_once.append(running._value)
        time.sleep(0.05)
        running.release()
        done.release()

    real.start()
    for number in range(4):
        real.at(str(number), datetime.now(UTC), call)
    assert all(done.acquire(timeout=PATIENCE) for _ in range(4))
    assert at_once == [9, 9, 9, 9]


def test_stopping_does_not_wait_for_a_call_even_one_that_sets_an_alarm(real: ApsTimer) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(PATIENCE)
        real.at("again", datetime.now(UTC), call)
        ended.set()

    real.start()
    real.at("a", datetime.now(UTC), call)
    assert begun.wait(PATIENCE)
    before = time.monotonic()
    real.stop()
    assert time.monotonic() - before < PATIENCE / 2
    go_on.set()
    assert ended.wait(PATIENCE)


_HANGS = """
import threading
from datetime import UTC, datetime
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.timer import ApsTimer

timer, begun = ApsTimer(SystemClock()), threading.Event()
timer.start()
timer.at("a", datetime.now(UTC), lambda: (begun.set(), threading.Event().wait()))
begun.wait()
timer.stop()
"""


def test_a_call_that_hangs_does_not_keep_the_process_from_ending() -> None:
    subprocess.run([sys.executable, "-c", _HANGS], timeout=PATIENCE, check=True)


def test_nothing_rings_after_the_end(real: ApsTimer) -> None:
    rung = threading.Event()
    real.start()
    real.at("a", datetime.now(UTC) + timedelta(seconds=SHORT), rung.set)
    real.stop()
    real.stop()
    assert not rung.wait(2 * SHORT)


def test_a_clock_set_back_unnoticed_rings_nothing_too_early() -> None:
    clock, rung = SetClock(), threading.Event()
    timer = ApsTimer(clock)  # looks at the clock in 15 seconds only
    timer.start()
    try:
        moment = clock.now() + timedelta(seconds=SHORT)
        timer.at("a", moment, rung.set)
        clock.shift = -LONG
        assert not rung.wait(3 * SHORT)
        assert timer.alarms() == {"a": moment}
    finally:
        timer.stop()


@pytest.mark.parametrize("change", ["none", "cancelled", "replaced"])
def test_an_alarm_that_waits_for_a_long_call(real: ApsTimer, change: str) -> None:
    begun, go_on = threading.Event(), threading.Event()
    rung: list[str] = []

    def call() -> None:
        begun.set()
        go_on.wait(PATIENCE)

    real.start()
    real.at("long", datetime.now(UTC), call)
    assert begun.wait(PATIENCE)
    real.at("a", datetime.now(UTC), lambda: rung.append("old"))
    time.sleep(1.5)  # it is due, and late by more than APScheduler's second of grace
    if change == "cancelled":
        real.cancel("a")
    if change == "replaced":
        real.at("a", datetime.now(UTC), lambda: rung.append("new"))
    last = threading.Event()
    real.at("last", datetime.now(UTC) + timedelta(seconds=SHORT), last.set)
    go_on.set()
    assert last.wait(PATIENCE)
    assert rung == {"none": ["old"], "cancelled": [], "replaced": ["new"]}[change]
