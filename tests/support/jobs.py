"""Jobs, requests and a runner's surroundings for tests."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from vm_babysitter.domain.errors import JournalFailed
from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState, Origin, Outcome, Result
from vm_babysitter.domain.outbox import NOTHING_NOTED, Outbox
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.memory_journal import MemoryJournal
from vm_babysitter.ports import Observer

NOW = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
DONE = Outcome(Result.OK, "Done.")


def request(vm: str = "a", kind: JobKind = JobKind.BACKUP, **changes: object) -> JobRequest:
    """Return a request for a VM whose UUID is made of its name."""
    return JobRequest(kind, f"uuid-{vm}", vm, **changes)  # type: ignore[arg-type]


def scheduled(vm: str = "a", **changes: object) -> JobRequest:
    """Return a request of a schedule."""
    return request(vm, origin=Origin.SCHEDULE, schedule="daily backup", **changes)  # type: ignore[arg-type]


def job(number: int = 1, state: JobState = JobState.QUEUED, **changes: object) -> Job:
    """Return a job; what is not one of its own fields is one of its request."""
    own = {name: changes.pop(name) for name in list(changes) if name in Job.__dataclass_fields__}
    wanted = own.pop("request", None) or request(**changes)  # type: ignore[arg-type]
    return Job(number, wanted, state, NOW, **own)  # type: ignore[arg-type]


def eventually(check: Callable[[], object], what: Callable[[], object] = str) -> None:
    """Wait until something is so; fail after a time that is long even on a busy machine."""
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, what() or "it never came"
        time.sleep(0.002)


class Listener:
    """Implements ``ports.Publisher``: remembers."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.events: list[Event] = []

    def job(self, job: Job) -> None:
        self.jobs.append(job)

    def event(self, event: Event) -> None:
        self.events.append(event)


class Works:
    """Work of jobs that goes on until a test lets it end."""

    def __init__(self) -> None:
        self.running: dict[str, Going] = {}
        self.begun: list[str] = []
        """Names of VMs, in the order in which work began."""
        self._lock = threading.Lock()

    def __call__(self, job: Job, observer: Observer, cancel: Cancel) -> Outcome:
        name = job.request.vm_name
        going = Going(job, observer, cancel)
        with self._lock:
            assert name not in self.running, f"two jobs of {name}"
            self.running[name] = going
            self.begun.append(name)
        try:
            return going.last()
        finally:
            with self._lock:
                del self.running[name]

    def wait_for(self, *names: str) -> None:
        """Wait until exactly these run."""
        eventually(lambda: set(self.running) == set(names), lambda: (names, set(self.running)))

    def end(self, name: str, with_: Outcome | Exception = DONE) -> None:
        """Let the job of a VM end."""
        self.running[name].end(with_)


class Going:
    """Work that goes on."""

    def __init__(self, job: Job, observer: Observer, cancel: Cancel) -> None:
        self.job = job
        self.observer = observer
        self.cancel = cancel
        self.deaf = False
        """Whether it takes no notice of being cancelled."""
        self._ended = threading.Event()
        self._end: Outcome | Exception = DONE

    def end(self, with_: Outcome | Exception) -> None:
        self._end = with_
        self._ended.set()

    def last(self) -> Outcome:
        """Go on until the end."""
        while not self._ended.wait(0.005):
            if not self.deaf:
                self.cancel.check()
        if isinstance(self._end, Exception):
            raise self._end
        return self._end


class FailingJournal(MemoryJournal):
    """Fails while ``broken`` says why; ``blind`` fails at reading as well."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = ""
        self.blind = False

    def _may_fail(self, *, reading: bool = False) -> None:
        if self.broken and (self.blind or not reading):
            raise JournalFailed("/state/journal.sqlite", self.broken)

    def submit(self, request: JobRequest, now: datetime) -> Job:
        self._may_fail()
        return super().submit(request, now)

    def update(self, job: Job) -> None:
        self._may_fail()
        super().update(job)

    def finish(
        self, job: Job, events: Sequence[Event], again: JobRequest | None = None
    ) -> Job | None:
        self._may_fail()
        return super().finish(job, events, again)

    def interrupted(self, now: datetime, *, besides: Collection[int] = ()) -> list[Job]:
        self._may_fail()
        return super().interrupted(now, besides=besides)

    def note_run(self, schedule: str, due: datetime) -> None:
        self._may_fail()
        super().note_run(schedule, due)

    def event(self, event: Event) -> None:
        self._may_fail()
        super().event(event)

    def take_over(
        self,
        jobs: Sequence[Job],
        events: Sequence[Event],
        runs: dict[str, datetime],
        outbox: Outbox = NOTHING_NOTED,
    ) -> None:
        self._may_fail()
        super().take_over(jobs, events, runs, outbox)

    def note_channel(self, channel: str, since: datetime | None) -> None:
        self._may_fail()
        super().note_channel(channel, since)

    def note_telling(self, channel: str, keys: Collection[str]) -> None:
        self._may_fail()
        super().note_telling(channel, keys)

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        self._may_fail()
        super().note_told(channel, keys)

    def channels(self) -> dict[str, datetime]:
        self._may_fail(reading=True)
        return super().channels()

    def untold(self, channel: str, since: datetime, limit: int) -> list[Event]:
        self._may_fail(reading=True)
        return super().untold(channel, since, limit)

    def telling(self, channel: str) -> list[Event]:
        self._may_fail(reading=True)
        return super().telling(channel)

    def prune(self, before: datetime) -> int:
        self._may_fail()
        return super().prune(before)

    def job(self, job_id: int) -> Job | None:
        self._may_fail(reading=True)
        return super().job(job_id)

    def jobs(self, **choice: Any) -> list[Job]:
        self._may_fail(reading=True)
        return super().jobs(**choice)

    def last_runs(self) -> dict[str, datetime]:
        self._may_fail(reading=True)
        return super().last_runs()

    def events(self, **choice: Any) -> list[Event]:
        self._may_fail(reading=True)
        return super().events(**choice)
