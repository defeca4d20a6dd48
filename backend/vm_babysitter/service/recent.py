"""What became of the last backup of each VM, known without asking the journal."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.event import Event
from vm_babysitter.domain.job import ENDED, Job, JobKind, JobState, Result
from vm_babysitter.ports import Journal, Publisher

_WELL = frozenset({Result.OK, Result.WARNINGS, Result.NOTHING})
_MANY = 20
"""Jobs of a VM that are looked through for one that went well."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The backups of a VM that ended last."""

    last: Job
    """Those left aside that a user cancelled before they began."""
    succeeded: datetime | None
    """When one last went well."""


class RecentJobs:
    """Implements ``ports.Publisher``: hears of each job that ends, and tells another one."""

    def __init__(self, publisher: Publisher, ended: Callable[[Job], None]) -> None:
        """``ended`` is called after each job that has ended."""
        self._publisher = publisher
        self._told = ended
        self._recent: dict[str, Recent] = {}  # by UUID
        self._ended: dict[tuple[JobKind, Result], int] = {}
        self._lock = threading.Lock()

    def load(self, journal: Journal, uuids: list[str]) -> None:
        """Learn what a journal knows of these VMs; what is known already stays."""
        for uuid in uuids:
            for job in journal.jobs(vm=uuid, states=ENDED, limit=_MANY):
                self._learn(job)

    def of(self, uuid: str) -> Recent | None:
        """Return what is known of the backups of a VM; None if there was none."""
        with self._lock:
            return self._recent.get(uuid)

    def ended(self) -> dict[tuple[JobKind, Result], int]:
        """Return how many jobs have ended since the start, by kind and result."""
        with self._lock:
            return dict(self._ended)

    def job(self, job: Job) -> None:
        """See the port."""
        if job.state in ENDED:
            self._learn(job)
            if job.result is not None:
                with self._lock:
                    key = (job.request.kind, job.result)
                    self._ended[key] = self._ended.get(key, 0) + 1
        self._publisher.job(job)
        if job.state in ENDED:
            self._told(job)

    def event(self, event: Event) -> None:
        """See the port."""
        self._publisher.event(event)

    def _learn(self, job: Job) -> None:
        never_began = job.state is JobState.CANCELLED and job.started is None
        if job.request.kind is not JobKind.BACKUP or never_began:
            return
        with self._lock:
            old = self._recent.get(job.request.vm_uuid)
            well = [job.finished] if job.result in _WELL and job.finished else []
            if old is not None and old.succeeded is not None:
                well.append(old.succeeded)
            # Those of a journal come in any order, and while others end.
            last = job if old is None or _end(old.last) <= _end(job) else old.last
            self._recent[job.request.vm_uuid] = Recent(last, max(well, default=None))


def _end(job: Job) -> datetime:
    return job.finished or job.created
