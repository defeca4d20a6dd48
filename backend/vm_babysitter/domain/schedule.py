"""When a schedule is due: Unix cron lines, as Vixie's cron understands them. Pure.

Two nights a year the clock is moved. Runs at chosen hours that the spring night skips are due
right after it, and those of an hour that the autumn night repeats are due once. Where the hour
is ``*`` (with a step or without), runs follow the clock as it is. Unlike Vixie's, ``*/10 2`` counts
as a chosen hour, although its minute is not: else it would not run at all that night in spring.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from vm_babysitter.domain import cron_text, cron_words
from vm_babysitter.domain.cron_text import PRESETS, CronFields

__all__ = ["PRESETS", "Cron", "counts_from", "missed", "parse"]

_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_JUST_BEFORE = timedelta(microseconds=1)
_RAREST = 41
"""Years within which each line runs: 29 February on a certain weekday may take 40."""
_LAST_YEAR = 9998
_REPEATED = timedelta(hours=3)
"""A clock set back by no more than this runs through the same times again, as in Vixie's cron."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A line that was understood. Two that mean the same are equal."""

    fields: CronFields
    text: str = field(compare=False)
    """As it was written."""

    def next_after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the first run after a moment (exclusive), in UTC.

        None if there is none before the end of the calendar.
        """
        at = moment.astimezone(UTC)
        offset = _offset(at, zone)
        wall = _wall(at, offset)
        while True:
            run = self._next_wall(wall)
            if run is None:
                return None
            candidate = (run - offset).replace(tzinfo=UTC)
            change = _first_change(at, candidate, offset, zone)
            if change is None:
                if self.fields.hour.starred or not _again(run, offset, zone):
                    return candidate
                at, wall = candidate, run
                continue
            after = _offset(change, zone)
            # The first run on the old clock is not before the change: this one is skipped.
            if not self.fields.hour.starred and run < _wall(change, after):
                return change
            at, offset, wall = change, after, _wall(change, after) - _JUST_BEFORE

    def upcoming(self, moment: datetime, zone: tzinfo, count: int) -> tuple[datetime, ...]:
        """Return the next runs after a moment, ``count`` at most, in UTC."""
        runs: list[datetime] = []
        following = self.next_after(moment, zone)
        while following is not None and len(runs) < count:
            runs.append(following)
            following = self.next_after(following, zone)
        return tuple(runs)

    def words(self) -> str:
        """Say when it runs: ``every day at 02:00``."""
        return cron_words.words(self.fields)

    def warnings(self) -> tuple[str, ...]:
        """Say what may well not be meant, in sentences."""
        return cron_words.warnings(self.fields)

    def _next_wall(self, wall: datetime) -> datetime | None:
        """Return the first minute after ``wall`` that fits, on a clock that nobody moves."""
        start = wall.replace(second=0, microsecond=0) + _MINUTE
        for day in self._days(start.date()):
            earliest = start.time() if day == start.date() else time()
            for hour in self.fields.hour.values:
                if hour < earliest.hour:
                    continue
                for minute in self.fields.minute.values:
                    if hour > earliest.hour or minute >= earliest.minute:
                        return datetime.combine(day, time(hour, minute))
        return None

    def _days(self, first: date) -> Iterator[date]:
        """Yield the days that fit, from ``first`` on."""
        for year in range(first.year, min(first.year + _RAREST, _LAST_YEAR) + 1):
            for month in self.fields.month.values:
                if (year, month) < (first.year, first.month):
                    continue
                day = max(first, date(year, month, 1))
                while day.month == month:
                    if self._fits(day):
                        yield day
                    day += _DAY

    def _fits(self, day: date) -> bool:
        by_day = day.day in self.fields.day.values
        by_weekday = day.isoweekday() % 7 in self.fields.weekday.values
        if self.fields.either_day:
            return by_day or by_weekday
        return by_day and by_weekday


def parse(text: str) -> Cron:
    """Understand a line like ``0 2 * * *``, or ``@hourly`` and the like.

    Five fields: minute, hour, day of the month, month, weekday; names, ranges, steps, lists;
    0 and 7 are Sunday. Where neither the day nor the weekday begins with ``*``, one has to fit.

    Raises:
        InvalidCron: it is none, or would never run.
    """
    return Cron(cron_text.read(text), text.strip())


def missed(cron: Cron, last: datetime | None, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the newest run that was due after ``last``, up to ``now``; None if none was.

    Whoever makes up for it makes up for all before it. Without a ``last`` nothing is known to
    be missed.
    """
    due = None if last is None else cron.next_after(last, zone)
    if due is None or due > now:
        return None
    # No run is between `high` and `now`; runs are a minute apart at least.
    high = now.astimezone(UTC)
    while high - due >= _MINUTE:
        middle = due + (high - due) / 2
        later = cron.next_after(middle, zone)
        if later is not None and later <= now:
            due = later
        else:
            high = middle
    return due


def counts_from(cron: Cron, last: datetime, now: datetime, zone: tzinfo) -> datetime:
    """Return the moment after which runs are still to be begun.

    That is the last run that was begun. If it lies ahead, the clock was set back since. By up to
    three hours, and by less than it is to the next run: times that come again are passed over. By
    more: the clock was wrong then, and what it said no longer counts.
    """
    if last <= now:
        return last
    following = cron.next_after(last, zone)
    apart = _REPEATED if following is None else min(_REPEATED, following - last)
    return last if last - now < apart else now


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _wall(moment: datetime, offset: timedelta) -> datetime:
    """Return what a clock shows in UTC plus ``offset``."""
    return moment.replace(tzinfo=None) + offset


def _again(wall: datetime, offset: timedelta, zone: tzinfo) -> bool:
    """Whether a clock at ``offset`` shows this for the second time."""
    return wall.replace(tzinfo=zone, fold=0).utcoffset() != offset


def _first_change(
    start: datetime, end: datetime, offset: timedelta, zone: tzinfo
) -> datetime | None:
    """Return when the clock is moved first, after ``start``, up to ``end``; to the second.

    A move that is taken back within a day is not seen: no zone has had one.
    """
    low = start
    while low < end:
        high = min(low + _DAY, end)
        if _offset(high, zone) != offset:
            break
        low = high
    else:
        return None
    while high - low > _SECOND:
        middle = low + timedelta(seconds=(high - low) // _SECOND // 2 or 1)
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
