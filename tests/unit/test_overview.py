"""Is everything fine, and what is there to do?"""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.points import BEGAN
from vm_babysitter.domain.diagnosis import Diagnosis, Health
from vm_babysitter.domain.findings import Code, Facts, Finding, Weight
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState
from vm_babysitter.domain.overview import Situation, Todo, health_words, overview
from vm_babysitter.domain.vm import PowerState

NOW = BEGAN + timedelta(days=10)
HOUR = timedelta(hours=1)
WELL = Situation(
    "house", "u1", PowerState.RUNNING, "", newest_taken=NOW - 5 * HOUR, succeeded=NOW - 2 * HOUR
)
FAILED = Job(
    7,
    JobRequest(JobKind.BACKUP, "u1", "house"),
    JobState.FAILED,
    NOW,
    summary="The disk is full.",
    hint="Free some.",
)
ODD = Finding(Code.ODD, Weight.PERSON, "a folder is not ours", way_out="Move it away.")


def diagnosis(*findings: Finding, health: Health = Health.GOOD) -> Diagnosis:
    return Diagnosis(Facts("house", "u1"), health, findings, ())


NONE, LOST = diagnosis(health=Health.NONE), diagnosis(health=Health.LOST)


def sentence(*situations: Situation, general: tuple[Todo, ...] = ()) -> str:
    return overview(situations, general, set_up=True, now=NOW).sentence


def test_not_set_up() -> None:
    found = overview([WELL], [], set_up=False, now=NOW)
    assert not found.fine
    assert "Settings" in found.todo[0].hint


@pytest.mark.parametrize(
    ("situations", "expected"),
    [
        ((), "No VM is backed up."),
        ((replace(WELL, left_out="it is ignored"),), "No VM is backed up."),
        ((WELL,), "All is well: house was backed up 2 h 0 min ago."),
        ((WELL, replace(WELL, succeeded=None)),
         "All is well: each of 2 VMs was backed up within the last 5 h 0 min."),
        ((WELL, replace(WELL, succeeded=NOW - timedelta(days=3))),
         "All is well: each of 2 VMs was backed up within the last 3 days."),
        ((replace(WELL, succeeded=None, newest_taken=None),),
         "All is well; house had no backup yet."),
        ((WELL, replace(WELL, succeeded=None, newest_taken=None)),
         "All is well; 1 of 2 VMs had no backup yet."),
        ((WELL, replace(WELL, diagnosis=NONE, newest_taken=None)),  # the folder was emptied
         "All is well; 1 of 2 VMs had no backup yet."),
        ((replace(WELL, diagnosis=LOST, newest_taken=None),), "house needs your attention."),
        ((WELL, replace(WELL, last=FAILED)), "1 of 2 VMs need your attention."),
        ((replace(WELL, last=FAILED),), "house needs your attention."),
    ],
)  # fmt: skip
def test_the_sentence(situations: tuple[Situation, ...], expected: str) -> None:
    assert sentence(*situations) == expected


def test_something_that_is_about_no_vm() -> None:
    full = Todo("The backup folder is full.")
    looked_at = replace(WELL, diagnosis=diagnosis())
    assert sentence(looked_at, general=(full,)) == (
        "house is all right, but something else needs your attention."
    )
    new = replace(WELL, succeeded=None, newest_taken=None)
    assert sentence(new, general=(full,)) == (
        "house had no backup yet, and something else needs your attention."
    )
    assert sentence(new, WELL, general=(full,)).startswith("1 of 2 VMs had no backup yet, and")
    assert sentence(looked_at, WELL, general=(full,)) == "Something needs your attention."
    assert overview([WELL], [full], set_up=True, now=NOW).todo == (full,)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (WELL, []),
        (replace(WELL, last=FAILED), ["The last backup of house failed: The disk is full."]),
        (replace(WELL, last=FAILED, tries_again=True), []),
        (replace(WELL, last=replace(FAILED, state=JobState.DONE)), []),
        (replace(WELL, last=replace(FAILED, state=JobState.CANCELLED)), []),
        (replace(WELL, left_out="it is ignored", last=FAILED), []),
        (replace(WELL, overdue=NOW + HOUR), []),
        (replace(WELL, overdue=NOW - HOUR),
         ["house has had no backup that went well since 2026-12-02 00:15 UTC."]),
        (replace(WELL, overdue=NOW - HOUR, succeeded=None),
         ["house has had no backup that went well yet."]),
        (replace(WELL, diagnosis=diagnosis(ODD)), ["house: a folder is not ours."]),
        (replace(WELL, diagnosis=diagnosis(replace(ODD, what="It failed. Look."))),
         ["house: It failed. Look."]),
        (replace(WELL, diagnosis=diagnosis(replace(ODD, weight=Weight.LOSS))), []),
        (replace(WELL, diagnosis=diagnosis(ODD), last=FAILED, overdue=NOW - HOUR),
         ["house: a folder is not ours.", "The last backup of house failed: The disk is full."]),
    ],
)  # fmt: skip
def test_what_there_is_to_do(situation: Situation, expected: list[str]) -> None:
    found = overview([situation], [], set_up=True, now=NOW)
    assert [todo.what for todo in found.todo] == expected
    assert found.fine == (not expected)


def test_the_health_in_words() -> None:
    assert health_words(WELL, NOW) == "not looked at yet"
    assert health_words(replace(WELL, diagnosis=diagnosis()), NOW) == "good, 5 h 0 min old"
    none = replace(WELL, diagnosis=diagnosis(health=Health.NONE), newest_taken=None)
    assert health_words(none, NOW) == "no backup yet"
