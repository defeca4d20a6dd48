"""Which events are told, when, and in which words."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.support.jobs import NOW, job, request
from vm_babysitter.domain.event import NOTHING_LEFT, Event, EventKind, Severity, end_events
from vm_babysitter.domain.job import (
    Job,
    JobKind,
    JobState,
    Origin,
    Outcome,
    Result,
    finish,
    interrupt,
)
from vm_babysitter.domain.message import (
    Message,
    Policy,
    When,
    again,
    gather,
    summary_due,
    when_told,
)

HOUR = timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")


def event(
    subject: str, severity: Severity = Severity.WARNING, kind: str = "x", **changes: object
) -> Event:
    return Event(NOW, kind, severity, subject, **changes)  # type: ignore[arg-type]


def done(number: int, vm: str, at: datetime = NOW, result: Result = Result.OK) -> Job:
    state = JobState.FAILED if result is Result.FAILED else JobState.DONE
    return job(
        number, state, vm=vm, result=result, finished=at, summary=f"Sum of {vm}.", hint="Do so."
    )


def success(vm: str, at: datetime = NOW) -> Event:
    return Event(at, EventKind.JOB_DONE, Severity.NORMAL, f"Backup of {vm} done", vm_name=vm)


def gathered(*events: Event, policy: Policy | None = None, at: datetime = NOW) -> list[Message]:
    return gather(events, policy or Policy(), at)


@pytest.mark.parametrize(
    ("kind", "severity", "success", "told"),
    [
        ("job-done", Severity.NORMAL, "each", When.NOW),
        ("job-done", Severity.NORMAL, "daily", When.DAILY),
        ("job-done", Severity.NORMAL, "never", When.NEVER),
        ("job-done", Severity.WARNING, "never", When.NOW),
        ("job-failed", Severity.ALERT, "never", When.NOW),
        ("job-resumed", Severity.NORMAL, "never", When.NOW),
        ("repaired", Severity.NORMAL, "never", When.NOW),
        ("journal-back", Severity.NORMAL, "daily", When.NOW),
        ("autostart-held", Severity.WARNING, "never", When.NOW),
        ("job-cancelled", Severity.NORMAL, "each", When.NEVER),
        ("vm-appeared", Severity.NORMAL, "each", When.NEVER),
        ("vm-gone", Severity.NORMAL, "each", When.NEVER),
    ],
)
def test_when_an_event_is_told(kind: str, severity: Severity, success: str, told: When) -> None:
    assert when_told(event("a", severity, kind), Policy(success)) is told


def test_one_event_is_one_message_that_says_what_to_do() -> None:
    failed = replace(job(12, JobState.RUNNING, vm="router", started=NOW), started=NOW)
    outcome = Outcome(Result.FAILED, "The disk is full.", code="x", hint="Free some space.")
    (told,) = end_events(finish(failed, outcome, NOW), (), None, NOW)
    (message,) = gathered(told, policy=Policy(zone=BERLIN))
    assert message.subject == "Backup of router failed"
    assert message.text == "The disk is full. Free some space."
    assert message.severity is Severity.ALERT
    assert message.vm_name == "router"
    assert message.details.splitlines() == [
        "It happened at 2026-11-24 03:15.",
        "Job 12: `vm-babysitter logs 12` says more.",
    ]
    assert (message.link, message.keys) == ("/Settings/VMBabysitter", (told.key,))


def test_what_to_do_is_said_at_once_however_long_the_error_is() -> None:
    """Where Unraid shows a message first there is no more of it than subject and text."""
    said = f"libvirt failed: {'e' * 2000}: no such file"
    (message,) = gathered(event("Failed", text=f"{said}\nmore\nFree some space."))
    assert (len(message.text), "…" in message.text) == (300, True)
    assert message.text.startswith("libvirt failed: ")
    assert message.text.endswith(": no such file. more. Free some space.")
    assert message.details.splitlines()[:3] == [said, "more", "Free some space."]
    (message,) = gathered(event("Failed", text=f"e\n{'m' * 2000}"))
    assert message.text == "e."


def test_the_vm_is_named_where_the_subject_does_not() -> None:
    (message,) = gathered(event("It is odd", text="So.", vm_name="router"))
    assert message.details.startswith("VM: router\n")


def test_three_are_told_one_by_one_and_more_are_one_message() -> None:
    events = [event(f"warning {number}") for number in range(4)]
    assert len(gathered(*events[:3])) == 3
    (message,) = gathered(*events)
    assert message.subject == "warning 0; warning 1; warning 2; and 1 more"
    assert message.text == "4 things have happened: 4 warnings."
    assert set(message.keys) == {each.key for each in events}
    assert all(each.subject in message.details for each in events)


def test_alerts_stand_in_the_subject_of_a_digest_and_come_first() -> None:
    events = [event(f"note {n}", Severity.NORMAL) for n in range(6)]
    events += [event("w"), *(event(f"alert {n}", Severity.ALERT) for n in range(4))]
    (message,) = gathered(*events)
    assert message.severity is Severity.ALERT
    assert message.subject == "alert 0; alert 1; alert 2; and 1 more that need you"
    assert message.text == "11 things have happened: 4 need you, 1 warning, 6 others."
    lines = message.details.splitlines()
    assert ["alert" in line for line in lines] == [True] * 4 + [False] * 7


def test_a_flood_of_hundreds_stays_readable_and_shows_each_alert() -> None:
    events = [event(f"w{n}", text="y" * 2000) for n in range(400)]
    events.append(event("the alert", Severity.ALERT))
    (message,) = gathered(*events)
    assert len(message.keys) == 401
    assert "the alert" in message.subject
    lines = message.details.splitlines()
    assert (len(lines), "the alert" in lines[0]) == (101, True)
    assert lines[-1] == "And 301 more: `vm-babysitter events` lists them."
    assert max(map(len, lines)) <= 300


def test_odd_names_stay_on_one_line() -> None:
    (message,) = gathered(event("a\nb\tc", text="\n\n x \n\ny"))
    assert (message.subject, message.text) == ("a b c", "x. y.")
    (message,) = gathered(event("only"))
    assert message.text == "only."


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-24T07:00:00+00:00", "2026-11-24T07:00:00+00:00"),  # 08:00 there
        ("2026-11-24T06:59:59+00:00", "2026-11-23T07:00:00+00:00"),
        ("2026-03-29T06:30:00+00:00", "2026-03-29T06:00:00+00:00"),  # the clock was moved
    ],
)
def test_when_a_summary_is_due(now: str, due: str) -> None:
    policy = Policy(daily_at=time(8), zone=BERLIN)
    assert summary_due(datetime.fromisoformat(now), policy) == datetime.fromisoformat(due)


def test_successes_wait_for_the_summary_of_the_day() -> None:
    events = [success("a"), success("b"), event("w")]
    jobs = [done(1, "a"), done(2, "b"), done(3, "c", result=Result.NOTHING)]
    assert [m.subject for m in gather(events, Policy(), NOW + HOUR, jobs)] == ["w"]
    morning = datetime(2026, 11, 24, 8, tzinfo=UTC)
    (message,) = gather(events[:2], Policy(), morning, jobs)
    assert message.subject == "2 backups, all good"
    assert message.text == "2 backups went well; 1 VM had nothing to do."
    assert message.severity is Severity.NORMAL
    assert message.details.splitlines() == [
        "From 2026-11-23 08:00 to 2026-11-24 08:00.",
        "good: backup of a: Sum of a.",
        "good: backup of b: Sum of b.",
    ]


def test_a_summary_says_what_failed_and_was_not_made_good() -> None:
    jobs = [
        done(1, "a", result=Result.FAILED),
        done(2, "b", result=Result.FAILED),
        done(3, "a"),
        done(4, "c", result=Result.WARNINGS),
        replace(done(5, "d"), request=request("d", JobKind.VERIFY)),
        done(6, "old", NOW - 3 * 24 * HOUR),
    ]
    (message,) = gather([success("a")], Policy(), datetime(2026, 11, 24, 8, tzinfo=UTC), jobs)
    assert message.subject == "2 backups, 1 verification good; failed: b"
    assert message.text == (
        "2 backups, 1 verification went well (1 with warnings); 1 backup did not succeed."
    )
    assert message.severity is Severity.WARNING
    assert "failed: backup of b: Sum of b. Do so." in message.details
    assert "failed: backup of a" not in message.details


def test_a_summary_without_its_jobs_still_tells_the_events() -> None:
    (message,) = gather([success("a")], Policy(), datetime(2026, 11, 24, 8, tzinfo=UTC), [])
    assert "Backup of a done" in message.details


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("make", [success, event], ids=["successes", "warnings"])
def test_the_same_events_told_again_make_a_message_with_the_same_key(
    number: int, make: object
) -> None:
    events = [make(str(n)) for n in range(number)]  # type: ignore[operator]
    morning = datetime(2026, 11, 24, 8, tzinfo=UTC)
    jobs = [done(1, "a")]
    for message in gather(events, Policy(), morning, jobs):
        for policy in (Policy("daily"), Policy("each")):
            repeated = again(message.events, policy, jobs)
            assert repeated.key == message.key
            assert set(repeated.keys) == set(message.keys)


# -- events of their own -------------------------------------------------------------------


def ended(kind: JobKind, origin: Origin, result: Result, try_number: int = 1) -> Event:
    asked = request("a", kind, origin=origin, try_number=try_number)
    running = replace(job(1, JobState.RUNNING, request=asked), started=NOW)
    (told,) = end_events(finish(running, Outcome(result, "Done so."), NOW), (), None, NOW)
    return told


def test_a_repair_that_nobody_asked_for_is_told_as_such() -> None:
    told = ended(JobKind.REPAIR, Origin.RETRY, Result.OK)
    assert (told.kind, told.severity) == (EventKind.REPAIRED, Severity.NORMAL)
    assert told.subject == "The backups of a were repaired"
    assert told.text == "Done so.\nNothing is left for you to do."
    assert ended(JobKind.REPAIR, Origin.USER, Result.OK).kind == EventKind.JOB_DONE
    assert ended(JobKind.REPAIR, Origin.RETRY, Result.WARNINGS).kind == EventKind.JOB_DONE


def test_what_was_interrupted_and_went_well_after_all_is_told() -> None:
    told = ended(JobKind.BACKUP, Origin.RETRY, Result.OK, 2)
    assert (told.kind, told.subject) == (EventKind.JOB_RESUMED, "Backup of a done after all")
    assert "An earlier try was interrupted or failed" in told.text
    assert ended(JobKind.BACKUP, Origin.SCHEDULE, Result.OK).kind == EventKind.JOB_DONE


def test_warnings_come_before_what_went_well() -> None:
    running = replace(job(1, JobState.RUNNING, vm="a"), started=NOW)
    outcome = Outcome(Result.WARNINGS, "Made.", warnings=("Not frozen.",))
    (told,) = end_events(finish(running, outcome, NOW), outcome.warnings, None, NOW)
    assert told.subject == "Backup of a done, with warnings"
    assert told.text == "Not frozen.\nMade."


def test_the_subject_says_what_was_done_and_what_came_of_it() -> None:
    def subject(kind: JobKind, outcome: Outcome) -> str:
        running = replace(job(1, JobState.RUNNING, request=request("a", kind)), started=NOW)
        (told,) = end_events(finish(running, outcome, NOW), (), None, NOW)
        return told.subject

    failed = Outcome(Result.FAILED, "x", code="store-failed")
    assert subject(JobKind.VERIFY, failed) == "Verification of a failed"
    damaged = Outcome(Result.FAILED, "x", code="point-damaged")
    assert subject(JobKind.VERIFY, damaged) == "Verification of a found damage"
    assert subject(JobKind.RESTORE, damaged) == "Restore of a failed"
    assert subject(JobKind.CONVERT, Outcome(Result.OK, "x")) == "Conversion of a done"


def test_that_nothing_can_be_restored_is_an_alert() -> None:
    running = replace(job(1, JobState.RUNNING, request=request("a", JobKind.REPAIR)), started=NOW)
    outcome = Outcome(Result.WARNINGS, "None.", code=NOTHING_LEFT, hint="Do so.")
    (told,) = end_events(finish(running, outcome, NOW), ("Not done: x.",), None, NOW)
    assert (told.severity, told.text) == (Severity.ALERT, "None.\nNot done: x.\nDo so.")


def test_what_was_interrupted_and_is_not_done_again_says_so() -> None:
    running = replace(job(1, JobState.RUNNING, request=request("a", JobKind.RESTORE)), started=NOW)
    (told,) = end_events(interrupt(running, NOW), (), None, NOW)
    assert "start it anew" in told.text
    another = replace(running.request, not_before=NOW + timedelta(minutes=10))
    (told,) = end_events(interrupt(running, NOW), (), another, NOW)
    assert told.text.splitlines()[-1] == "It is tried again in 10 min."


def test_a_vm_that_was_given_back_is_counted_in_the_summary() -> None:
    given = replace(done(1, "a"), request=request("a", JobKind.RELEASE))
    (message,) = gather([success("a")], Policy(), datetime(2026, 11, 24, 8, tzinfo=UTC), [given])
    assert message.subject == "1 release, all good"
