"""A journal that fails: the runner goes on in memory, says so, and tells it later."""

import logging
from datetime import timedelta

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import DONE, NOW, FailingJournal, request
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import JobState, finish, transition
from vm_babysitter.engine.steady_journal import SteadyJournal


class Bench:
    def __init__(self) -> None:
        self.real = FailingJournal()
        self.back = 0
        self.journal = SteadyJournal(self.real, FakeClock(NOW), self._is_back)

    def _is_back(self) -> None:
        self.back += 1

    def kinds(self) -> list[str]:
        return [event.kind for event in self.journal.events()]


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.CRITICAL)
    return Bench()


def event(text: str, minutes: int = 0) -> Event:
    return Event(NOW + timedelta(minutes=minutes), "x", Severity.NORMAL, text)


def test_all_goes_to_the_journal_while_it_works(bench: Bench) -> None:
    made = bench.journal.submit(request(), NOW)
    running = transition(made, JobState.RUNNING, started=NOW)
    bench.journal.update(running)
    bench.journal.note_run("daily", NOW)
    bench.journal.finish(finish(running, DONE, NOW), [event("done")])
    assert bench.real.jobs() == bench.journal.jobs()
    assert bench.real.events() == bench.journal.events() == [event("done")]
    assert bench.real.last_runs() == bench.journal.last_runs() == {"daily": NOW}
    assert bench.journal.trouble == ""


@pytest.mark.parametrize("blind", [False, True], ids=["can be read", "cannot be read"])
def test_while_it_fails_all_goes_on_in_memory_and_it_is_told_later(
    bench: Bench, blind: bool
) -> None:
    before = bench.journal.submit(request("before"), NOW)
    bench.real.broken, bench.real.blind = "disk I/O error", blind
    made = bench.journal.submit(request("a"), NOW)
    assert made.id > before.id
    running = transition(made, JobState.RUNNING, started=NOW)
    bench.journal.update(running)
    ended = finish(running, DONE, NOW)
    again = bench.journal.finish(ended, [event("done", 1)], request("again"))
    assert again is not None
    bench.journal.note_run("daily", NOW)
    bench.journal.event(event("more", 2))

    assert "disk I/O error" in bench.journal.trouble
    assert "in memory only" in bench.journal.trouble
    assert bench.journal.job(made.id) == ended
    assert bench.journal.jobs() == [again, ended, before]
    assert bench.journal.jobs(states={JobState.DONE}) == [ended]
    assert bench.journal.last_runs() == {"daily": NOW}
    assert bench.kinds() == ["x", "x", EventKind.JOURNAL_FAILED]
    assert bench.journal.events()[-1].severity is Severity.ALERT

    bench.real.broken = ""
    bench.journal.retry()
    assert bench.journal.trouble == ""
    assert bench.back == 1
    assert bench.real.jobs() == [again, ended, before]
    assert bench.real.last_runs() == {"daily": NOW}
    told = [e.kind for e in bench.real.events()]
    assert sorted(told) == sorted(["x", "x", EventKind.JOURNAL_FAILED, EventKind.JOURNAL_BACK])
    assert bench.real.events() == bench.journal.events()
    assert bench.journal.submit(request("z"), NOW).id > again.id


def test_one_failure_is_told_once_however_often_it_happens(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.real.broken = "database or disk is full"
    for number in range(10):
        bench.journal.event(event(str(number)))
    assert bench.kinds().count(EventKind.JOURNAL_FAILED) == 1
    assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_a_journal_that_was_exchanged_for_an_empty_one_learns_of_all_that_has_not_ended(
    bench: Bench,
) -> None:
    """It was damaged, is set aside, and the new one works at once."""
    queued = bench.journal.submit(request("q"), NOW)
    running = transition(bench.journal.submit(request("r"), NOW), JobState.RUNNING, started=NOW)
    bench.journal.update(running)
    bench.real.forget(queued.id)
    bench.real.forget(running.id)
    bench.real.broken = "it is damaged and was set aside"
    may_fail = bench.real._may_fail

    def once(*, reading: bool = False) -> None:
        try:
            may_fail(reading=reading)
        finally:
            bench.real.broken = ""

    bench.real._may_fail = once  # type: ignore[method-assign]
    third = bench.journal.submit(request("s"), NOW)
    assert bench.journal.trouble == ""
    assert bench.real.jobs() == [third, running, queued]
    assert bench.kinds() == [EventKind.JOURNAL_BACK, EventKind.JOURNAL_FAILED]


def test_what_ran_before_a_start_without_journal_is_interrupted_when_it_is_back(
    bench: Bench,
) -> None:
    old = transition(bench.real.submit(request("old"), NOW), JobState.RUNNING, started=NOW)
    bench.real.update(old)
    waiting = bench.real.submit(request("waiting"), NOW)
    bench.real.broken, bench.real.blind = "unable to open database file", True
    assert bench.journal.interrupted(NOW) == []
    made = transition(bench.journal.submit(request("new"), NOW), JobState.RUNNING, started=NOW)
    bench.journal.update(made)
    assert made.id == int(NOW.timestamp()) + 1  # no number of the journal's
    bench.real.broken = ""
    bench.journal.retry()
    states = {j.request.vm_name: j.state for j in bench.real.jobs() if j.request.try_number == 1}
    assert states == {
        "old": JobState.INTERRUPTED,
        "waiting": JobState.QUEUED,
        "new": JobState.RUNNING,
    }
    assert bench.back == 1
    queued = bench.journal.jobs(states={JobState.QUEUED})
    assert {j.request.vm_name for j in queued} == {"waiting", "old"}
    assert waiting in queued


def test_what_was_queued_before_the_start_is_told_to_a_new_journal_too(bench: Bench) -> None:
    before = bench.real.submit(request("before"), NOW)
    assert bench.journal.interrupted(NOW) == []
    bench.real.forget(before.id)
    bench.real.broken = "it is damaged"
    bench.journal.event(event("x"))
    bench.real.broken = ""
    bench.journal.retry()
    assert bench.real.jobs() == [before]


def test_what_has_ended_is_not_remembered_for_ever(bench: Bench) -> None:
    for number in range(30):
        made = bench.journal.submit(request(f"{number}"), NOW)
        running = transition(made, JobState.RUNNING, started=NOW)
        bench.journal.finish(finish(running, DONE, NOW), [event("done")])
    assert bench.journal._memory.jobs() == []
    assert bench.journal._memory.events() == []
    bench.real.broken = "full"
    for number in range(2500):
        bench.journal.event(event(str(number)))
    assert len(bench.journal._memory.events(limit=10_000)) == 2000


# -- the outbox ----------------------------------------------------------------------------


@pytest.mark.parametrize("blind", [False, True], ids=["can be read", "cannot be read"])
def test_what_was_told_while_it_failed_is_not_told_again(bench: Bench, blind: bool) -> None:
    """Whether it happened before or meanwhile, and was told before, meanwhile, or not at all."""
    journal = bench.journal
    before, open_, told = event("before"), event("open"), event("told")
    for each in (before, open_, told):
        journal.event(each)
    journal.note_channel("a", NOW)
    journal.note_channel("b", NOW)
    journal.note_told("a", [told.key])
    bench.real.broken, bench.real.blind = "disk I/O error", blind
    journal.note_channel("b", None)
    journal.note_channel("c", NOW)
    meanwhile, left = event("meanwhile", 1), event("left", 2)
    for each in (meanwhile, left):
        journal.event(each)
    (failed,) = journal.events(kinds={EventKind.JOURNAL_FAILED})
    journal.note_telling("a", [before.key, meanwhile.key])
    assert journal.telling("a")[-1] == meanwhile
    journal.note_told("a", [before.key, meanwhile.key, failed.key])
    untold = journal.untold("a", NOW, 9)
    assert untold == ([left] if blind else [open_, left])
    assert (journal.telling("a"), "b" in journal.channels()) == ([], False)
    assert "c" in journal.channels()

    bench.real.broken = ""
    journal.retry()
    (back,) = journal.events(kinds={EventKind.JOURNAL_BACK})
    for either in (journal, bench.real):
        found = {e.key for e in either.untold("a", NOW, 9)}
        assert found == {open_.key, left.key, back.key}
        assert either.telling("a") == []
        assert either.channels() == {"a": NOW, "c": NOW}


def test_many_that_only_memory_knows_to_be_told_hide_none(bench: Bench) -> None:
    events = [event(str(number), number) for number in range(9)]
    for each in events:
        bench.journal.event(each)
    bench.real.broken = "read-only file system"
    bench.journal.note_told("a", [each.key for each in events[:6]])
    found = bench.journal.untold("a", NOW + timedelta(seconds=1), 2)
    assert found == events[6:8]
