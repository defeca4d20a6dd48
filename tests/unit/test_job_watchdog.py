"""The watchdog of jobs, and gates that hang: decisions by tables."""

import threading
from datetime import timedelta

import pytest

from tests.support.jobs import eventually, request
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.job import JobKind, JobRequest
from vm_babysitter.engine.gates import NO_ANSWER, Gates
from vm_babysitter.engine.watchdog import Patience, Signs, Verdict, judge

HOUR = 3600.0
PATIENCE = Patience(
    warn=timedelta(minutes=15),
    end=timedelta(hours=1),
    longest=timedelta(hours=12),
    grace=timedelta(minutes=5),
)


@pytest.mark.parametrize(
    ("kind", "age", "quiet", "told", "expected"),
    [
        (JobKind.BACKUP, 1, 1, None, Verdict.FINE),
        (JobKind.BACKUP, HOUR, 899, None, Verdict.FINE),
        (JobKind.BACKUP, HOUR, 900, None, Verdict.WARN),
        (JobKind.BACKUP, 2 * HOUR, HOUR, None, "job-stalled"),
        (JobKind.VERIFY, 2 * HOUR, HOUR, None, "job-stalled"),
        (JobKind.RESTORE, 2 * HOUR, HOUR, None, Verdict.WARN),
        (JobKind.CONVERT, 2 * HOUR, HOUR, None, Verdict.WARN),
        (JobKind.REPAIR, 2 * HOUR, HOUR, None, Verdict.WARN),
        (JobKind.BACKUP, 12 * HOUR - 1, 1, None, Verdict.FINE),
        (JobKind.BACKUP, 12 * HOUR, 1, None, "job-too-long"),
        (JobKind.CONVERT, 12 * HOUR, 1, None, "job-too-long"),
        (JobKind.BACKUP, 20 * HOUR, 3 * HOUR, 1, Verdict.FINE),
        (JobKind.BACKUP, 20 * HOUR, 3 * HOUR, 300, Verdict.GIVE_UP),
    ],
)
def test_what_is_done_about_a_job(
    kind: JobKind, age: float, quiet: float, told: float | None, expected: Verdict | str
) -> None:
    found = judge(Signs(kind, age, quiet, told, "copy"), PATIENCE)
    assert (found.code if isinstance(found, BabysitterError) else found) == expected


def test_without_a_bound_a_job_takes_as_long_as_it_likes() -> None:
    assert judge(Signs(JobKind.BACKUP, 1000 * HOUR, 1), Patience()) is Verdict.FINE


def test_the_error_names_the_step_that_did_not_get_on() -> None:
    found = judge(Signs(JobKind.BACKUP, 2 * HOUR, HOUR, None, "freeze"), PATIENCE)
    assert "for 1 h 0 min (step: freeze)" in str(found)


def test_a_gate_that_hangs_is_shut_and_holds_up_nobody_else() -> None:
    hold = threading.Event()
    asked = []

    def gate(wanted: JobRequest) -> str:
        asked.append(wanted.vm_name)
        assert hold.wait(20)
        return ""

    gates = Gates([gate], patience=0.05)
    assert gates.ask(request("a")) == NO_ANSWER
    assert gates.ask(request("b")) == NO_ANSWER
    assert asked == ["a"]  # no thread for each question
    hold.set()
    eventually(lambda: gates.ask(request("c")) == "")


def test_the_first_gate_that_is_shut_tells() -> None:
    assert Gates([]).ask(request()) == ""
    gates = Gates([lambda _: "", lambda r: f"the disks of {r.vm_name}", lambda _: "more"])
    assert gates.ask(request("a")) == "the disks of a"
