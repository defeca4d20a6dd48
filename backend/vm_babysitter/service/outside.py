"""What the daemon needs of the world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vm_babysitter.engine.steady_journal import SteadyJournal
from vm_babysitter.engine.vm_watch import Rhythm
from vm_babysitter.ports import (
    Clock,
    HostZone,
    JobLogs,
    OpenFeed,
    Publisher,
    Store,
    Timer,
)
from vm_babysitter.service.diagnoses import Open
from vm_babysitter.service.notifier import Notifier


class Also(Protocol):
    """A part that the daemon has beside its own."""

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self, seconds: float) -> object:
        """End within this time, or leave behind what hangs."""


@dataclass(frozen=True, slots=True)
class Outside:
    """All of it is put together by the composition root."""

    clock: Clock
    journal: SteadyJournal
    timer: Timer
    publisher: Publisher
    notifier: Notifier
    job_logs: JobLogs
    open_feed: OpenFeed
    open_diagnoser: Open
    open_store: Callable[[], Store]
    host_zone: Callable[[], HostZone]
    prune_logs: Callable[[datetime], object]
    """Removes logs of jobs that were not written to since a moment."""
    settings_changed: Callable[[], None]
    """Is told when other settings hold; for logs, and whatever else the root has set up."""
    thaw: Callable[[], None]
    """Thaws guests that a dead process left frozen. Raises BabysitterError."""
    rhythm: Rhythm = field(default_factory=Rhythm)
    """How often libvirt is looked at."""
