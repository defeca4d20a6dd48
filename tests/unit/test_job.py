"""Jobs: what may become of them, which begins next, what is tried again."""

from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import NOW, job, request, scheduled
from vm_babysitter.domain.event import EventKind, Severity, end_events
from vm_babysitter.domain.job import (
    ENDED,
    LIVE,
    READING,
    Job,
    JobKind,
    JobState,
    Limits,
    Origin,
    Outcome,
    Result,
    cancelled,
    finish,
    follow_up,
    interrupt,
    merged,
    pick,
    retry_delay,
    transition,
)
from vm_babysitter.domain.job_past import KnownPoint, job_of_point

MINUTE = timedelta(minutes=1)
LEGAL = {
    JobState.QUEUED: {"queued", "waiting", "running", "cancelled"},
    JobState.WAITING: {"queued", "waiting", "running", "cancelled"},
    JobState.RUNNING: {"running", "done", "failed", "cancelled", "interrupted"},
}


@pytest.mark.parametrize(("old", "new"), [*product(JobState, JobState)])
def test_a_job_goes_only_from_one_state_to_those_that_may_follow(
    old: JobState, new: JobState
) -> None:
    if new in LEGAL.get(old, set()):
        assert transition(job(state=old), new).state is new
    else:
        with pytest.raises(ValueError, match=f"job 1 cannot become {new}"):
            transition(job(state=old), new)


def test_live_and_ended_are_all_states() -> None:
    assert set(JobState) == LIVE | ENDED
    assert not LIVE & ENDED


def test_what_a_job_waits_for_is_gone_once_it_does_not_wait() -> None:
    waiting = transition(job(), JobState.WAITING, waits_for="the array is not started")
    assert waiting.waits_for == "the array is not started"
    assert transition(waiting, JobState.RUNNING).waits_for == ""


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (Result.OK, JobState.DONE),
        (Result.WARNINGS, JobState.DONE),
        (Result.NOTHING, JobState.DONE),
        (Result.FAILED, JobState.FAILED),
        (Result.CANCELLED, JobState.CANCELLED),
    ],
)
def test_the_state_of_a_job_that_ends_follows_from_its_result(
    result: Result, state: JobState
) -> None:
    outcome = Outcome(result, "So it went.", "20261124T021500Z/000001", code="x", hint="Do y.")
    ended = finish(job(state=JobState.RUNNING), outcome, NOW)
    assert (ended.state, ended.result, ended.finished) == (state, result, NOW)
    assert (ended.summary, ended.code, ended.hint) == ("So it went.", "x", "Do y.")
    assert ended.point == "20261124T021500Z/000001"


# -- which begins next ---------------------------------------------------------------------


def next_of(*jobs: Job, running: tuple[Job, ...] = (), limits: Limits | None = None) -> int | None:
    picked = pick(jobs, running, NOW, limits or Limits())
    return None if picked is None else picked.id


def run(number: int, vm: str, kind: JobKind = JobKind.BACKUP) -> Job:
    return job(number, JobState.RUNNING, vm=vm, kind=kind)


def test_a_user_comes_before_a_schedule_and_the_older_first() -> None:
    jobs = [job(n, request=scheduled(f"s{n}")) for n in (1, 2)]
    retry = job(3, request=request("r", origin=Origin.RETRY))
    users = [job(n, vm=f"u{n}") for n in (5, 4)]
    assert next_of(*jobs, retry, *users) == 4
    assert next_of(*reversed(jobs), retry) == 1
    assert next_of(retry, *jobs[1:]) == 2
    assert next_of() is None


@pytest.mark.parametrize(
    ("kind", "running", "limits", "begins"),
    [
        (JobKind.BACKUP, [], Limits(1, 1), True),
        (JobKind.BACKUP, [("b", JobKind.BACKUP)], Limits(1, 1), False),
        (JobKind.BACKUP, [("b", JobKind.BACKUP)], Limits(2, 1), True),
        (JobKind.BACKUP, [("b", JobKind.VERIFY)], Limits(1, 1), True),
        (JobKind.CONVERT, [("b", JobKind.REPAIR)], Limits(1, 1), False),
        (JobKind.VERIFY, [("b", JobKind.BACKUP)], Limits(1, 1), True),
        (JobKind.VERIFY, [("b", JobKind.RESTORE)], Limits(4, 1), False),
        (JobKind.VERIFY, [("b", JobKind.RESTORE)], Limits(1, 2), True),
        (JobKind.VERIFY, [("a", JobKind.BACKUP)], Limits(4, 4), False),
        (JobKind.BACKUP, [("a", JobKind.RESTORE)], Limits(4, 4), False),
    ],
)
def test_one_job_of_a_vm_and_only_so_many_at_once(
    kind: JobKind, running: list[tuple[str, JobKind]], limits: Limits, begins: bool
) -> None:
    others = tuple(run(n, vm, k) for n, (vm, k) in enumerate(running, 10))
    assert next_of(job(1, vm="a", kind=kind), running=others, limits=limits) == (
        1 if begins else None
    )


def test_a_job_whose_vm_is_taken_does_not_hold_up_the_others() -> None:
    assert next_of(job(1, vm="a"), job(2, vm="b"), running=(run(9, "a"),), limits=Limits(2)) == 2


def test_a_job_is_not_begun_before_its_time() -> None:
    assert next_of(job(1, not_before=NOW + MINUTE)) is None
    assert next_of(job(1, not_before=NOW)) == 1


vms = st.sampled_from("abc")
requests = st.builds(
    request,
    vms,
    st.sampled_from(JobKind),
    origin=st.sampled_from(Origin),
    not_before=st.sampled_from([None, NOW - MINUTE, NOW, NOW + MINUTE]),
)


@given(
    st.lists(requests),
    st.lists(st.tuples(vms, st.sampled_from(JobKind)), unique_by=lambda r: r[0]),
    st.builds(Limits, st.integers(1, 4), st.integers(1, 4)),
)
def test_whatever_is_picked_may_begin_and_nothing_more_urgent_might(
    wanted: list[object], running: list[tuple[str, JobKind]], limits: Limits
) -> None:
    jobs = [job(n, request=r) for n, r in enumerate(wanted, 100)]
    others = [run(n, vm, kind) for n, (vm, kind) in enumerate(running)]
    picked = pick(jobs, others, NOW, limits)

    def may(one: Job) -> bool:
        reads = one.request.kind in READING
        of_its_sort = [o for o in others if (o.request.kind in READING) == reads]
        return (
            one.request.vm_name not in {o.request.vm_name for o in others}
            and len(of_its_sort) < (limits.reading if reads else limits.parallel)
            and (one.request.not_before is None or one.request.not_before <= NOW)
        )

    could = [one for one in jobs if may(one)]
    by_users = [one for one in could if one.request.origin is Origin.USER]
    assert picked == next(iter(by_users or could), None)


# -- asked for twice -----------------------------------------------------------------------


def test_the_same_work_is_the_same_vm_kind_and_options() -> None:
    asked = request("a", options={"point": "latest"})
    assert asked.same_work(scheduled("a", options={"point": "latest"}, try_number=3))
    assert not asked.same_work(request("a"))
    assert not asked.same_work(request("b", options={"point": "latest"}))
    assert not asked.same_work(request("a", JobKind.VERIFY, options={"point": "latest"}))


def test_a_job_asked_for_again_is_as_urgent_as_the_more_urgent_of_both() -> None:
    retry = job(
        7, request=scheduled("a", try_number=3, not_before=NOW + MINUTE), state=JobState.WAITING
    )
    by_user = merged(retry, request("a"))
    assert (by_user.id, by_user.state) == (7, JobState.WAITING)
    assert by_user.request.origin is Origin.USER
    assert by_user.request.not_before is None
    assert by_user.request.try_number == 1
    assert by_user.request.schedule == "daily backup"
    later = merged(job(request=request(not_before=NOW)), request(not_before=NOW + MINUTE))
    assert later.request.not_before == NOW
    assert merged(by_user, scheduled("a")).request.origin is Origin.USER


# -- tried again ---------------------------------------------------------------------------


def test_pauses_between_tries_grow_and_end() -> None:
    minutes = [delay and delay / MINUTE for delay in map(retry_delay, range(6))]
    assert minutes == [None, 5, 15, 60, None, None]


@pytest.mark.parametrize(
    ("kind", "state", "transient", "code", "again"),
    [
        (JobKind.BACKUP, JobState.FAILED, True, "vm-stopped", True),
        (JobKind.VERIFY, JobState.FAILED, True, "connection-lost", True),
        (JobKind.REPAIR, JobState.FAILED, True, "busy", True),
        (JobKind.BACKUP, JobState.FAILED, False, "busy", True),
        (JobKind.BACKUP, JobState.FAILED, False, "not-enough-space", False),
        (JobKind.RESTORE, JobState.FAILED, True, "busy", False),
        (JobKind.CONVERT, JobState.FAILED, True, "busy", False),
        (JobKind.BACKUP, JobState.CANCELLED, True, "", False),
        (JobKind.BACKUP, JobState.DONE, True, "", False),
        (JobKind.BACKUP, JobState.INTERRUPTED, False, "interrupted", True),
        (JobKind.RESTORE, JobState.INTERRUPTED, True, "interrupted", False),
        (JobKind.CONVERT, JobState.INTERRUPTED, True, "interrupted", False),
    ],
)
def test_what_is_tried_again_by_itself(
    kind: JobKind, state: JobState, transient: bool, code: str, again: bool
) -> None:
    ended = job(state=state, kind=kind, code=code, options={"full": True})
    found = follow_up(ended, transient=transient, now=NOW)
    assert (found is not None) is again
    if found is not None:
        assert found.same_work(ended.request)
        assert (found.origin, found.try_number) == (Origin.RETRY, 2)
        at_once = state is JobState.INTERRUPTED
        assert found.not_before == (None if at_once else NOW + 5 * MINUTE)


def test_a_job_that_the_daemon_dies_of_is_not_begun_again_and_again() -> None:
    ended = job(state=JobState.INTERRUPTED)
    pauses = []
    while (again := follow_up(ended, transient=True, now=NOW)) is not None:
        pauses.append(again.not_before and (again.not_before - NOW) / MINUTE)
        ended = job(state=JobState.INTERRUPTED, request=again)
    assert pauses == [None, 15, 60]


# -- what is told --------------------------------------------------------------------------


def told(ended: Job, *warnings: str, again: bool = False) -> tuple[str, Severity, str] | None:
    found = follow_up(ended, transient=again, now=NOW) if again else None
    events = end_events(ended, warnings, found, NOW)
    if not events:
        return None
    (event,) = events
    assert (event.job_id, event.vm_uuid, event.vm_name) == (1, "uuid-a", "a")
    assert event.code == ended.code
    return event.kind, event.severity, event.text


def test_the_end_of_a_job_is_told_as_it_matters() -> None:
    running = job(state=JobState.RUNNING, started=NOW)
    failed = finish(running, Outcome(Result.FAILED, "It failed.", code="x", hint="Do y."), NOW)
    ok = finish(running, Outcome(Result.OK, "Done."), NOW)
    warned = finish(running, Outcome(Result.WARNINGS, "Done."), NOW)
    stopped = finish(running, Outcome(Result.CANCELLED, "Stopped."), NOW)
    assert told(ok) == (EventKind.JOB_DONE, Severity.NORMAL, "Done.")
    assert told(warned, "A.", "B.") == (EventKind.JOB_DONE, Severity.WARNING, "A.\nB.\nDone.")
    assert told(failed) == (EventKind.JOB_FAILED, Severity.ALERT, "It failed.\nDo y.")
    assert told(failed, again=True) == (
        EventKind.JOB_FAILED,
        Severity.WARNING,
        "It failed.\nDo y.\nIt is tried again in 5 min.",
    )
    assert told(stopped) == (EventKind.JOB_CANCELLED, Severity.NORMAL, "Stopped.")
    lost = told(interrupt(running, NOW), again=True)
    assert lost is not None
    assert lost[:2] == (EventKind.JOB_INTERRUPTED, Severity.WARNING)
    assert lost[2].endswith("It is done again.")


def test_nothing_is_told_of_what_was_not_to_be_done_or_never_began() -> None:
    running = job(state=JobState.RUNNING, started=NOW)
    assert told(finish(running, Outcome(Result.NOTHING, "Unchanged."), NOW)) is None
    assert told(cancelled(job(), NOW)) is None


def test_a_restore_point_tells_of_the_backup_that_made_it() -> None:
    point = KnownPoint("uuid-a", "a", "20261124T021500Z/000001", NOW - MINUTE, NOW)
    made = job_of_point(4, point)
    assert (made.id, made.state, made.result) == (4, JobState.DONE, Result.OK)
    assert (made.point, made.started, made.finished) == (point.name, NOW - MINUTE, NOW)
    warned = KnownPoint("uuid-a", "a", "x/1", NOW, NOW, ("!",))
    assert job_of_point(5, warned).result is Result.WARNINGS
