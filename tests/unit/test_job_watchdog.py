"""The watchdog of jobs, and gates that hang: decisions by tables."""

import threading
from datetime import timedelta

import pytest

from tests.support.jobs import eventually, job, request
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.job import JobKind, JobRequest, JobState
from vm_babysitter.engine.gates import NO_ANSWER, Gates
from vm_babysitter.engine.watchdog import Patience, Signs, Verdict, judge, stalled

HOUR = 3600.0
PATIENCE = Patience(
    warn=timedelta(minutes=15),
    end=timedelta(hours=1),
    grace=timedelta(minutes=5),
)


@pytest.mark.parametrize(
    ("kind", "quiet", "told", "expected"),
    [
        (JobKind.BACKUP, 1, None, Verdict.FINE),
        (JobKind.BACKUP, 899, None, Verdict.FINE),
        (JobKind.BACKUP, 900, None, Verdict.WARN),
        (JobKind.BACKUP, HOUR, None, "job-stalled"),
        (JobKind.VERIFY, HOUR, None, "job-stalled"),
        (JobKind.RESTORE, HOUR, None, Verdict.WARN),
        (JobKind.CONVERT, HOUR, None, Verdict.WARN),
        (JobKind.REPAIR, HOUR, None, Verdict.WARN),
        (JobKind.BACKUP, 3 * HOUR, 1, Verdict.FINE),
        (JobKind.BACKUP, 3 * HOUR, 300, Verdict.GIVE_UP),
    ],
)
def test_what_is_done_about_a_job(
    kind: JobKind, quiet: float, told: float | None, expected: Verdict | str
) -> None:
    found = judge(Signs(kind, quiet, told, "copy"), PATIENCE)
    assert (found.code if isinstance(found, BabysitterError) else found) == expected


@pytest.mark.parametrize(
    ("step", "quiet", "told", "expected"),
    [
        ("command before", HOUR, None, Verdict.FINE),
        ("command after", HOUR, None, Verdict.FINE),
        ("command after", HOUR, 2 * HOUR, Verdict.FINE),
        ("command after", 299, 300, Verdict.FINE),
        ("command after", 2 * HOUR, None, "job-stalled"),
        ("command after", 2 * HOUR, 300, Verdict.GIVE_UP),
    ],
)
def test_a_command_of_the_users_may_take_the_hour_that_it_is_given(
    step: str, quiet: float, told: float | None, expected: Verdict | str
) -> None:
    found = judge(Signs(JobKind.BACKUP, quiet, told, step), PATIENCE)
    assert (found.code if isinstance(found, BabysitterError) else found) == expected


def test_the_error_names_the_step_that_did_not_get_on() -> None:
    found = judge(Signs(JobKind.BACKUP, HOUR, None, "freeze"), PATIENCE)
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


@pytest.mark.parametrize(
    ("kind", "then"),
    [
        (JobKind.BACKUP, "After 1 h of that it is ended, and you are told."),
        (JobKind.RESTORE, "If it does not go on, `vm-babysitter cancel 7` ends it."),
    ],
)
def test_what_is_said_of_a_job_that_does_not_get_on(kind: JobKind, then: str) -> None:
    running = job(7, JobState.RUNNING, request=request("a", kind))
    first, last = stalled(running, Patience()).splitlines()
    assert first.startswith("Nothing has moved for 15 min (step: beginning). Look whether libvirt")
    assert last == then
