"""A service that watches over schedules hears when a run begins, and how it went."""

import logging
from dataclasses import replace

import pytest

from tests.support.jobs import eventually, job, request, scheduled
from vm_babysitter.domain.errors import NotifyFailed, NotifyRefused
from vm_babysitter.domain.job import Job, JobState, Origin, Result
from vm_babysitter.engine.run_pings import RunPings


class FakePinger:
    """Implements ``ports.Pinger``."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.errors: list[Exception] = []

    def ping(self, what: str, text: str, within: float) -> None:
        assert within > 0
        if self.errors:
            raise self.errors.pop()
        self.told.append((what, text))

    def words(self) -> list[str]:
        return [what for what, _ in self.told]


class Bench:
    def __init__(self) -> None:
        self.pinger = FakePinger()
        self.on = True
        self.pings = RunPings(lambda: self.pinger if self.on else None)
        self.pings.window = self.pings.pause = 0.01

    def hears(self, number: int, state: JobState, vm: str = "a", **changes: object) -> None:
        asked = changes.pop("asked", scheduled(vm))
        result = {JobState.DONE: Result.OK, JobState.FAILED: Result.FAILED}.get(state)
        made: Job = job(number, state, request=asked, result=result, **changes)
        self.pings.job(replace(made, summary=f"Sum of {vm}."))

    def runs(self, number: int, state: JobState, vm: str = "a") -> None:
        for each in (JobState.QUEUED, JobState.RUNNING, state):
            self.hears(number, each, vm)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.CRITICAL)
    return Bench()


def test_a_run_that_goes_well(bench: Bench) -> None:
    bench.hears(1, JobState.QUEUED)
    bench.hears(2, JobState.QUEUED, "b")
    bench.pings.round()
    assert bench.pinger.words() == ["start"]
    bench.hears(1, JobState.RUNNING)
    bench.hears(1, JobState.DONE)
    bench.pings.round()
    assert bench.pinger.words() == ["start"]
    bench.hears(2, JobState.DONE, "b")
    bench.pings.round()
    bench.pings.round()
    assert bench.pinger.told[1:] == [
        ("success", "2 went well.\nbackup of a: Sum of a.\nbackup of b: Sum of b.")
    ]


def test_a_mistake_of_ours_is_said_without_the_address(bench: Bench) -> None:
    bench.pinger.errors = [RuntimeError("no way to https://hc.example/private")]
    bench.runs(1, JobState.DONE)
    bench.pings.round()
    assert bench.pinger.words() == ["success"]
    bench.pinger.errors = [RuntimeError("no way to https://hc.example/private")]
    bench.hears(2, JobState.QUEUED)
    bench.pings.round()
    assert "RuntimeError" in bench.pings.trouble
    assert "private" not in bench.pings.trouble


def test_a_failure_is_told_once_nothing_is_tried_again(bench: Bench) -> None:
    bench.runs(1, JobState.FAILED)
    bench.runs(2, JobState.DONE, "b")
    again = request("a", origin=Origin.RETRY, schedule="daily backup", try_number=2)
    bench.hears(3, JobState.QUEUED, asked=again)
    bench.pings.round()
    assert bench.pinger.words() == ["start"]
    bench.hears(3, JobState.FAILED, asked=again)
    bench.pings.round()
    assert bench.pinger.told[1] == (
        "fail",
        "1 of 2 did not succeed.\nbackup of a: Sum of a.",
    )


def test_a_failure_that_is_made_good_is_a_success(bench: Bench) -> None:
    bench.runs(1, JobState.FAILED)
    bench.runs(2, JobState.DONE)
    bench.pings.round()
    assert bench.pinger.words() == ["start", "success"]


def test_jobs_of_users_are_no_run(bench: Bench) -> None:
    bench.hears(1, JobState.RUNNING, asked=request("a"))
    bench.hears(1, JobState.FAILED, asked=request("a"))
    bench.pings.round()
    assert bench.pinger.told == []


def test_nobody_is_told_where_none_is_set_up(bench: Bench) -> None:
    bench.on = False
    bench.runs(1, JobState.FAILED)
    bench.pings.round()
    bench.on = True
    bench.runs(2, JobState.DONE)
    bench.pings.round()
    assert bench.pinger.words() == ["start", "success"]


def test_a_failing_service_is_asked_three_times(bench: Bench) -> None:
    bench.pinger.errors = [NotifyFailed("health", "away")] * 2
    bench.hears(1, JobState.QUEUED)
    bench.pings.round()
    assert (bench.pinger.words(), bench.pings.trouble) == (["start"], "")
    bench.pinger.errors = [NotifyFailed("health", "away")] * 3
    bench.hears(1, JobState.DONE)
    bench.pings.round()
    assert bench.pinger.words() == ["start"]
    assert "away" in bench.pings.trouble
    bench.pinger.errors = [NotifyRefused("health", "no such check")]
    bench.hears(2, JobState.QUEUED)
    bench.pings.round()
    assert (bench.pinger.errors, "no such check" in bench.pings.trouble) == ([], True)


def test_the_thread_tells_and_ends(bench: Bench) -> None:
    bench.pings.start()
    bench.runs(1, JobState.DONE)
    eventually(lambda: "success" in bench.pinger.words())
    bench.pings.stop(5)
    assert bench.pinger.words() == ["start", "success"]
