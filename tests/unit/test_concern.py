"""Old backups and what only a person can do: told once, then weekly, and when it is over."""

from dataclasses import replace
from datetime import timedelta

from tests.support.jobs import NOW, job
from vm_babysitter.domain.concern import Concern, needs_you, stale
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.findings import Code, Finding, Weight
from vm_babysitter.domain.job import Job, JobKind, JobState
from vm_babysitter.service.concerns import first_missed, late

DAY = timedelta(days=1)
PERSON = Finding(Code.NO_BACKUP, Weight.PERSON, "its disk is gone", way_out="Put it back.")


def about(days: float, good: bool = True) -> Concern:
    now = NOW + days * DAY
    return Concern("u", "router", NOW if good else None, NOW, now)


def test_an_old_backup_is_told_once_then_weekly_and_when_it_is_good_again() -> None:
    told: list[Event] = []
    for day in range(20):
        told = [*stale(about(day), told, 3), *told]
    assert [(event.at - NOW) / DAY for event in told] == [18, 11, 4]
    assert told[-1].subject == "VM router has had no good restore point for 4 days"
    assert told[-1].severity is Severity.ALERT
    (fresh,) = stale(about(1), told, 3)
    assert (fresh.kind, stale(about(1), [fresh, *told], 3)) == ("vm-fresh", [])


def test_a_vm_without_any_counts_from_the_start_and_zero_days_mean_never() -> None:
    assert stale(about(3, good=False), [], 3) == []
    (told,) = stale(about(4, good=False), [], 3)
    assert "There is none." in told.text
    assert stale(about(400), [], 0) == []


def test_a_vm_without_any_counts_from_its_first_failure_whenever_the_server_starts() -> None:
    def at(days: int, state: JobState = JobState.FAILED, kind: JobKind = JobKind.BACKUP) -> Job:
        return replace(job(kind=kind, state=state), created=NOW + days * DAY)

    started = NOW + 5 * DAY
    assert first_missed([], started) == started
    assert first_missed([at(6)], started) == started
    assert first_missed([at(6), at(4), at(2), at(0, kind=JobKind.VERIFY)], started) == NOW + 2 * DAY
    assert first_missed([at(4), at(3, JobState.DONE), at(0)], started) == NOW + 4 * DAY


def test_what_only_a_person_can_do() -> None:
    told = needs_you(about(0), [], [PERSON])
    assert told[0].text == "Its disk is gone. Put it back."
    assert needs_you(about(1), told, [PERSON]) == []
    assert len(needs_you(about(8), told, [PERSON])) == 1
    (over,) = needs_you(about(1), told, [])
    assert needs_you(about(2), [over, *told], []) == []
    assert len(needs_you(about(2), [over, *told], [PERSON])) == 1


def test_a_run_that_begins_late_is_told() -> None:
    assert late("daily", NOW, 2, NOW + timedelta(minutes=14)) is None
    told = late("daily", NOW, 2, NOW + DAY)
    assert told is not None
    assert told.subject == "Schedule daily was missed and is made up for"
