"""Sizes and times in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.lib.units import format_bytes, format_duration, parse_bytes


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (640 << 10, "640 KiB"),
        (655_361, "640 KiB"),
        (1 << 20, "1 MiB"),
        (int(1.57 * (1 << 30)), "1.6 GiB"),
        (1 << 40, "1 TiB"),
        (3 << 50, "3 PiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_an_amount_is_told_in_the_unit_that_fits(amount: int, words: str) -> None:
    assert format_bytes(amount) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_a_time_is_told_in_the_units_that_fit(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (format_bytes((1 << 20) - 1), "1.0 MiB"),
        (format_bytes((1 << 40) - 1), "1.0 TiB"),
        (format_duration(9.96), "10 s"),
    ],
)
def test_rounding_up_carries_into_the_next_unit(told: str, words: str) -> None:
    assert told == words


@given(st.integers(0, 1 << 60))
def test_what_is_told_is_near_the_amount(amount: int) -> None:
    number, unit = format_bytes(amount).split(" ")
    power = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert abs(float(number) * 1024**power - amount) <= 0.051 * 1024**power + 0.006 * amount
    assert float(number) < 1024 or unit == "PiB"


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("4096", 4096),
        ("50M", 50 << 20),
        ("50m", 50 << 20),
        ("50MB", 50 << 20),
        ("50 MiB", 50 << 20),
        (" 1.5G ", 3 << 29),
        ("2T", 2 << 40),
        ("64KiB", 64 << 10),
        ("7B", 7),
    ],
)
def test_an_amount_is_understood_as_people_write_it(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "M", "-1", "1.", ".5M", "1e6", "5 furlongs", "٣M", "1M1"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        parse_bytes(text)


@given(st.integers(0, 1 << 50))
def test_what_is_written_out_in_bytes_is_read_back(amount: int) -> None:
    assert parse_bytes(f"{amount}") == parse_bytes(f"{amount} B") == amount
