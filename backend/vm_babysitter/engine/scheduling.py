"""Sees to it that what was planned is begun when it is due, once.

All that makes a run late is one case: the newest run that was due and not begun is begun now. That
serves after the program was not running, after the machine slept, and after the clock was set.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.schedule import Cron, counts_from, missed
from vm_babysitter.ports import Clock, ServedRuns, Timer

_log = logging.getLogger(__name__)
_AGAIN = timedelta(minutes=1)
"""How long after a failure a run is tried to be begun again."""
_OFF = timedelta(microseconds=1)
"""Runs are due at whole minutes. A moment from which is only counted is none of these."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schedule as the settings have it."""

    name: str
    cron: Cron
    kind: str
    """Of the jobs that it begins; a ``JobKind``."""
    vms: tuple[str, ...] = ()
    """Names, UUIDs, groups; empty means all."""


Submit = Callable[[Wanted, datetime], None]
"""Puts the jobs of a run in the queue. Told which run it is, by when that was due.

Whoever queues must not mind being told twice of the same run.
"""


@dataclass(eq=False, slots=True)
class _Entry:
    wanted: Wanted
    served: datetime
    """All runs up to here were begun, or need not be."""
    due: datetime | None = None
    """The run that comes next."""


class Scheduler:
    """Holds the wanted schedules, and has a timer call for each."""

    def __init__(
        self, timer: Timer, clock: Clock, served: ServedRuns, submit: Submit, zone: tzinfo
    ) -> None:
        self._timer = timer
        self._clock = clock
        self._served = served
        self._submit = submit
        self._zone = zone
        self._entries: dict[str, _Entry] = {}
        self._started = False
        # The timer's thread and those that change settings or ask meet here. Never held while
        # jobs are put in the queue, which may take long.
        self._lock = threading.RLock()
        timer.on_jump(self._rearm)

    def sync(self, schedules: Sequence[Wanted]) -> None:
        """Have these schedules, and no others. Nothing happens if they are the same as before.

        The first call makes up for what was missed since the program ran last. A schedule that
        appears later, or gets other times, begins to count from now.

        Raises:
            ValueError: two have the same name.
            Whatever the journal raises; call again then.
        """
        wanted = {schedule.name: schedule for schedule in schedules}
        if len(wanted) != len(schedules):
            raise ValueError("two schedules have the same name")
        with self._lock:
            known = {} if self._started else self._served.last_runs()
            for name in self._entries.keys() - wanted.keys():
                del self._entries[name]
                self._timer.cancel(_alarm(name))
            for schedule in wanted.values():
                self._take(schedule, known.get(schedule.name))
            self._started = True

    def use_zone(self, zone: tzinfo) -> None:
        """Go by another time zone from now on."""
        with self._lock:
            if zone != self._zone:
                self._zone = zone
                self._rearm()

    def next_runs(self) -> dict[str, datetime]:
        """Return when each schedule is due next, by name; what is overdue lies behind us."""
        with self._lock:
            return {name: e.due for name, e in self._entries.items() if e.due is not None}

    def _take(self, wanted: Wanted, served: datetime | None) -> None:
        entry = self._entries.get(wanted.name)
        if entry is not None and entry.wanted.cron == wanted.cron:
            entry.wanted = wanted
            return
        if served is None:
            now = self._clock.now()
            served = now + _OFF if _is_whole(now) else now
            # From now on a run can be missed, even if none has ever been begun.
            self._served.note_run(wanted.name, served)
        self._entries[wanted.name] = _Entry(wanted, served)
        self._arm(self._entries[wanted.name])

    def _rearm(self) -> None:
        """The clock was set, or the zone is another: what is due next may be too."""
        with self._lock:
            for entry in self._entries.values():
                self._arm(entry)

    def _arm(self, entry: _Entry) -> None:
        cron, name = entry.wanted.cron, entry.wanted.name
        since = counts_from(cron, entry.served, self._clock.now(), self._zone)
        entry.due = cron.next_after(since, self._zone)
        if entry.due is None:
            self._timer.cancel(_alarm(name))
        else:
            self._timer.at(_alarm(name), entry.due, partial(self._ring, name))

    def _ring(self, name: str) -> None:
        with self._lock:
            entry = self._entries.get(name)
            now = self._clock.now()
            if entry is None or entry.due is None:
                return
            if now < entry.due:  # the clock was set back just now
                self._arm(entry)
                return
            wanted = entry.wanted
            due = missed(wanted.cron, entry.due, now, self._zone) or entry.due
        begun = False
        try:
            self._submit(wanted, due)
            begun = True
            # Not before: of a run that is noted and not queued nobody would know.
            self._served.note_run(name, due)
        except BabysitterError as error:
            _log.warning("Schedule %r cannot begin: %s", name, error)
        finally:
            with self._lock:
                # Else it was removed or changed meanwhile, and is armed as it is to be.
                if self._entries.get(name) is entry:
                    self._go_on(entry, due if begun else None)

    def _go_on(self, entry: _Entry, served: datetime | None) -> None:
        if served is not None:
            entry.served = served
            self._arm(entry)
            return
        name = entry.wanted.name
        self._timer.at(_alarm(name), self._clock.now() + _AGAIN, partial(self._ring, name))


def begun(served: Mapping[str, datetime]) -> dict[str, datetime]:
    """Return when schedules were due last and begun, by name; without those that never were.

    ``served`` is up to when each is served.
    """
    return {name: moment for name, moment in served.items() if _is_whole(moment)}


def _is_whole(moment: datetime) -> bool:
    return moment.second == moment.microsecond == 0


def _alarm(name: str) -> str:
    return f"schedule {name}"
