"""One suite for journals: that in memory and that in a file do the same."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import DONE, NOW, job, request, scheduled
from vm_babysitter.adapters.sqlite.journal import SqliteJournal
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import (
    Job,
    JobKind,
    JobRequest,
    JobState,
    Origin,
    Result,
    finish,
    transition,
)
from vm_babysitter.domain.job_past import KnownPoint
from vm_babysitter.domain.outbox import Outbox
from vm_babysitter.engine.memory_journal import MemoryJournal
from vm_babysitter.ports import Journal

MINUTE = timedelta(minutes=1)
ODD = "- \"ü:ñ\", 'x' & 日本 $(touch x); DROP TABLE jobs; %s {0}\n"


def event(text: str, minutes: int = 0, **changes: object) -> Event:
    at = NOW + timedelta(minutes=minutes)
    return Event(at, "x", Severity.NORMAL, text, **changes)  # type: ignore[arg-type]


class JournalContract:
    """What every journal does."""

    def test_jobs_get_numbers_that_rise(self, journal: Journal) -> None:
        made = [journal.submit(request(vm), NOW) for vm in "abc"]
        assert [j.id for j in made] == sorted({j.id for j in made})
        assert all(j.state is JobState.QUEUED and j.created == NOW for j in made)
        assert journal.jobs() == made[::-1]
        assert journal.job(made[1].id) == made[1]

    def test_what_is_not_known_is_none_or_nothing(self, journal: Journal) -> None:
        journal.submit(request("a"), NOW)
        for number in (0, -1, 99, 2**63, 2**70, -(2**70)):
            assert journal.job(number) is None
            assert journal.events(job=number) == []
        assert journal.jobs(vm="b") == []
        assert journal.jobs(states=set()) == []
        assert journal.jobs(limit=0) == []
        assert journal.jobs(before=-(2**70)) == []
        assert len(journal.jobs(before=2**70)) == 1

    def test_everything_about_a_job_comes_back(self, journal: Journal) -> None:
        asked = JobRequest(
            JobKind.RESTORE,
            ODD,
            ODD,
            {"point": ODD, "number": 3, "yes": True, "disks": ["vda", ODD]},
            Origin.RETRY,
            ODD,
            3,
            NOW + timedelta(microseconds=1),
        )
        made = journal.submit(asked, NOW)
        assert journal.job(made.id) == made
        for state, changes in (
            (JobState.WAITING, {"waits_for": ODD}),
            (JobState.RUNNING, {"started": NOW, "step": ODD, "done_bytes": 2**50}),
            (JobState.FAILED, {"finished": NOW, "code": ODD, "hint": ODD, "summary": ODD}),
        ):
            made = transition(made, state, **changes)
            journal.update(made)
            assert journal.job(made.id) == made

    def test_times_come_back_whatever_their_zone(self, journal: Journal) -> None:
        east = datetime(2026, 11, 24, 3, 15, tzinfo=timezone(timedelta(hours=1)))
        made = journal.submit(request("a", not_before=east), east)
        assert made.created == NOW
        found = journal.job(made.id)
        assert found is not None
        assert (found.created, found.request.not_before) == (NOW, NOW)

    def test_jobs_are_found_by_vm_state_and_number(self, journal: Journal) -> None:
        one, two, three = (journal.submit(request(vm), NOW) for vm in "aba")
        journal.update(transition(two, JobState.CANCELLED))
        assert [j.id for j in journal.jobs(vm="a")] == [three.id, one.id]
        assert [j.id for j in journal.jobs(vm="uuid-a")] == [three.id, one.id]
        assert [j.id for j in journal.jobs(states={JobState.CANCELLED})] == [two.id]
        assert [j.id for j in journal.jobs(limit=2)] == [three.id, two.id]
        assert [j.id for j in journal.jobs(before=three.id)] == [two.id, one.id]
        both = {JobState.CANCELLED, JobState.QUEUED}
        found = journal.jobs(vm="a", states=both, before=three.id, limit=5)
        assert [j.id for j in found] == [one.id]

    def test_an_unknown_job_that_is_updated_is_added(self, journal: Journal) -> None:
        journal.update(job(41, JobState.RUNNING))
        assert journal.job(41) == job(41, JobState.RUNNING)
        assert journal.submit(request("b"), NOW).id == 42

    def test_the_end_of_a_job_its_events_and_what_follows(self, journal: Journal) -> None:
        running = transition(journal.submit(request(), NOW), JobState.RUNNING, started=NOW)
        ended = finish(running, DONE, NOW + timedelta(minutes=1))
        told = [event("one", job_id=ended.id), event("two", job_id=ended.id)]
        again = journal.finish(ended, told, request(try_number=2))
        assert again is not None
        assert (again.state, again.created) == (JobState.QUEUED, ended.finished)
        assert journal.jobs() == [again, ended]
        assert journal.events() == told[::-1]
        assert journal.finish(again, ()) is None

    def test_what_runs_at_the_start_was_interrupted(self, journal: Journal) -> None:
        queued = journal.submit(scheduled("q"), NOW)
        backup, restore, alive = (
            transition(journal.submit(request(vm, kind), NOW), JobState.RUNNING, started=NOW)
            for vm, kind in (
                ("b", JobKind.BACKUP),
                ("r", JobKind.RESTORE),
                ("a", JobKind.BACKUP),
            )
        )
        for one in (backup, restore, alive):
            journal.update(one)
        later = NOW + timedelta(hours=1)
        lost = journal.interrupted(later, besides=[alive.id])
        assert [j.id for j in lost] == [backup.id, restore.id]
        assert all(j.state is JobState.INTERRUPTED and j.finished == later for j in lost)
        assert [journal.job(j.id) for j in lost] == lost
        assert journal.job(queued.id) == queued
        assert journal.job(alive.id) == alive
        (again,) = [j for j in journal.jobs() if j.request.origin is Origin.RETRY]
        assert again.request.same_work(backup.request)
        assert again.request.try_number == 2
        assert [e.kind for e in journal.events()] == [EventKind.JOB_INTERRUPTED] * 2
        assert journal.interrupted(later, besides=[alive.id]) == []

    def test_events_are_found_by_vm_and_job_the_newest_first(self, journal: Journal) -> None:
        late = event("late", 5, vm_uuid="u", vm_name=ODD, job_id=3, code="c")
        early, same = event("early", vm_uuid="u"), event("same", job_id=3)
        for one in (late, early, same):
            journal.event(one)
        assert journal.events() == [late, same, early]
        assert journal.events(limit=1) == [late]
        assert journal.events(vm="u") == [late, early]
        assert journal.events(vm=ODD) == [late]
        assert journal.events(job=3) == [late, same]

    def test_runs_of_schedules(self, journal: Journal) -> None:
        assert journal.last_runs() == {}
        journal.note_run(ODD, NOW)
        journal.note_run("weekly", NOW)
        journal.note_run(ODD, NOW + timedelta(days=1))
        assert journal.last_runs() == {ODD: NOW + timedelta(days=1), "weekly": NOW}

    def test_what_was_remembered_elsewhere_is_taken_over(self, journal: Journal) -> None:
        known = journal.submit(request("a"), NOW)
        newer = transition(known, JobState.RUNNING, started=NOW)
        journal.take_over([newer, job(70)], [event("x")], {"daily": NOW})
        assert journal.jobs() == [job(70), newer]
        assert journal.events() == [event("x")]
        assert journal.last_runs() == {"daily": NOW}

    def test_what_is_old_and_has_ended_is_forgotten(self, journal: Journal) -> None:
        old = NOW - timedelta(days=100)
        ended = finish(job(1, JobState.RUNNING), DONE, old)
        recent = finish(job(2, JobState.RUNNING), DONE, NOW)
        waiting = Job(3, request("w"), JobState.QUEUED, old)
        journal.take_over(
            [ended, recent, waiting], [event("old", -60 * 24 * 100), event("new")], {"d": old}
        )
        assert journal.prune(NOW - timedelta(days=90)) == 2
        assert journal.jobs() == [waiting, recent]
        assert journal.events() == [event("new")]
        assert journal.last_runs() == {"d": old}
        assert journal.submit(request(), NOW).id == 4

    def test_it_is_rebuilt_from_restore_points(self, journal: Journal) -> None:
        known = Job(5, request("a"), JobState.DONE, NOW, point="c/000001")
        journal.update(known)
        points = [
            KnownPoint("uuid-a", "a", name, NOW + timedelta(days=n), NOW + timedelta(days=n))
            for n, name in ((2, "c/000003"), (1, "c/000002"), (0, "c/000001"))
        ]
        journal.rebuild([*points, KnownPoint("uuid-b", "b", "c/000001", NOW, NOW, ("!",))])
        assert journal.lost() == ""
        found = [(j.request.vm_name, j.point, j.state) for j in journal.jobs()]
        assert found == [
            ("a", "c/000003", JobState.DONE),
            ("a", "c/000002", JobState.DONE),
            ("b", "c/000001", JobState.DONE),
            ("a", "c/000001", JobState.DONE),
        ]
        assert journal.jobs(vm="b")[0].result is Result.WARNINGS
        journal.rebuild(points)
        assert len(journal.jobs()) == 4

    def test_a_restore_point_that_is_just_being_made_is_not_told_twice(
        self, journal: Journal
    ) -> None:
        made = journal.submit(request("a"), NOW)
        running = replace(made, state=JobState.RUNNING, started=NOW)
        journal.update(running)
        point = KnownPoint("uuid-a", "a", "c/000001", NOW + MINUTE, NOW + MINUTE)
        journal.rebuild([point])
        assert journal.jobs() == [running]
        interrupted = replace(running, state=JobState.INTERRUPTED, finished=NOW + 2 * MINUTE)
        journal.update(interrupted)
        later = replace(point, name="c/000002", started=NOW + 3 * MINUTE)
        journal.rebuild([point, later])
        assert [job.point for job in journal.jobs()] == ["c/000002", ""]

    # -- the outbox -------------------------------------------------------------------

    def test_events_keep_their_keys_and_each_has_its_own(self, journal: Journal) -> None:
        told = [event("one"), event("two")]
        journal.finish(finish(job(1, JobState.RUNNING), DONE, NOW), told)
        journal.event(event("three"))
        keys = [found.key for found in journal.events()]
        assert keys[1:] == [told[1].key, told[0].key]
        assert len(set(keys)) == 3

    def test_events_are_found_by_kind(self, journal: Journal) -> None:
        for text, kind in (("a", "x"), ("b", "y"), ("c", ODD)):
            journal.event(replace(event(text), kind=kind))
        assert [e.subject for e in journal.events(kinds={"x", ODD})] == ["c", "a"]
        assert journal.events(kinds=set()) == []

    def test_what_is_told_is_noted_for_each_channel(self, journal: Journal) -> None:
        one, two, three = (event(text, at) for text, at in (("1", 2), ("2", 0), ("3", 1)))
        for each in (one, two, three):
            journal.event(each)
        assert journal.untold("a", NOW, 9) == [two, three, one]
        assert journal.untold("a", NOW, 2) == [two, three]
        assert journal.untold("a", NOW + MINUTE, 9) == [three, one]
        journal.note_telling("a", [two.key, three.key])
        assert journal.untold("a", NOW, 9) == [one]
        assert journal.telling("a") == [two, three]
        journal.note_told("a", [three.key])
        journal.note_told("a", [three.key])
        assert journal.telling("a") == [two]
        assert journal.untold("a", NOW, 9) == [one]
        journal.note_told("a", [two.key])
        assert journal.telling("a") == []
        assert (journal.telling("b"), journal.untold("b", NOW, 9)) == ([], [two, three, one])

    def test_an_event_without_a_key_is_never_told(self, journal: Journal) -> None:
        journal.event(event("old", key=""))
        assert journal.untold("a", NOW, 9) == []

    def test_channels_are_on_since_a_moment(self, journal: Journal) -> None:
        assert journal.channels() == {}
        journal.note_channel(ODD, NOW)
        journal.note_channel("b", NOW)
        journal.note_channel("b", NOW + MINUTE)
        assert journal.channels() == {ODD: NOW, "b": NOW + MINUTE}
        journal.note_channel(ODD, None)
        journal.note_channel(ODD, None)
        assert journal.channels() == {"b": NOW + MINUTE}

    def test_what_was_noted_elsewhere_is_taken_over(self, journal: Journal) -> None:
        mine, theirs, being = event("mine"), event("theirs"), event("being")
        journal.event(mine)
        journal.note_channel("off", NOW)
        told = {("a", mine.key): True, ("a", theirs.key): True, ("a", being.key): False}
        outbox = Outbox({"a": NOW, "off": None}, told)
        journal.take_over((), [theirs, being], {}, outbox)
        assert journal.channels() == {"a": NOW}
        assert journal.untold("a", NOW, 9) == []
        assert journal.telling("a") == [being]
        assert journal.untold("b", NOW, 9) == [mine, theirs, being]

    def test_what_is_forgotten_is_not_told_any_more(self, journal: Journal) -> None:
        old, new = event("old"), event("new", 5)
        for each in (old, new):
            journal.event(each)
            journal.note_telling("a", [each.key])
        journal.prune(NOW + MINUTE)
        assert journal.telling("a") == [new]


class TestMemoryJournal(JournalContract):
    """The one in memory, which is also the fake."""

    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()


class TestSqliteJournal(JournalContract):
    """The one in a file."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        made = SqliteJournal(tmp_path / "journal.sqlite", FakeClock(NOW))
        yield made
        made.close()


texts = st.text()
moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(9990, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
options = st.dictionaries(
    texts, st.one_of(st.booleans(), st.integers(), texts, st.lists(texts)), max_size=3
)
jobs = st.builds(
    Job,
    id=st.integers(1, 2**62),
    request=st.builds(
        JobRequest,
        st.sampled_from(JobKind),
        texts,
        texts,
        options,
        st.sampled_from(Origin),
        texts,
        st.integers(1, 9),
        st.none() | moments,
    ),
    state=st.sampled_from(JobState),
    created=moments,
    started=st.none() | moments,
    finished=st.none() | moments,
    waits_for=texts,
    result=st.none() | st.sampled_from(Result),
    summary=texts,
    code=texts,
    hint=texts,
    point=texts,
    step=texts,
    done_bytes=st.integers(0, 2**62),
    total_bytes=st.integers(0, 2**62),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> SqliteJournal:
    return SqliteJournal(tmp_path_factory.mktemp("journal") / "journal.sqlite", FakeClock(NOW))


@given(kept=jobs)
def test_any_job_comes_back_from_the_file_as_it_was(file: SqliteJournal, kept: Job) -> None:
    file.update(kept)
    assert file.job(kept.id) == kept


def test_half_a_character_in_a_name_keeps_nobody_from_writing(file: SqliteJournal) -> None:
    made = file.submit(request("a\ud800b", options={"x": "\udfff"}), NOW)
    found = file.job(made.id)
    assert found is not None
    assert found.request.vm_name == "a?b"
