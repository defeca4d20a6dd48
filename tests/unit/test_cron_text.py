"""Lines of cron: what is read out of them, what is refused, and the words for both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain.errors import InvalidCron, InvalidInput
from vm_babysitter.domain.schedule import PRESETS, parse

ALL_MINUTES, ALL_HOURS = tuple(range(60)), tuple(range(24))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("*", ALL_MINUTES),
        ("0", (0,)),
        ("05", (5,)),
        ("59", (59,)),
        ("1,5,3,5", (1, 3, 5)),
        ("10-12", (10, 11, 12)),
        ("10-20/5", (10, 15, 20)),
        ("10-19/5", (10, 15)),
        ("*/20", (0, 20, 40)),
        ("*/45", (0, 45)),
        ("*/90", (0,)),
        ("*/1", ALL_MINUTES),
        ("7,20-22,*/30", (0, 7, 20, 21, 22, 30)),
        ("5-5", (5,)),
    ],
)
def test_a_field_allows_what_vixie_cron_allows(text: str, minutes: tuple[int, ...]) -> None:
    assert parse(f"{text} 2 * * *").fields.minute.values == minutes


@pytest.mark.parametrize(
    ("text", "weekdays"),
    [
        ("0", (0,)),
        ("7", (0,)),
        ("0,7", (0,)),
        ("sun", (0,)),
        ("SUN", (0,)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("Mon-fri", (1, 2, 3, 4, 5)),
        ("5-7", (0, 5, 6)),
        ("fri-sun", (0, 5, 6)),
        ("sun-tue", (0, 1, 2)),
        ("0-7", (0, 1, 2, 3, 4, 5, 6)),
        ("*", (0, 1, 2, 3, 4, 5, 6)),
        ("*/7", (0,)),
        ("*/2", (0, 2, 4, 6)),
        ("mon,3,sat", (1, 3, 6)),
    ],
)
def test_0_and_7_are_sunday(text: str, weekdays: tuple[int, ...]) -> None:
    assert parse(f"0 2 * * {text}").fields.weekday.values == weekdays


@pytest.mark.parametrize(
    ("text", "months"),
    [("jan", (1,)), ("Oct-DEC", (10, 11, 12)), ("feb,8", (2, 8)), ("*/6", (1, 7))],
)
def test_months_have_names(text: str, months: tuple[int, ...]) -> None:
    assert parse(f"0 2 1 {text} *").fields.month.values == months


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * sun"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 jan *"),
        ("@annually", "0 0 1 1 *"),
        (" @Daily ", "0\t0  * * *"),
    ],
)
def test_words_stand_for_lines(word: str, line: str) -> None:
    assert parse(word) == parse(line)
    assert parse(word).text == word.strip()


def test_the_table_of_words_is_complete() -> None:
    assert len(PRESETS) == 7
    assert all(parse(word) for word in PRESETS)


def test_lines_that_mean_another_thing_are_not_equal() -> None:
    assert parse("0 2 * * *") != parse("0 3 * * *")
    assert parse("0 2 1 * *") != parse("0 2 1 * 0-6")  # the latter runs every day


REFUSED = [
    ("", "schedule", "is empty"),
    ("   ", "schedule", "is empty"),
    ("0 2 * *", "schedule", "has 4 fields instead of five"),
    ("0", "schedule", "has 1 field instead of five"),
    ("0 0 2 * * *", "schedule", "seconds"),
    ("0 2 * * * root", "schedule", "users"),
    ("@reboot", "schedule", "start of the machine"),
    ("@REBOOT", "schedule", "start of the machine"),
    ("@every 5m", "schedule", "not a known word"),
    ("@", "schedule", "not a known word"),
    ("60 * * * *", "minute", "from 0 to 59"),
    ("0 24 * * *", "hour", "from 0 to 23"),
    ("0 2 0 * *", "day of the month", "from 1 to 31"),
    ("0 2 32 * *", "day of the month", "from 1 to 31"),
    ("0 2 * 0 *", "month", "from 1 to 12"),
    ("0 2 * 13 *", "month", "from 1 to 12"),
    ("0 2 * * 8", "weekday", "from 0 to 7"),
    ("-1 * * * *", "minute", "not of the form"),
    ("1- * * * *", "minute", "not of the form"),
    ("1-2-3 * * * *", "minute", "not of the form"),
    ("1,,2 * * * *", "minute", "not of the form"),
    (", * * * *", "minute", "not of the form"),
    ("1/2/3 * * * *", "minute", "not of the form"),
    ("*/0 * * * *", "minute", "has a step"),
    ("*/ * * * *", "minute", "has a step"),
    ("*/x * * * *", "minute", "has a step"),
    ("5/15 * * * *", "minute", "step behind a single value"),
    ("0 22-3 * * *", "hour", "backwards"),
    ("0 2 * * sat-mon", "weekday", "backwards"),
    ("x * * * *", "minute", "not a minute"),
    ("1.5 * * * *", "minute", "not a minute"),
    ("** * * * *", "minute", "not a minute"),
    ("*-5 * * * *", "minute", "not a minute"),
    ("٣ * * * *", "minute", "not a minute"),
    ("mon * * * *", "minute", "not a minute"),
    ("0 2 ? * *", "day of the month", "not a day"),
    ("0 2 L * *", "day of the month", "not a day"),
    ("0 2 15W * *", "day of the month", "not a day"),
    ("0 2 * mon *", "month", "not a month"),
    ("0 2 * * mon#2", "weekday", "not a weekday"),
    ("0 2 * * monday", "weekday", "not a weekday"),
    ("9" * 400 + " * * * *", "minute", "not a minute"),
    ("0 2 30 2 *", "schedule", "would never run"),
    ("0 2 31 4,6,9,11 *", "schedule", "would never run"),
    ("0 2 30 2 */2", "schedule", "would never run"),
    ("0," * 500 + "0 * * * *", "schedule", "longer than"),
]


@pytest.mark.parametrize(("text", "field", "rule"), REFUSED)
def test_what_is_no_line_is_refused_with_field_and_rule(text: str, field: str, rule: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse(text)
    assert caught.value.field == field
    assert rule in caught.value.rule
    assert len(str(caught.value)) < 2500
    assert isinstance(caught.value, InvalidInput)


def test_hints_are_lines_that_are_understood() -> None:
    for text in ("0 22-3 * * *", "0 2 * * sat-mon", "0 2 * nov-feb *", "5/15 * * * *"):
        with pytest.raises(InvalidCron) as caught:
            parse(text)
        better = caught.value.hint.split("`")[1]
        parse(text.replace(caught.value.value, better))


def test_a_day_that_no_month_has_is_fine_beside_a_weekday() -> None:
    assert parse("0 2 30 2 1").fields.either_day


@given(st.text(max_size=40) | st.text(alphabet="0123456789*/-,@ adhilmnoprstuy", max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        cron = parse(text)
    except InvalidCron as refusal:
        assert refusal.rule  # noqa: PT017 - most texts are refused
    else:
        assert cron.words()


WORDS = [
    ("@daily", "every day at 00:00"),
    ("0 2 * * *", "every day at 02:00"),
    ("0 2,14 * * *", "every day at 02:00 and 14:00"),
    ("0,30 2 * * *", "every day at 02:00 and 02:30"),
    ("@hourly", "every hour"),
    ("30 * * * *", "every hour at :30"),
    ("* * * * *", "every minute"),
    ("*/15 * * * *", "every 15 minutes"),
    ("0 */4 * * *", "every 4 hours"),
    ("5 */4 * * *", "every 4 hours at :05"),
    ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00, Monday to Friday"),
    ("15 1-23/2 * * *", "every 2 hours from 01:15 to 23:15"),
    ("* 2 * * *", "every minute from 02:00 to 02:59"),
    ("*/10 2-5 * * *", "every 10 minutes from 02:00 to 05:59"),
    ("*/10 2,7 * * *", "every 10 minutes of the hours 2 and 7"),
    ("0,20 1,3,5 * * *", "minutes 0 and 20 of the hours 1, 3 and 5"),
    ("1-5,9 * * 2 *", "minutes 1 to 5 and 9 of every hour, every day of February"),
    ("0 1,2,4,5,9 * * *", "minute 0 of the hours 1, 2, 4, 5 and 9"),
    ("@weekly", "every Sunday at 00:00"),
    ("0 2 * * 7", "every Sunday at 02:00"),
    ("0 2 * * 2,4", "every Tuesday and Thursday at 02:00"),
    ("0 2 * * 1-5", "Monday to Friday at 02:00"),
    ("0 2 * may 1", "every Monday of May at 02:00"),
    ("@monthly", "on day 1 of every month at 00:00"),
    ("@yearly", "on day 1 of January at 00:00"),
    ("0 2 1,15 1-3 *", "on days 1 and 15 of January to March at 02:00"),
    ("0 2 1 * 1", "on day 1 and every Monday of every month at 02:00"),
    ("0 2 1-31 * 1", "every day at 02:00"),
    ("0 2 1-7 * */7", "every Sunday that is days 1 to 7 of every month at 02:00"),
    ("0 2 * 2-5 *", "every day of February to May at 02:00"),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_a_line_in_words(text: str, words: str) -> None:
    assert parse(text).words() == words


def test_every_minute_of_an_hour_is_most_often_a_slip() -> None:
    assert parse("* 2 * * *").warnings() == (
        "It runs every minute from 02:00 to 02:59: 60 times. Did you mean `0 2 * * *`?",
    )
    assert "120 times. Did you mean `0 2,3 * * mon`?" in parse("* 2,3 * * mon").warnings()[0]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("*/15 * * * *", "4 times in an hour"),
        ("* * * * *", "60 times in an hour"),
        ("*/45 * * * *", "at minutes 0 and 45, not evenly"),
        ("*/90 * * * *", "at minute 0, not evenly"),
        ("0 */5 * * *", "at hours 0, 5, 10, 15 and 20, not evenly"),
        ("0 2 1 * 1", "not only where both fit"),
        ("0 2 */2 * 1", "both fit, since one begins"),
        ("0 2 1-31 * 1", "so `1` changes nothing"),
        ("0 2 1 * 0-6", "so `1` changes nothing"),
        ("0 2 31 * *", "Months without a day 31"),
    ],
)
def test_what_may_not_be_meant_is_warned_of(text: str, warned: str) -> None:
    assert any(warned in warning for warning in parse(text).warnings())


@pytest.mark.parametrize(
    "text", ["@daily", "@hourly", "@weekly", "@monthly", "@yearly", "0 */6 * * *", "5 2 * * mon"]
)
def test_common_lines_are_not_warned_of(text: str) -> None:
    assert parse(text).warnings() == ()
