"""Being called at a certain time, and remembering what was."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol


class Timer(Protocol):
    """Calls back at moments of the clock.

    Calls come one at a time, in a thread of the timer's own: they should be short. One that
    fails is logged, and keeps no other from being made.
    """

    def at(self, name: str, moment: datetime, call: Callable[[], None]) -> None:
        """Call once at a moment, or at once if it is over; replaces the alarm of this name.

        It is never called before the clock shows the moment, even if the clock is set back, and
        not much later either, even if the clock is set forward.
        """

    def cancel(self, name: str) -> None:
        """Forget an alarm; fine if there is none of this name."""

    def alarms(self) -> Mapping[str, datetime]:
        """Return the alarms that are set, by name."""

    def on_jump(self, call: Callable[[], None]) -> None:
        """Call each time after the clock was set, forward or back, by a second or more."""


class ServedRuns(Protocol):
    """Remembers up to what moment each schedule is served. Part of the journal."""

    def last_runs(self) -> Mapping[str, datetime]:
        """Return the moments by the names of the schedules."""

    def note_run(self, schedule: str, due: datetime) -> None:
        """Put down that all runs of a schedule up to a moment were begun, or need not be."""
