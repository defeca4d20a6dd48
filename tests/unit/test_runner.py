"""The runner: jobs in threads of their own, in their order, each with an end that is kept."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import DONE, NOW, Listener, Works, eventually, request, scheduled
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.domain.errors import (
    BabysitterError,
    Cancelled,
    ConnectionLost,
    Damaged,
    JobNotFound,
)
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import (
    Job,
    JobKind,
    JobRequest,
    JobState,
    Limits,
    Origin,
    Outcome,
    Result,
)
from vm_babysitter.engine.memory_journal import MemoryJournal
from vm_babysitter.engine.runner import Runner
from vm_babysitter.engine.watchdog import Patience

BUSY = Outcome(Result.FAILED, "It is busy.", code="busy")
AT_ONCE = timedelta(0)
NEVER = timedelta(hours=1)


class Bench:
    """A runner whose jobs a test holds in its hands."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.clock = FakeClock(NOW)
        self.listener = Listener()
        self.works = Works()
        self.shut: dict[str, str] = {}
        self.runner = self.make()

    def make(self) -> Runner:
        return Runner(
            self.journal,
            self.clock,
            dict.fromkeys(JobKind, self.works),
            [lambda wanted: self.shut.get(wanted.vm_name, "")],
            Limits(2, 1),
            self.listener,
        )

    def state(self, job: Job) -> JobState:
        return self.runner.job(job.id).state

    def wait_for(self, job: Job, state: JobState) -> Job:
        eventually(lambda: self.state(job) is state, lambda: (state, self.runner.job(job.id)))
        return self.runner.job(job.id)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.journal.events()]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.runner.start()
    yield made
    for going in list(made.works.running.values()):
        going.deaf = False
    left = made.runner.stop(20)
    assert left == []


def test_a_job_is_run_and_its_end_is_kept(bench: Bench) -> None:
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    assert bench.state(job) is JobState.RUNNING
    bench.works.end("a", Outcome(Result.WARNINGS, "Made.", "x/000001", ("A disk is odd.",)))
    ended = bench.wait_for(job, JobState.DONE)
    assert (ended.result, ended.summary, ended.point) == (Result.WARNINGS, "Made.", "x/000001")
    (event,) = bench.journal.events()
    assert (event.severity, event.text) == (Severity.WARNING, "A disk is odd.\nMade.")


def test_jobs_run_at_once_as_the_limits_allow_and_a_users_before_the_others(bench: Bench) -> None:
    for vm in "ab":
        bench.runner.submit(scheduled(vm))
    bench.works.wait_for("a", "b")
    bench.runner.submit(scheduled("c"))
    bench.runner.submit(request("d"))
    bench.runner.submit(request("e", JobKind.VERIFY))
    bench.works.wait_for("a", "b", "e")
    bench.works.end("a")
    bench.works.wait_for("b", "d", "e")
    bench.runner.limits = Limits(3, 1)
    bench.runner.wake()
    bench.works.wait_for("b", "c", "d", "e")


def test_jobs_of_one_vm_follow_each_other(bench: Bench) -> None:
    first = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    second = bench.runner.submit(request("a", JobKind.VERIFY))
    bench.runner.submit(request("b", JobKind.VERIFY))
    bench.works.wait_for("a", "b")
    bench.works.end("b")
    bench.works.wait_for("a")
    assert bench.state(second) is JobState.QUEUED
    bench.works.end("a")
    bench.wait_for(first, JobState.DONE)
    bench.wait_for(second, JobState.RUNNING)


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (Damaged("/store/x", "it is"), "damaged", False),
        (ConnectionLost("x", "y"), "connection-lost", True),
        (ZeroDivisionError("by nought"), "internal", False),
    ],
)
def test_an_error_ends_the_job_alone(
    bench: Bench, error: Exception, code: str, again: bool
) -> None:
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    bench.works.end("a", error)
    ended = bench.wait_for(job, JobState.FAILED)
    assert ended.code == code
    assert str(error).split(".", maxsplit=1)[0] in ended.summary
    assert [j.request.origin for j in bench.runner.queued()] == ([Origin.RETRY] if again else [])
    bench.runner.submit(request("b"))
    bench.works.wait_for("b")


def test_what_is_tried_again_begins_when_its_time_has_come(bench: Bench) -> None:
    bench.runner.submit(request("a"))
    for minutes in (5, 15, 60):
        bench.works.wait_for("a")
        bench.works.end("a", BUSY)
        eventually(lambda: len(bench.runner.queued()) == 1)
        bench.clock.advance(minutes * 60 - 1)
        bench.runner.wake()
        time.sleep(0.05)
        assert not bench.works.running
        bench.clock.advance(1)
        bench.runner.wake()
    bench.works.wait_for("a")
    bench.works.end("a", BUSY)
    eventually(lambda: not bench.runner.running())
    assert bench.runner.queued() == []
    assert bench.journal.events()[0].severity is Severity.ALERT


def test_a_job_begins_by_itself_when_its_time_has_come() -> None:
    """On a clock that runs, nobody has to wake the runner."""
    works, clock = Works(), SystemClock()
    runner = Runner(MemoryJournal(), clock, {JobKind.BACKUP: works}, [], Limits(), Listener())
    runner.start()
    try:
        runner.submit(request("a", not_before=clock.now() + timedelta(seconds=0.2)))
        works.wait_for("a")
    finally:
        runner.stop()


# -- gates ---------------------------------------------------------------------------------


def test_a_job_waits_for_what_a_gate_names_and_begins_when_it_is_so(bench: Bench) -> None:
    bench.shut["a"] = "the array to be started"
    job = bench.runner.submit(request("a"))
    bench.runner.submit(request("b"))
    bench.works.wait_for("b")
    waiting = bench.wait_for(job, JobState.WAITING)
    assert waiting.waits_for == "the array to be started"
    bench.shut.clear()
    bench.runner.wake()
    bench.works.wait_for("a", "b")
    assert bench.runner.job(job.id).waits_for == ""


def test_a_gate_that_fails_is_shut_and_the_runner_goes_on() -> None:
    bench = Bench()
    answers: list[Exception] = [Damaged("/x", "odd"), ZeroDivisionError()]

    def gate(wanted: JobRequest) -> str:
        if wanted.vm_name == "a" and answers:
            raise answers[0]
        return ""

    bench.runner = Runner(
        bench.journal, bench.clock, {JobKind.BACKUP: bench.works}, [gate], Limits(4), bench.listener
    )
    bench.runner.start()
    try:
        job = bench.runner.submit(request("a"))
        assert "damaged" in bench.wait_for(job, JobState.WAITING).waits_for
        answers.pop(0)
        bench.runner.wake()
        eventually(lambda: "cannot be told" in bench.runner.job(job.id).waits_for)
        bench.runner.submit(request("b"))
        bench.works.wait_for("b")
        answers.clear()
        bench.runner.wake()
        bench.works.wait_for("a", "b")
    finally:
        bench.runner.stop()


# -- cancelling ----------------------------------------------------------------------------


def test_a_job_can_be_cancelled_in_every_state(bench: Bench) -> None:
    bench.shut["w"] = "something"
    running = bench.runner.submit(request("a"))
    queued = bench.runner.submit(request("a", JobKind.VERIFY))
    waiting = bench.runner.submit(request("w"))
    bench.works.wait_for("a")
    bench.wait_for(waiting, JobState.WAITING)
    for job in (queued, waiting):
        assert bench.runner.cancel(job.id).state is JobState.CANCELLED
    assert bench.runner.cancel(running.id).state is JobState.RUNNING
    ended = bench.wait_for(running, JobState.CANCELLED)
    assert (ended.result, ended.summary) == (Result.CANCELLED, Cancelled().message)
    assert bench.runner.cancel(running.id) == ended
    with pytest.raises(JobNotFound):
        bench.runner.cancel(1234)
    assert bench.runner.queued() == []
    assert bench.works.begun == ["a"]


def test_a_job_that_is_through_before_it_hears_of_it_is_done(bench: Bench) -> None:
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    bench.works.running["a"].deaf = True
    bench.runner.cancel(job.id)
    bench.works.end("a")
    assert bench.wait_for(job, JobState.DONE).result is Result.OK


@pytest.mark.parametrize("stopped", [False, True])
def test_a_job_that_is_cancelled_between_its_beginning_and_its_thread_ends(
    bench: Bench, stopped: bool
) -> None:
    """Who listens hears of the beginning before there is a thread."""

    def hear(job: Job) -> None:
        if job.state is JobState.RUNNING and stopped:
            bench.runner._stopping = True
        elif job.state is JobState.RUNNING:
            bench.runner.cancel(job.id)

    bench.listener.job = hear  # type: ignore[method-assign]
    job = bench.runner.submit(request("a"))
    bench.wait_for(job, JobState.INTERRUPTED if stopped else JobState.CANCELLED)
    assert bench.works.begun == []


def test_many_jobs_that_are_cancelled_as_they_begin_all_end(bench: Bench) -> None:
    """Whether a job has a thread yet or not, a stop is heard."""
    for _ in range(100):
        job = bench.runner.submit(request("a"))
        bench.runner.cancel(job.id)
        bench.wait_for(job, JobState.CANCELLED)


# -- progress ------------------------------------------------------------------------------


def test_a_new_step_is_kept_and_bytes_are_shown(bench: Bench) -> None:
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    observer = bench.works.running["a"].observer
    observer.step("copy")
    eventually(lambda: (bench.journal.job(job.id) or job).step == "copy")
    observer.progress(5, 10)
    eventually(lambda: bench.runner.job(job.id).done_bytes == 5)
    assert bench.runner.job(job.id).total_bytes == 10
    assert bench.listener.jobs[-1].done_bytes == 5
    kept = bench.journal.job(job.id)
    assert kept is not None
    assert kept.done_bytes == 0  # a journal is not written to all the time
    bench.works.end("a")
    ended = bench.wait_for(job, JobState.DONE)
    assert (ended.step, ended.done_bytes) == ("copy", 5)


def test_a_job_waits_for_nobody_who_watches() -> None:
    """The guest may be frozen in a step: neither the journal nor a listener may hold it up."""
    bench = Bench()
    hold = threading.Event()

    class Slow(Listener):
        def job(self, job: Job) -> None:
            if job.step:
                assert hold.wait(20)

    bench.runner = Runner(
        bench.journal, bench.clock, {JobKind.BACKUP: bench.works}, [], Limits(), Slow()
    )
    bench.runner.start()
    try:
        bench.runner.submit(request("a"))
        bench.works.wait_for("a")
        began = time.monotonic()
        for number in range(100):
            bench.works.running["a"].observer.step(f"step {number}")
            bench.works.running["a"].observer.progress(1, 2)
            bench.works.running["a"].observer.note("a note")
        assert time.monotonic() - began < 5
    finally:
        hold.set()
        bench.runner.stop()


def test_a_listener_that_fails_harms_nothing() -> None:
    bench = Bench()

    class Broken(Listener):
        def job(self, job: Job) -> None:
            raise ZeroDivisionError

        def event(self, event: Event) -> None:
            raise ZeroDivisionError

    bench.runner = Runner(
        bench.journal, bench.clock, {JobKind.BACKUP: bench.works}, [], Limits(), Broken()
    )
    bench.runner.start()
    try:
        job = bench.runner.submit(request("a"))
        bench.works.wait_for("a")
        bench.works.end("a")
        bench.wait_for(job, JobState.DONE)
    finally:
        bench.runner.stop()


# -- the watchdog --------------------------------------------------------------------------


def test_a_job_that_does_not_get_on_is_told_of_once_and_then_ended(bench: Bench) -> None:
    bench.runner.patience = Patience(warn=AT_ONCE, end=NEVER)
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    eventually(lambda: bench.kinds() == [EventKind.JOB_STALLED])
    bench.runner.wake()
    time.sleep(0.05)
    bench.runner.wake()
    time.sleep(0.05)
    assert bench.kinds() == [EventKind.JOB_STALLED]
    bench.works.running["a"].observer.step("copy")  # it gets on, and stands still again
    eventually(lambda: bench.kinds() == [EventKind.JOB_STALLED] * 2)
    bench.runner.patience = Patience(end=AT_ONCE)
    bench.runner.wake()
    ended = bench.wait_for(job, JobState.FAILED)
    assert ended.code == "job-stalled"
    assert [j.request.origin for j in bench.runner.queued()] == [Origin.RETRY]


def test_an_error_that_a_job_recovers_from_is_told_again(bench: Bench) -> None:
    """A backup clears the word to stop when it begins anew; the watchdog's must stay."""
    bench.runner.patience = Patience(end=AT_ONCE)
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    going = bench.works.running["a"]
    going.deaf = True
    eventually(lambda: _stops(going.cancel.check))
    going.cancel.recover()
    bench.runner.wake()
    eventually(lambda: _stops(going.cancel.check))
    going.deaf = False
    assert bench.wait_for(job, JobState.FAILED).code == "job-stalled"


def _stops(check: Callable[[], None]) -> bool:
    try:
        check()
    except BabysitterError:
        return True
    return False


def test_a_job_that_does_not_end_is_given_up_and_its_vm_is_held(bench: Bench) -> None:
    bench.runner.limits = Limits(1, 1)
    bench.runner.patience = Patience(grace=AT_ONCE)
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    going = bench.works.running["a"]
    going.deaf = True
    bench.runner.cancel(job.id)
    assert bench.wait_for(job, JobState.FAILED).code == "job-stuck"
    assert bench.journal.events()[0].severity is Severity.ALERT
    held = bench.runner.submit(request("a"))
    bench.runner.submit(request("b"))
    bench.works.wait_for("a", "b")  # another VM goes on in its place
    waiting = bench.wait_for(held, JobState.WAITING)
    assert waiting.waits_for == f"job {job.id} of this VM does not end"
    bench.works.end("b")
    bench.works.end("a")
    bench.wait_for(held, JobState.RUNNING)
    assert bench.state(job) is JobState.FAILED
    released = [e for e in bench.journal.events() if e.kind == EventKind.JOB_RELEASED]
    assert [e.text for e in released] == ["It has ended after all: Done."]
    assert released[0].subject == "Backup of a has ended after all"


# -- stopping and starting -----------------------------------------------------------------


def test_what_ran_when_it_was_stopped_is_done_after_the_next_start_and_nothing_is_lost() -> None:
    bench = Bench()
    bench.runner.start()
    running = bench.runner.submit(request("a"))
    restoring = bench.runner.submit(request("b", JobKind.RESTORE))
    by_user = bench.runner.submit(request("c"))
    bench.works.wait_for("a", "b", "c")
    queued = bench.runner.submit(request("d", options={"full": True}))
    bench.works.running["c"].deaf = True
    bench.runner.cancel(by_user.id)
    bench.works.running["c"].deaf = False
    began = time.monotonic()
    assert bench.runner.stop() == []
    assert time.monotonic() - began < 10
    states = {n: bench.state(j) for n, j in (("a", running), ("b", restoring), ("c", by_user))}
    assert states == {
        "a": JobState.INTERRUPTED,
        "b": JobState.INTERRUPTED,
        "c": JobState.CANCELLED,
    }
    late = bench.runner.submit(scheduled("e"))
    time.sleep(0.05)
    assert not bench.works.running
    bench.runner = bench.make()
    assert bench.runner.start() == []
    bench.works.wait_for("a", "d")
    assert bench.state(queued) is JobState.RUNNING
    assert bench.state(late) is JobState.QUEUED
    bench.runner.stop()


def test_a_job_that_begins_while_it_is_stopped_is_waited_for() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(Listener):
        def job(self, job: Job) -> None:
            if job.state is JobState.RUNNING:
                begun.set()
                go.wait(20)

    class SlowLogs:
        @contextmanager
        def of(self, job_id: int) -> Iterator[None]:
            time.sleep(0.2)
            yield

    works = {JobKind.BACKUP: Works()}
    runner = Runner(MemoryJournal(), FakeClock(NOW), works, [], Limits(1, 1), Slow())
    runner.logs = SlowLogs()
    runner.start()
    runner.submit(request("a"))
    assert begun.wait(20)
    left: list[list[Job]] = []
    stopping = threading.Thread(target=lambda: left.append(runner.stop(20)))
    stopping.start()
    time.sleep(0.05)  # it has told all that run
    go.set()
    stopping.join()
    assert left == [[]]


def test_a_job_that_does_not_end_does_not_keep_the_service_from_stopping() -> None:
    bench = Bench()
    bench.runner.start()
    job = bench.runner.submit(request("a"))
    bench.works.wait_for("a")
    going = bench.works.running["a"]
    going.deaf = True
    began = time.monotonic()
    assert [j.id for j in bench.runner.stop(0.2)] == [job.id]
    assert time.monotonic() - began < 5
    kept = bench.journal.job(job.id)
    assert kept is not None
    assert kept.state is JobState.RUNNING  # as after kill -9: the next start sees to it
    going.end(DONE)


def test_what_ran_when_the_daemon_was_killed_is_interrupted_told_of_and_done_again() -> None:
    bench = Bench()
    job = bench.journal.submit(request("a"), NOW)
    restore = bench.journal.submit(request("b", JobKind.RESTORE), NOW)
    for one in (job, restore):
        bench.journal.update(
            Job(one.id, one.request, JobState.RUNNING, NOW, started=NOW, step="copy")
        )
    lost = bench.runner.start()
    assert [j.id for j in lost] == [job.id, restore.id]
    bench.works.wait_for("a")
    assert bench.state(job) is JobState.INTERRUPTED
    assert bench.kinds() == [EventKind.JOB_INTERRUPTED] * 2
    bench.runner.stop()


def test_a_runner_that_was_never_started_can_be_stopped() -> None:
    assert Bench().runner.stop(1) == []


def test_jobs_that_come_back_with_a_journal_are_run(bench: Bench) -> None:
    bench.journal.submit(request("a"), NOW)
    bench.runner.reload()
    bench.works.wait_for("a")


@pytest.mark.parametrize("busy", [False, True])
def test_gates_that_are_shut_are_not_asked_all_the_time(busy: bool) -> None:
    """Not by the second, whether another job runs and makes steps or not."""
    bench = Bench()
    asked = []

    def gate(wanted: JobRequest) -> str:
        if wanted.vm_name == "b":
            return ""
        asked.append(1)
        return "something"

    bench.runner = Runner(
        bench.journal, bench.clock, {JobKind.BACKUP: bench.works}, [gate], Limits(), bench.listener
    )
    bench.runner.start()
    bench.runner.submit(request("a"))
    if busy:
        bench.runner.submit(request("b"))
        bench.works.wait_for("b")
    eventually(lambda: asked)
    time.sleep(0.1)
    seen = len(asked)
    assert seen <= 3
    for step in range(15):
        time.sleep(0.1)
        if busy:
            bench.works.running["b"].observer.step(f"{step}")
    assert len(asked) == seen
    bench.runner.stop()


def test_an_error_nobody_thought_of_does_not_end_the_runner(bench: Bench) -> None:
    update = bench.journal.update
    broken = threading.Event()

    def once(job: Job) -> None:
        if not broken.is_set():
            broken.set()
            raise ZeroDivisionError
        update(job)

    bench.journal.update = once  # type: ignore[method-assign]
    bench.runner.submit(request("a"))
    assert broken.wait(20)
    bench.works.wait_for("a")


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, logger = Keeper(), logging.getLogger("vm_babysitter")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_the_log_tells_of_each_job_from_its_beginning_to_its_end(bench: Bench) -> None:
    with logged() as records:
        job = bench.runner.submit(request("a"))
        bench.works.wait_for("a")
        bench.works.running["a"].observer.step("copy")
        bench.works.running["a"].observer.note("A disk is new.")
        outcome = Outcome(Result.FAILED, "It failed.", warnings=("Odd.",), hint="Do y.")
        bench.works.end("a", outcome)
        bench.wait_for(job, JobState.FAILED)
    told = [r.getMessage() for r in records if getattr(r, "job", 0) == job.id]
    assert told == [
        "backup of a begins.",
        "step: copy",
        "A disk is new.",
        "Odd.",
        "failed: It failed. Do y.",
    ]
