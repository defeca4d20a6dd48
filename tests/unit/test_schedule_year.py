"""A year of schedules, against a judge that looks at every minute."""

import os
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.minutes import MINUTE, Year, slow_runs
from vm_babysitter.domain.cron_text import Field
from vm_babysitter.domain.errors import InvalidCron
from vm_babysitter.domain.schedule import Cron, parse

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # moved by half an hour
    "Africa/Casablanca",  # moved back for Ramadan
    "Asia/Kolkata",  # five and a half hours, never moved
)
EXAMPLES = 500 if os.environ.get("VMB_SOAK") == "1" else 8
MANY = 1500
"""Of a line with more runs than that, only a few days are looked at."""
WIDTH = 2 * 1440


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    steps = st.integers(1, high).map(str)
    items = number.map(str) | spans | st.builds("{}/{}".format, spans, steps)
    lists = st.lists(items, min_size=1, max_size=3).map(",".join)
    return st.just("*") | lists | steps.map(lambda step: f"*/{step}")


# Many at the hours in which clocks are moved.
HOURS = st.sampled_from(["1", "2", "3", "1-3", "0,2", "2,3", "*", "*/2", "1-23/2"]) | field(0, 23)
DAILY = st.builds("{} {} * * *".format, field(0, 59), HOURS)
LINES = st.builds(
    "{} {} {} {} {}".format, field(0, 59), HOURS, field(1, 31), field(1, 12), field(0, 7)
)


@pytest.fixture(scope="module", params=ZONES)
def year(request: pytest.FixtureRequest) -> Year:
    return Year(ZoneInfo(request.param), 2026)


def test_a_year_is_as_the_slow_way_finds_it(year: Year) -> None:
    @given(DAILY | LINES)
    @settings(max_examples=EXAMPLES)
    def check(line: str) -> None:
        runs = slow_runs(line, year)
        try:
            cron = parse(line)
        except InvalidCron:
            assert runs == []  # there is no such day
            return
        for first, last in windows(year, len(runs)):
            start, end = year.at(first), year.at(last)
            assert list(between(cron, start, end, year.zone)) == [
                run for run in runs if start <= run <= end
            ]

    check()


@pytest.mark.parametrize(
    "line",
    ["@hourly", "@daily", "30 2 * * *", "30 1 * * *", "15 1-3 * * *", "*/20 2 * * *", "0 2 1 * 1"],
)
def test_lines_that_people_write(year: Year, line: str) -> None:
    cron = parse(line)
    runs = slow_runs(" ".join(part.text for part in parts(cron)), year)
    assert list(between(cron, year.start, year.at(len(year.clocks) - 1), year.zone)) == runs
    assert len(runs) > 60


def test_the_judge_knows_the_nights(year: Year) -> None:
    moved = year.zone.key != "Asia/Kolkata"
    gap = 30 if year.zone.key == "Australia/Lord_Howe" else 60
    assert len(year.again) == (gap if moved else 0)
    assert [len(passed) for passed in year.skipped.values()] == ([gap] if moved else [])


def windows(year: Year, runs: int) -> Iterator[tuple[int, int]]:
    """The year, or the days around what is odd in it."""
    end = len(year.clocks) - 1
    if runs <= MANY:
        yield 0, end
        return
    for middle in (0, *list(year.skipped), *year.again[::30], end):
        yield max(0, middle - WIDTH), min(end, middle + WIDTH)


def between(cron: Cron, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    run = cron.next_after(start - MINUTE, zone)
    while run is not None and run <= end:
        yield run
        run = cron.next_after(run, zone)


def parts(cron: Cron) -> Iterator[Field]:
    fields = cron.fields
    yield from (fields.minute, fields.hour, fields.day, fields.month, fields.weekday)
