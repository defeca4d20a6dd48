"""Each event is told once, whatever the channel does; and nobody waits for it."""

import logging
import threading
import time
from datetime import timedelta

import pytest

from tests.support.fakes.channel import FakeChannel
from tests.support.fakes.clock import FakeClock
from tests.support.jobs import NOW, eventually
from vm_babysitter.domain.errors import NotifyFailed, NotifyRefused
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.message import Policy, gather
from vm_babysitter.engine.memory_journal import MemoryJournal
from vm_babysitter.engine.telling import Teller
from vm_babysitter.ports import Channel

DAY = 86400.0
FAILS = NotifyFailed("fake", "the server is away")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.journal = MemoryJournal()
        self.channel = FakeChannel()
        self.on = True
        self.policy = Policy("each")
        self.teller = self.new()
        self.teller._is_on(self.channel)

    def new(self) -> Teller:
        """Return what tells in a process that has just begun."""
        made = Teller("fake", self._find, self.journal, self.clock, lambda: self.policy)
        made.window = 0.05
        return made

    def _find(self) -> Channel | None:
        return self.channel if self.on else None

    def happens(self, *subjects: str, severity: Severity = Severity.WARNING) -> None:
        for subject in subjects:
            self.journal.event(Event(self.clock.now(), "x", severity, subject))

    def untold(self) -> list[str]:
        return [event.subject for event in self.journal.untold("fake", NOW, 99)]

    def rounds(self, *seconds: float) -> None:
        for each in seconds:
            self.clock.advance(each)
            self.teller.round()


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.CRITICAL)
    return Bench()


def test_each_event_is_told_once(bench: Bench) -> None:
    bench.happens("a", "b")
    bench.rounds(0, 60)
    bench.happens("c")
    bench.rounds(60, 60)
    assert [m.subject for m in bench.channel.sent] == ["a", "b", "c"]
    assert bench.channel.asked == [30.0] * 3
    assert bench.journal.telling("fake") == []


def test_before_it_is_sent_it_is_noted_that_it_is_being_told(bench: Bench) -> None:
    seen: list[list[str]] = []
    bench.channel.before = lambda _: seen.append(
        [event.subject for event in bench.journal.telling("fake")]
    )
    bench.happens("a", "b")
    bench.rounds(0)
    assert seen == [["a"], ["b"]]


def test_what_happened_before_it_was_switched_on_is_not_told(bench: Bench) -> None:
    bench.on = False
    bench.rounds(0)
    bench.happens("before")
    bench.clock.advance(1)
    bench.on = True
    bench.rounds(0)
    bench.happens("after")
    bench.rounds(0)
    assert bench.channel.told() == ["after"]


def test_what_is_as_old_as_three_days_is_not_told(bench: Bench) -> None:
    bench.channel.error = FAILS
    bench.happens("failed to be told")
    bench.rounds(0)
    bench.happens("old")
    bench.clock.advance(3 * DAY + 1)
    bench.channel.error = None
    bench.happens("new")
    bench.rounds(0)
    assert bench.channel.told() == ["new"]
    assert bench.journal.telling("fake") == []


def test_what_nobody_wants_to_hear_of_is_passed_over(bench: Bench) -> None:
    bench.policy = Policy("never")
    quiet = Event(NOW, EventKind.JOB_DONE, Severity.NORMAL, "done")
    bench.journal.event(quiet)
    bench.rounds(0)
    bench.policy = Policy("each")
    bench.rounds(0)
    assert (bench.channel.sent, bench.untold()) == ([], [])


def test_successes_are_told_once_a_day(bench: Bench) -> None:
    bench.policy = Policy("daily")
    for name in ("a", "b"):
        bench.journal.event(Event(NOW, EventKind.JOB_DONE, Severity.NORMAL, name))
    bench.rounds(0, 3600)
    assert bench.channel.sent == []
    bench.rounds(DAY / 4, 60)
    assert bench.channel.told() == ["a", "b"]
    assert len(bench.channel.sent) == 1


# -- failures ------------------------------------------------------------------------------


def test_a_failure_is_tried_again_later_and_later_until_it_gets_through(bench: Bench) -> None:
    bench.channel.error = FAILS
    bench.happens("a")
    bench.rounds(0, 59, 2, 299, 2, 899, 2, 3599, 2, 3599, 2)
    assert len(bench.channel.asked) == 6
    assert "the server is away" in bench.teller.trouble
    bench.channel.error = None
    bench.happens("b")
    bench.rounds(10)
    assert bench.channel.sent == []
    bench.rounds(3600)
    assert bench.channel.told() == ["a", "b"]
    assert bench.teller.trouble == ""


def test_other_settings_have_it_tried_at_once(bench: Bench) -> None:
    bench.channel.error = FAILS
    bench.happens("a")
    bench.rounds(0)
    bench.channel.error = None
    bench.teller.settings_changed()
    bench.rounds(0)
    assert bench.channel.told() == ["a"]


def test_a_clock_that_is_set_back_does_not_hold_up_another_try(bench: Bench) -> None:
    bench.channel.error = FAILS
    bench.happens("a")
    bench.rounds(0)
    bench.channel.error = None
    bench.rounds(-2 * DAY)
    assert bench.channel.told() == ["a"]


def test_what_failed_and_arrived_all_the_same_is_not_sent_again(bench: Bench) -> None:
    bench.channel.error, bench.channel.arrives = FAILS, True
    bench.happens("a")
    bench.rounds(0, DAY)
    assert bench.channel.told() == ["a"]
    assert bench.teller.trouble == ""


def test_a_refusal_is_not_tried_again_and_holds_up_nothing(bench: Bench) -> None:
    bench.channel.error = NotifyRefused("fake", "no such address")
    bench.happens("a", "b")
    bench.rounds(0, DAY)
    assert len(bench.channel.asked) == 2
    assert "no such address" in bench.teller.trouble
    bench.channel.error = None
    bench.happens("c")
    bench.rounds(60)
    assert bench.channel.told() == ["c"]
    assert bench.teller.trouble == ""


def test_a_mistake_of_ours_in_a_channel_is_a_failure_like_others(bench: Bench) -> None:
    bench.channel.error = RuntimeError("no way to https://hooks.example/private")
    bench.happens("a")
    bench.rounds(0)
    assert "RuntimeError" in bench.teller.trouble
    assert "private" not in bench.teller.trouble
    bench.channel.error = None
    bench.rounds(61)
    assert bench.channel.told() == ["a"]


def test_a_channel_that_this_host_has_not_is_told_of_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.channel.absent = "there is no script"
    bench.happens("a")
    bench.rounds(60, 60, 60)
    assert caplog.text.count("there is no script") == 1
    assert (bench.channel.asked, bench.teller.trouble) == ([], "")


# -- crashes -------------------------------------------------------------------------------


def killed_while_sending(bench: Bench, *subjects: str, arrived: bool) -> None:
    """Have the process end after sending began, and before it is noted."""

    def kill(_: object) -> None:
        raise KeyboardInterrupt

    bench.happens(*subjects)
    bench.channel.before = kill
    with pytest.raises(KeyboardInterrupt):
        bench.teller.round()
    bench.channel.before = lambda _: None
    if arrived:
        bench.channel.sent += gather(bench.journal.telling("fake"), bench.policy, NOW)
    bench.teller = bench.new()


@pytest.mark.parametrize("number", [1, 9])
@pytest.mark.parametrize("arrived", [True, False])
def test_after_a_kill_it_is_told_exactly_once_where_the_channel_knows(
    bench: Bench, number: int, arrived: bool
) -> None:
    subjects = [f"event {n}" for n in range(number)]
    killed_while_sending(bench, *subjects, arrived=arrived)
    bench.happens("later")
    bench.rounds(0, 60)
    assert sorted(bench.channel.told()) == sorted([*subjects, "later"])


def test_where_the_channel_does_not_know_it_is_told_twice_rather_than_never(bench: Bench) -> None:
    bench.channel.knows = False
    killed_while_sending(bench, "a", arrived=True)
    bench.rounds(0, 60)
    assert bench.channel.told() == ["a", "a"]
    assert len({message.key for message in bench.channel.sent}) == 1


# -- the thread ----------------------------------------------------------------------------


def test_ten_events_in_a_second_are_one_message_and_none_is_lost(bench: Bench) -> None:
    bench.teller.window = 0.5
    bench.teller.start()
    for number in range(10):
        bench.happens(f"e{number}")
        bench.teller.wake()
        time.sleep(0.02)
    eventually(lambda: bench.channel.sent)
    bench.teller.stop(5)
    assert len(bench.channel.sent) == 1
    assert sorted(bench.channel.told()) == [f"e{number}" for number in range(10)]


def test_it_ends_in_time_although_the_channel_hangs(bench: Bench) -> None:
    bench.channel.gate = threading.Event()
    bench.happens("a")
    bench.teller.start()
    bench.teller.wake()
    eventually(lambda: bench.channel.asked)
    begun = time.monotonic()
    bench.teller.stop(0.1)
    assert time.monotonic() - begun < 5
    bench.channel.gate.set()


def test_the_journal_may_be_a_new_one_meanwhile(bench: Bench) -> None:
    bench.happens("a")
    bench.rounds(0)
    bench.journal = bench.teller._journal = MemoryJournal()
    bench.clock.advance(60)
    bench.happens("b")
    bench.rounds(1)
    assert bench.channel.told() == ["a", "b"]
    assert bench.journal.channels() == {"fake": NOW}


def test_an_alert_does_not_wait_behind_hundreds_of_successes_for_the_summary(bench: Bench) -> None:
    bench.policy = Policy("daily")
    for number in range(501):
        done = Event(bench.clock.now(), EventKind.JOB_DONE, Severity.NORMAL, f"{number}")
        bench.journal.event(done)
    bench.clock.advance(1)
    bench.happens("it burns", severity=Severity.ALERT)
    bench.rounds(1)
    assert [m.subject for m in bench.channel.sent] == ["it burns"]


def test_a_new_alert_is_not_given_up_with_the_old_events_of_its_message(bench: Bench) -> None:
    bench.happens("a", "b", "c")
    bench.clock.advance(2.9 * DAY)
    bench.happens("it burns", severity=Severity.ALERT)
    bench.channel.error = FAILS
    bench.rounds(0)
    bench.channel.error = None
    bench.rounds(0.2 * DAY)
    assert [m.subject for m in bench.channel.sent] == ["it burns"]


def test_a_channel_switched_on_while_the_clock_was_ahead_tells_all_the_same(bench: Bench) -> None:
    bench.journal.note_channel("fake", bench.clock.now() + timedelta(days=365))
    bench.happens("a")
    bench.rounds(1)
    assert [m.subject for m in bench.channel.sent] == ["a"]
