"""What became of the last backups."""

from datetime import timedelta

from tests.support.jobs import NOW, Listener, job, request
from vm_babysitter.domain.job import Job, JobKind, JobState, Result
from vm_babysitter.engine.memory_journal import MemoryJournal
from vm_babysitter.service.recent import RecentJobs

UUID = request().vm_uuid


def ended(number: int, result: Result = Result.OK, hours: float = 0, **changes: object) -> Job:
    state = {Result.FAILED: JobState.FAILED, Result.CANCELLED: JobState.CANCELLED}
    at = NOW + timedelta(hours=hours or number)
    changes = {"started": at, "finished": at, **changes}
    return job(number, state.get(result, JobState.DONE), result=result, **changes)


def recent(*jobs: Job) -> RecentJobs:
    made = RecentJobs(Listener(), lambda _: None)
    for each in jobs:
        made.job(each)
    return made


def test_the_last_and_the_last_that_went_well() -> None:
    good, bad = ended(1), ended(2, Result.FAILED)
    found = recent(good, bad).of(UUID)
    assert found is not None
    assert (found.last, found.succeeded) == (bad, good.finished)


def test_what_is_no_backup_or_never_began_or_runs_does_not_count() -> None:
    never = ended(2, Result.CANCELLED, started=None)
    verify = ended(3, kind=JobKind.VERIFY)
    running = job(4, JobState.RUNNING, started=NOW)
    assert recent(never, verify, running).of(UUID) is None


def test_what_the_journal_knows_comes_in_any_order() -> None:
    journal = MemoryJournal()
    first, second, third = ended(1), ended(2), ended(3, Result.FAILED)
    for each in (first, second):
        journal.update(each)
    # One that was made up of a restore point has a number of its own, and ended before.
    journal.update(ended(9, hours=0.5))
    found = recent(third)
    found.load(journal, [UUID, "another"])
    known = found.of(UUID)
    assert known is not None
    assert (known.last, known.succeeded) == (third, second.finished)
    assert found.of("another") is None
    assert found.ended() == {(JobKind.BACKUP, Result.FAILED): 1}  # since the start


def test_others_are_told() -> None:
    listener, told = Listener(), list[Job]()
    made = RecentJobs(listener, told.append)
    running, done = job(1, JobState.RUNNING), ended(1)
    for each in (running, done):
        made.job(each)
    assert (listener.jobs, told) == ([running, done], [done])
