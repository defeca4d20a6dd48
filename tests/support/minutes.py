"""Cron the slow way: every minute of a year is looked at. The judge of ``domain.schedule``.

It shares nothing with what it judges: fields are expanded by another way, and each minute of UTC
is asked what a clock on the wall shows.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@dataclass(slots=True)
class Year:
    """All minutes of a year of UTC, by number, and what the clock on the wall shows in them."""

    zone: ZoneInfo
    year: int
    clocks: list[int] = field(default_factory=list)
    """Minute of the day."""
    dates: list[date] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    """Minutes in which the clock shows what it has shown before."""
    skipped: dict[int, list[datetime]] = field(default_factory=dict)
    """What the clock passes over on its way to a minute."""

    def __post_init__(self) -> None:
        at, number = self.start, 0
        before = (at - MINUTE).astimezone(self.zone).replace(tzinfo=None)
        while at.year == self.year:
            local = at.astimezone(self.zone)
            self.clocks.append(local.hour * 60 + local.minute)
            self.dates.append(local.date())
            if local.fold:
                self.again.append(number)
            naive = local.replace(tzinfo=None)
            if naive - before > MINUTE:
                gap = (naive - before) // MINUTE
                self.skipped[number] = [before + MINUTE * passed for passed in range(1, gap)]
            before = naive
            at += MINUTE
            number += 1

    @property
    def start(self) -> datetime:
        return datetime(self.year, 1, 1, tzinfo=UTC)

    def at(self, number: int) -> datetime:
        return self.start + number * MINUTE


def slow_runs(line: str, year: Year) -> list[datetime]:
    """Return all runs of a line of numbers, ``*``, ranges, steps and lists in a year."""
    parts = line.split()
    minutes, hours, days, months, weekdays = (
        {value for value in range(low, high + 1) if _allows(part, value, low, high)}
        for part, (low, high) in zip(parts, _LIMITS, strict=True)
    )
    clocks = {hour * 60 + minute for hour in hours for minute in minutes}
    both = parts[2][0] == "*" or parts[4][0] == "*"
    dates = set()
    for day in set(year.dates):
        hits = (day.day in days, int(day.strftime("%w")) in weekdays)
        if day.month in months and (all(hits) if both else any(hits)):
            dates.add(day)
    shown = zip(year.clocks, year.dates, strict=True)
    found = {n for n, (clock, day) in enumerate(shown) if clock in clocks and day in dates}
    if parts[1][0] != "*":
        found.difference_update(year.again)
        for number, passed in year.skipped.items():
            if any(w.hour * 60 + w.minute in clocks and w.date() in dates for w in passed):
                found.add(number)
    return [year.at(number) for number in sorted(found)]


def _allows(part: str, value: int, low: int, high: int) -> bool:
    return any(_item_allows(item, value, low, high) for item in part.split(","))


def _item_allows(item: str, value: int, low: int, high: int) -> bool:
    span, _, step = item.partition("/")
    first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
    begin, end = int(first), int(last or first)
    # Sunday has two numbers.
    seen = (value, 7) if high == 6 and value == 0 else (value,)
    return any(begin <= v <= end and (v - begin) % int(step or 1) == 0 for v in seen)
