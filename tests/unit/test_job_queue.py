"""The queue: whatever is asked in whatever order, no VM has two jobs and nothing is lost."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import DONE, NOW, Listener, request, scheduled
from vm_babysitter.domain.errors import JobNotFound
from vm_babysitter.domain.event import EventKind
from vm_babysitter.domain.job import (
    ENDED,
    READING,
    Job,
    JobKind,
    JobRequest,
    JobState,
    Limits,
    Origin,
    Outcome,
    Result,
)
from vm_babysitter.engine.job_queue import JobQueue
from vm_babysitter.engine.memory_journal import MemoryJournal

BUSY = Outcome(Result.FAILED, "It is busy.", code="busy", transient=True)
FAILED = Outcome(Result.FAILED, "It failed.", code="damaged")
CANCELLED = Outcome(Result.CANCELLED, "Stopped.")


_MANY = Limits(4, 4)


def is_open(_request: JobRequest) -> str:
    return ""


class Bench:
    """A queue on a journal in memory."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.clock = FakeClock(NOW)
        self.listener = Listener()
        self.restart()

    def restart(self) -> None:
        """The process is killed and started again."""
        self.queue = JobQueue(self.journal, self.clock, self.listener)
        self.journal.interrupted(self.clock.now())
        self.queue.load()

    def begin(self, limits: Limits = _MANY) -> Job:
        begun = self.queue.begin(limits, is_open)
        assert begun is not None
        return begun


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_job_goes_through_the_journal_and_whoever_listens_hears_of_it(bench: Bench) -> None:
    submitted = bench.queue.submit(request())
    assert bench.journal.job(submitted.id) == submitted
    begun = bench.begin()
    assert (begun.id, begun.state, begun.started) == (submitted.id, JobState.RUNNING, NOW)
    assert bench.journal.job(begun.id) == begun
    assert bench.queue.end(begun, DONE)
    assert bench.queue.job(begun.id).state is JobState.DONE
    assert [j.state for j in bench.listener.jobs] == ["queued", "running", "done"]
    assert [e.kind for e in bench.listener.events] == [EventKind.JOB_DONE]
    assert bench.journal.events() == bench.listener.events
    assert bench.queue.running() == bench.queue.queued() == []


def test_the_same_asked_for_twice_is_one_job_until_it_begins(bench: Bench) -> None:
    first = bench.queue.submit(scheduled())
    assert bench.queue.submit(request()).id == first.id
    assert bench.queue.queued()[0].request.origin is Origin.USER
    assert bench.queue.submit(request(kind=JobKind.VERIFY)).id != first.id
    assert bench.begin().id == first.id
    assert bench.queue.submit(request()).id > first.id


def test_a_job_waits_with_the_word_of_the_gate_and_others_pass_it(bench: Bench) -> None:
    first = bench.queue.submit(request("a"))
    second = bench.queue.submit(request("b"))

    def ask(wanted: JobRequest) -> str:
        return "the parity check to end" if wanted.vm_name == "a" else ""

    begun = bench.queue.begin(Limits(), ask)
    assert begun is not None
    assert begun.id == second.id
    waiting = bench.queue.job(first.id)
    assert (waiting.state, waiting.waits_for) == (JobState.WAITING, "the parity check to end")
    assert bench.journal.job(first.id) == waiting
    told = len(bench.listener.jobs)
    assert bench.queue.begin(Limits(2), ask) is None
    assert len(bench.listener.jobs) == told  # nothing is new
    assert bench.begin(Limits(2)).id == first.id


def test_a_job_cancelled_while_its_gate_is_asked_does_not_begin(bench: Bench) -> None:
    submitted = bench.queue.submit(request())

    def ask(_wanted: JobRequest) -> str:
        bench.queue.cancel(submitted.id)
        return ""

    assert bench.queue.begin(Limits(), ask) is None
    assert bench.queue.job(submitted.id).state is JobState.CANCELLED


def test_a_job_that_becomes_more_urgent_while_its_gate_is_asked_is_asked_for_anew(
    bench: Bench,
) -> None:
    bench.queue.submit(scheduled())
    asked = []

    def ask(wanted: JobRequest) -> str:
        asked.append(wanted.origin)
        bench.queue.submit(request())
        return "something" if wanted.origin is Origin.SCHEDULE else ""

    begun = bench.queue.begin(Limits(), ask)
    assert begun is not None
    assert begun.request.origin is Origin.USER
    assert asked == [Origin.SCHEDULE, Origin.USER]


def test_gates_are_asked_while_nothing_is_locked(bench: Bench) -> None:
    """A gate that hangs must not keep anybody from asking for jobs, from another thread."""
    bench.queue.submit(request("a"))

    def ask(_wanted: JobRequest) -> str:
        other = threading.Thread(target=lambda: bench.queue.submit(request("b")))
        other.start()
        other.join(20)
        assert not other.is_alive()
        return "something"

    bench.queue.begin(Limits(), ask)
    assert len(bench.queue.queued()) == 2


def test_a_failure_that_may_pass_is_queued_again_and_begins_when_its_time_has_come(
    bench: Bench,
) -> None:
    bench.queue.submit(request())
    bench.queue.end(bench.begin(), BUSY)
    (again,) = bench.queue.queued()
    assert again.request.not_before == NOW + timedelta(minutes=5)
    assert bench.queue.begin(Limits(), is_open) is None
    bench.clock.advance(300)
    assert bench.begin().id == again.id


def test_a_failure_is_not_queued_again_beside_the_same_job(bench: Bench) -> None:
    bench.queue.submit(request())
    begun = bench.begin()
    next_one = bench.queue.submit(request())
    bench.queue.end(begun, BUSY)
    assert [j.id for j in bench.queue.queued()] == [next_one.id]


def test_a_job_that_was_given_up_holds_its_vm_till_its_thread_has_ended(bench: Bench) -> None:
    bench.queue.submit(request("a"))
    stuck = bench.begin()
    bench.queue.give_up(stuck, FAILED)
    assert bench.queue.job(stuck.id).state is JobState.FAILED
    held = bench.queue.submit(request("a"))
    other = bench.queue.submit(request("b"))
    assert bench.begin(Limits(1)).id == other.id  # its place is free, its VM is not
    assert bench.queue.begin(Limits(4), is_open) is None
    assert bench.queue.job(held.id).waits_for == f"job {stuck.id} of this VM does not end"
    assert not bench.queue.end(stuck, DONE)
    bench.queue.release(stuck.id)
    assert bench.begin(Limits(4)).id == held.id


def test_giving_up_what_has_just_ended_holds_nothing(bench: Bench) -> None:
    bench.queue.submit(request())
    begun = bench.begin()
    bench.queue.end(begun, DONE)
    bench.queue.give_up(begun, FAILED)
    assert bench.queue.held() == []
    assert bench.queue.job(begun.id).state is JobState.DONE


def test_progress_of_a_job_that_has_ended_changes_nothing(bench: Bench) -> None:
    bench.queue.submit(request())
    begun = bench.begin()
    bench.queue.end(begun, DONE)
    bench.queue.keep(begun)
    bench.queue.show(begun)
    assert bench.queue.running() == []
    assert bench.queue.job(begun.id).state is JobState.DONE


def test_a_job_that_nobody_knows_is_not_found(bench: Bench) -> None:
    with pytest.raises(JobNotFound):
        bench.queue.cancel(99)


def test_a_job_whose_end_cannot_be_kept_does_not_hold_its_vm(bench: Bench) -> None:
    bench.queue.submit(request())
    begun = bench.begin()
    bench.journal.finish = _breaks  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        bench.queue.end(begun, DONE)
    assert bench.queue.running() == []


def _breaks(*_: object) -> None:
    raise ZeroDivisionError


# -- whatever happens, in whatever order ---------------------------------------------------

requests = st.builds(
    lambda vm, kind, origin, wait: request(
        vm, kind, origin=origin, not_before=None if wait is None else NOW + timedelta(minutes=wait)
    ),
    st.sampled_from("abcd"),
    st.sampled_from([JobKind.BACKUP, JobKind.VERIFY, JobKind.RESTORE]),
    st.sampled_from([Origin.USER, Origin.SCHEDULE]),
    st.sampled_from([None, None, 0, 10]),
)


class Story(RuleBasedStateMachine):
    """Users, schedules, gates, ends, kills and stops."""

    jobs: Bundle[int] = Bundle("jobs")
    running: Bundle[Job] = Bundle("running")

    @initialize()
    def begin_story(self) -> None:
        self.bench = Bench()
        self.limits = Limits(2, 1)
        self.shut: set[str] = set()
        self.threads: dict[int, str] = {}
        """Jobs that have a thread, and the VMs that these work on."""
        self.wanted: dict[int, JobRequest] = {}

    @property
    def queue(self) -> JobQueue:
        return self.bench.queue

    @rule(target=jobs, wanted=st.lists(requests, min_size=1, max_size=8))
    def submit(self, wanted: list[JobRequest]) -> Any:
        made = [self.queue.submit(one) for one in wanted]
        for one, asked in zip(made, wanted, strict=True):
            assert one.request.same_work(asked)
            self.wanted[one.id] = asked
        return multiple(*(one.id for one in made))

    @rule(vm=st.sampled_from("abcd"))
    def turn_a_gate(self, vm: str) -> None:
        self.shut ^= {vm}

    @rule(parallel=st.integers(1, 3), reading=st.integers(1, 2))
    def limit(self, parallel: int, reading: int) -> None:
        self.limits = Limits(parallel, reading)

    @rule(minutes=st.integers(0, 20))
    def pass_time(self, minutes: int) -> None:
        self.bench.clock.advance(60 * minutes)

    @rule(target=running, most=st.integers(1, 4))
    def begin(self, most: int) -> Any:
        begun = []
        for _ in range(most):
            before = self.queue.queued()
            one = self.queue.begin(self.limits, self._ask)
            if one is not None:
                self._look_at(one, before)
                begun.append(one)
        return multiple(*begun)

    def _ask(self, wanted: JobRequest) -> str:
        return "a gate" if wanted.vm_name in self.shut else ""

    def _look_at(self, begun: Job, before: list[Job]) -> None:
        """A job that begins may, and none that is more urgent could have."""
        vm = begun.request.vm_name
        assert vm not in self.threads.values(), "two jobs of one VM"
        assert vm not in self.shut
        reading = begun.request.kind in READING
        running = [j for j in self.queue.running() if (j.request.kind in READING) == reading]
        assert len(running) <= (self.limits.reading if reading else self.limits.parallel)
        assert self._due(begun.request)
        for other in before:
            same = (other.request.kind in READING) == reading
            free = other.request.vm_name not in {*self.threads.values(), *self.shut}
            if same and free and self._due(other.request):
                assert self._turn(begun) <= self._turn(other)
        self.threads[begun.id] = vm

    def _turn(self, one: Job) -> tuple[bool, int]:
        return one.request.origin is not Origin.USER, one.id

    def _due(self, wanted: JobRequest) -> bool:
        return wanted.not_before is None or wanted.not_before <= self.bench.clock.now()

    @rule(ended=consumes(running), outcome=st.sampled_from([DONE, BUSY, FAILED, CANCELLED]))
    def end(self, ended: Job, outcome: Outcome) -> None:
        if self.threads.pop(ended.id, None) is None:
            return
        if not self.queue.end(ended, outcome):
            self.queue.release(ended.id)

    @rule(given_up=running)
    def give_up(self, given_up: Job) -> None:
        if given_up.id in self.threads:
            self.queue.give_up(given_up, FAILED)

    @rule(number=jobs)
    def cancel(self, number: int) -> None:
        before = self.queue.job(number).state
        after = self.queue.cancel(number)
        if before in {JobState.QUEUED, JobState.WAITING}:
            assert after.state is JobState.CANCELLED
        else:
            assert after.state is before

    @rule()
    def be_killed(self) -> None:
        ran = [j.id for j in self.queue.running()]
        queued = {j.id for j in self.queue.queued()}
        self.threads.clear()
        self.bench.restart()
        for number in ran:
            lost = self.queue.job(number)
            assert lost.state is JobState.INTERRUPTED
        assert queued <= {j.id for j in self.queue.queued()}

    @rule()
    def be_stopped(self) -> None:
        ran = self.queue.running()
        queued = {j.id for j in self.queue.queued()}
        for one in ran:
            self.queue.interrupt(one)
        self.threads.clear()
        self.bench.restart()
        assert queued <= {j.id for j in self.queue.queued()}
        waiting = self.queue.queued()
        for one in ran:
            if one.request.kind is not JobKind.RESTORE and one.request.try_number <= 3:
                assert any(j.request.same_work(one.request) for j in waiting), "lost on stop"

    @invariant()
    def a_job_is_in_one_place_and_the_journal_agrees(self) -> None:
        if not hasattr(self, "bench"):
            return
        queued, ran = self.queue.queued(), self.queue.running()
        assert not {j.id for j in queued} & {j.id for j in ran}
        vms = [j.request.vm_uuid for j in ran]
        assert len(set(vms)) == len(vms)
        for one in (*queued, *ran):
            assert self.bench.journal.job(one.id) == one
        live = {j.id for j in (*queued, *ran)}
        for kept in self.bench.journal.jobs(limit=10_000):
            assert (kept.id in live) is (kept.state not in ENDED)

    @invariant()
    def nothing_that_was_asked_for_is_lost(self) -> None:
        if not hasattr(self, "bench"):
            return
        for number in self.wanted:
            assert self.bench.journal.job(number) is not None


TestStory = Story.TestCase
TestStory.settings = settings(stateful_step_count=40)
