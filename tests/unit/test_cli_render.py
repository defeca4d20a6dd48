"""Tables and the line that tells how a job goes."""

import fcntl
import io
import os
import pty
import struct
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.cli import render
from vm_babysitter.cli.progress import TerminalObserver, progress_line


def test_a_table_has_columns_of_equal_width_and_no_blanks_at_line_ends() -> None:
    text = render.table(("A", "LONG", "LAST"), [("aaa", "b", "c"), ("", "bbbbbb", "")])
    assert text.splitlines() == ["A    LONG    LAST", "aaa  b       c", "     bbbbbb"]


def test_letters_that_take_two_columns_or_none_do_not_shift_what_follows() -> None:
    text = render.table(("A", "B"), [("猫", "1"), ("e\u0301x", "2"), ("ab", "3")])
    assert text.splitlines() == ["A   B", "猫  1", "e\u0301x  2", "ab  3"]


@given(st.lists(st.tuples(*[st.text("ab{}", max_size=6)] * 3)))
def test_columns_of_any_table_begin_at_the_same_place(rows: list[tuple[str, str, str]]) -> None:
    header = ("one", "two", "three")
    lines = render.table(header, rows).split("\n")
    second = max(len(row[0]) for row in [header, *rows]) + 2
    for row, found in zip([header, *rows], lines, strict=True):
        assert found == found.rstrip()
        assert found[second:].startswith(row[1])


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 100 << 20, 0, "copy [........................]   0% 0 bytes of 100 MiB"),
        (
            50 << 20,
            100 << 20,
            10,
            "copy [############............]  50% 50 MiB of 100 MiB, 5 MiB/s, 10 s left",
        ),
        (100, 100, 0.4, "copy [########################] 100% 100 bytes of 100 bytes"),
        (0, 0, 9, "copy [########################] 100% 0 bytes of 0 bytes"),
    ],
)
def test_a_progress_line_tells_share_amounts_rate_and_time(
    done: int, total: int, seconds: float, line: str
) -> None:
    assert progress_line("copy", done, total, seconds) == line


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.floats(0, 1e6))
def test_a_progress_line_is_of_one_line_whatever_the_amounts(
    done: int, total: int, seconds: float
) -> None:
    line = progress_line("copy", done, total, seconds)
    assert "\n" not in line
    assert line.index("]") - line.index("[") == 25


def test_a_terminal_sees_a_line_that_is_written_over() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream, live=True)
    observer.step("look")
    observer.progress(1, 2)
    observer.progress(2, 2)
    observer.note("Mind the gap.")
    observer.close()
    observer.close()
    assert "look" in stream.getvalue()
    assert "100%" in stream.getvalue()
    assert stream.getvalue().endswith("\rMind the gap.\n")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("columns", "drawn"),
    [(10, "copy vda "), (40, "copy vda 100% 50 MiB of 50 MiB"), (60, "copy vda [####")],
)
def test_a_moving_line_is_never_wrapped(columns: int, drawn: str) -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream, live=True, columns=columns)
    observer.step("check vda.qcow2 of 20261122T021500Z/000003, which is long")
    observer.step("copy vda")
    observer.progress(50 << 20, 50 << 20)
    observer.close()
    lines = stream.getvalue().split("\r")
    assert max(map(len, lines)) < columns
    assert [line for line in lines if line.startswith(drawn)]


def test_the_width_of_a_real_terminal_is_what_it_says() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:  # noqa: PTH123
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        observer = TerminalObserver(stream)
        observer.step("copy vda")
        observer.progress(50 << 20, 100 << 20)
        observer.progress(100 << 20, 100 << 20)
        observer.close()
        text = b""
        while text.count(b"\r") < 5:
            text += os.read(ours, 1000)
    os.close(ours)
    drawn = text.decode().split("\r")
    assert "copy vda 100% 100 MiB of 100 MiB" in [line.rstrip() for line in drawn]
    assert max(map(len, drawn)) <= 39


def test_nothing_is_drawn_while_the_guest_may_be_frozen() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream, live=True)
    for step in ("freeze", "frozen", "begin"):
        observer.step(step)
    assert stream.getvalue() == ""


def test_where_nobody_watches_only_notes_are_written() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream)
    observer.step("copy")
    observer.progress(2, 2)
    observer.note("A note.")
    observer.close()
    assert stream.getvalue() == "A note.\n"


def test_a_terminal_that_was_closed_fails_nothing() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream, live=True)
    observer.step("look")
    stream.close()
    observer.progress(2, 2)
    observer.note("A note.")
    observer.close()
