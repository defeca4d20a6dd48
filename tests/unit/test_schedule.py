"""When schedules are due: both nights of a year on which clocks are moved, missed runs."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain.schedule import Cron, counts_from, missed, parse

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def walls(cron: Cron, zone: tzinfo, start: str, count: int) -> list[str]:
    """The next runs as people read them: wall clock and offset."""
    begin = datetime.fromisoformat(start).replace(tzinfo=zone)
    runs = cron.upcoming(begin, zone, count)
    return [run.astimezone(zone).isoformat(" ", "minutes") for run in runs]


@pytest.mark.parametrize(
    ("line", "start", "expected"),
    [
        ("0 2 * * *", "2026-03-10T01:59", "2026-03-10 02:00"),
        ("0 2 * * *", "2026-03-10T02:00", "2026-03-11 02:00"),  # after, not at
        ("0 2 * * *", "2026-03-10T02:00:30", "2026-03-11 02:00"),
        ("0 2 * * *", "2026-03-10T01:59:59.999999", "2026-03-10 02:00"),
        ("0 2 * * *", "2026-12-31T12:00", "2027-01-01 02:00"),
        ("0 2 * * 0", "2026-11-24T00:00", "2026-11-29 02:00"),  # a Tuesday; Sunday
        ("0 2 * * 7", "2026-11-24T00:00", "2026-11-29 02:00"),
        ("@weekly", "2026-11-24T00:00", "2026-11-29 00:00"),
        ("0 2 13 * 5", "2026-11-10T03:00", "2026-11-13 02:00"),
        ("0 2 13 * 5", "2026-11-13T02:00", "2026-11-20 02:00"),  # day or weekday
        ("0 2 */2 * 5", "2026-11-13T02:00", "2026-11-27 02:00"),  # day and weekday
        ("0 2 31 * *", "2026-11-01T00:00", "2026-12-31 02:00"),
        ("0 2 30 2 1", "2026-01-01T00:00", "2026-02-02 02:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29 00:00"),
        ("0 0 29 2 */7", "2076-03-01T00:00", "2088-02-29 00:00"),  # on a Sunday
        ("0 0 29 2 */7", "2088-02-29T00:00", "2128-02-29 00:00"),
        ("@monthly", "2026-11-01T00:00", "2026-12-01 00:00"),
        ("@yearly", "2026-01-01T00:00", "2027-01-01 00:00"),
        ("15,45 8-10/2 * jun *", "2026-11-24T00:00", "2027-06-01 08:15"),
        ("15,45 8-10/2 * jun *", "2027-06-01T08:45", "2027-06-01 10:15"),
    ],
)
def test_the_next_run(line: str, start: str, expected: str) -> None:
    assert walls(parse(line), BERLIN, start, 1)[0].startswith(expected)


NIGHTS = [
    # Berlin, 29 March: 02:00 becomes 03:00.
    ("0 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00+02:00", "30 02:00+02:00"]),
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00+02:00", "30 02:30+02:00"]),
    ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00+02:00", "30 02:00+02:00"]),
    ("15 1-3 * * *", "Europe/Berlin", "2026-03-29T00:00",
     ["29 01:15+01:00", "29 03:00+02:00", "29 03:15+02:00", "30 01:15+02:00"]),
    ("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00+02:00", "30 02:00+02:00"]),
    ("* 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00+02:00", "30 02:00+02:00"]),
    ("0 1 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 01:00+01:00", "30 01:00+02:00"]),
    ("@daily", "Europe/Berlin", "2026-03-28T12:00", ["29 00:00+01:00", "30 00:00+02:00"]),
    ("0 * * * *", "Europe/Berlin", "2026-03-29T00:30",
     ["29 01:00+01:00", "29 03:00+02:00", "29 04:00+02:00"]),
    ("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", ["29 01:30+01:00", "29 03:30+02:00"]),
    ("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:00", ["29 00:00+01:00", "29 04:00+02:00"]),
    ("0 2 29 3 *", "Europe/Berlin", "2026-01-01T00:00", ["29 03:00+02:00", "29 02:00+02:00"]),
    # Berlin, 25 October: 03:00 becomes 02:00.
    ("0 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25 02:00+02:00", "26 02:00+01:00"]),
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25 02:30+02:00", "26 02:30+01:00"]),
    ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25 03:00+01:00", "26 03:00+01:00"]),
    ("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00",
     ["25 02:00+02:00", "25 02:30+02:00", "26 02:00+01:00"]),
    ("0 * * * *", "Europe/Berlin", "2026-10-25T01:30",
     ["25 02:00+02:00", "25 02:00+01:00", "25 03:00+01:00"]),
    ("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:00",
     ["25 02:30+02:00", "25 02:00+01:00", "25 02:30+01:00", "25 03:00+01:00"]),
    # New York, 8 March and 1 November, at 02:00.
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", ["08 03:00-04:00", "09 02:30-04:00"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["01 01:30-04:00", "02 01:30-05:00"]),
    ("30 * * * *", "America/New_York", "2026-11-01T01:00",
     ["01 01:30-04:00", "01 01:30-05:00", "01 02:30-05:00"]),
    # Lord Howe, 4 October: 02:00 becomes 02:30; 5 April: 02:00 becomes 01:30.
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["04 02:30+11:00", "05 02:15+11:00"]),
    ("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["04 02:45+11:00", "05 02:45+11:00"]),
    ("0,45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
     ["04 02:30+11:00", "04 02:45+11:00", "05 02:00+11:00"]),
    ("15 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["05 01:15+11:00", "06 01:15+10:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["05 01:45+11:00", "06 01:45+10:30"]),
    ("*/15 * * * *", "Australia/Lord_Howe", "2026-04-05T01:30",
     ["05 01:45+11:00", "05 01:30+10:30", "05 01:45+10:30", "05 02:00+10:30"]),
    # Casablanca, 15 February: 03:00 becomes 02:00; 22 March: 02:00 becomes 03:00.
    ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00", ["15 02:30+01:00", "16 02:30+00:00"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00", ["22 03:00+01:00", "23 02:30+01:00"]),
    # Never moved.
    ("30 2 * * *", "Asia/Kolkata", "2026-03-28T12:00", ["29 02:30+05:30", "30 02:30+05:30"]),
    ("30 2 * * *", "America/Phoenix", "2026-03-07T12:00", ["08 02:30-07:00", "09 02:30-07:00"]),
    # Samoa left out 30 December 2011 altogether; Havana is moved at midnight.
    ("0 2 * * *", "Pacific/Apia", "2011-12-29T12:00",
     ["31 00:00+14:00", "31 02:00+14:00", "01 02:00+14:00"]),
    ("@daily", "America/Havana", "2026-03-07T12:00", ["08 01:00-04:00", "09 00:00-04:00"]),
    ("@daily", "America/Havana", "2026-10-31T12:00", ["01 00:00-04:00", "02 00:00-05:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "zone", "start", "expected"), NIGHTS)
def test_nights_on_which_the_clock_is_moved(
    line: str, zone: str, start: str, expected: list[str]
) -> None:
    found = walls(parse(line), ZoneInfo(zone), start, len(expected))
    assert [text[8:] for text in found] == expected


@pytest.mark.parametrize(
    ("line", "start", "expected"),
    [
        ("30 2 * * *", "2026-10-25T00:45", "2026-10-26T01:30"),  # 02:45 for the first time
        ("30 2 * * *", "2026-10-25T01:15", "2026-10-26T01:30"),  # 02:15 for the second time
        ("30 * * * *", "2026-10-25T01:15", "2026-10-25T01:30"),
        ("30 2 * * *", "2026-03-29T00:59:59", "2026-03-29T01:00"),
        ("30 2 * * *", "2026-03-29T01:00", "2026-03-30T00:30"),  # it was due just now
    ],
)
def test_in_the_middle_of_such_a_night(line: str, start: str, expected: str) -> None:
    assert parse(line).next_after(utc(start), BERLIN) == utc(expected)


def test_a_fixed_offset_is_a_zone_too() -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    assert parse("0 2 * * *").next_after(utc("2026-03-29T00:00"), zone) == utc("2026-03-29T05:30")


def test_at_the_end_of_the_calendar_there_is_no_next_run() -> None:
    assert parse("@yearly").next_after(utc("9998-06-01T00:00"), BERLIN) is None
    assert parse("@yearly").upcoming(utc("9997-06-01T00:00"), UTC, 5) == (utc("9998-01-01T00:00"),)


# --- what was missed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "last", "now", "expected"),
    [
        ("0 2 * * *", None, "2026-11-24T12:00", None),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-24T12:00", None),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-25T01:59:59", None),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-25T02:00", "2026-11-25T02:00"),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-25T09:00", "2026-11-25T02:00"),
        ("0 2 * * *", "2026-11-01T02:00", "2026-11-25T09:00", "2026-11-25T02:00"),
        ("0 2 * * *", "1970-01-01T02:00", "2026-11-25T09:00", "2026-11-25T02:00"),
        ("0 2 * * *", "2026-11-25T02:00", "2026-11-24T12:00", None),  # set back
        ("* * * * *", "2016-11-25T02:00", "2026-11-25T09:00:30", "2026-11-25T09:00"),
        ("* * * 1 *", "2016-11-25T02:00", "2026-11-25T09:00", "2026-01-31T23:59"),
        ("@yearly", "2016-11-25T02:00", "2026-11-25T09:00", "2026-01-01T00:00"),
        ("@yearly", "2026-02-25T02:00", "2026-11-25T09:00", None),
    ],
)
def test_a_missed_run_is_the_newest_of_all_missed(
    line: str, last: str | None, now: str, expected: str | None
) -> None:
    found = missed(parse(line), utc(last) if last else None, utc(now), UTC)
    assert found == (utc(expected) if expected else None)


@given(
    st.sampled_from(["*/7 * * * *", "0 2 * * *", "30 2 * * *", "* 2 * * *", "0,1 0 1 * *"]),
    st.integers(0, 300 * 1440),
    st.integers(0, 90 * 1440),
)
def test_the_missed_run_is_the_last_before_now(line: str, start: int, apart: int) -> None:
    cron, last = parse(line), utc("2026-01-01T00:00:10") + start * MINUTE
    now = last + apart * MINUTE
    due = missed(cron, last, now, BERLIN)
    if due is None:
        following = cron.next_after(last, BERLIN)
        assert following is not None
        assert following > now
    else:
        assert last < due <= now
        following = cron.next_after(due, BERLIN)
        assert following is not None
        assert following > now


@pytest.mark.parametrize(
    ("line", "last", "now", "counted"),
    [
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-24T12:00", "last"),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-24T02:00", "last"),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-24T01:30", "last"),  # not again at 2
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-23T23:01", "last"),
        ("0 2 * * *", "2026-11-24T02:00", "2026-11-23T23:00", "now"),
        ("0 2 * * *", "2031-11-24T02:00", "2026-11-24T12:00", "now"),  # a clock gone wrong
        ("0 * * * *", "2026-11-24T12:00", "2026-11-24T11:30", "last"),
        ("0 * * * *", "2026-11-24T12:00", "2026-11-24T10:30", "now"),  # not silent for hours
        ("*/5 * * * *", "2026-11-24T12:00", "2026-11-24T11:30", "now"),
        ("@yearly", "9998-01-01T00:00", "9997-12-31T23:00", "last"),
    ],
)
def test_a_clock_set_back_neither_repeats_a_run_nor_keeps_it_waiting(
    line: str, last: str, now: str, counted: str
) -> None:
    wanted = {"last": utc(last), "now": utc(now)}[counted]
    assert counts_from(parse(line), utc(last), utc(now), UTC) == wanted
