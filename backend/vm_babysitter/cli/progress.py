"""Tells a person at a terminal how a job goes; says little where nobody watches."""

import contextlib
import os
import sys
import threading
import time
from typing import TextIO

from vm_babysitter.lib.units import format_bytes, format_duration

_EVERY = 0.2
_BAR = 24
_WIDE = 1000
"""Characters of a line where its length does not matter."""
_QUIET_STEPS = frozenset({"freeze", "frozen", "begin"})
"""While the guest may be frozen nothing is written: a stopped terminal would prolong it."""
_RATE_AFTER = 0.5
"""Seconds before a rate means something."""


class TerminalObserver:
    """Implements ``ports.Observer``: one line that is written over, notes on lines of their own."""

    def __init__(
        self, stream: TextIO | None = None, *, live: bool | None = None, columns: int = 0
    ) -> None:
        """Write to ``stream``, by default standard error, or nowhere if that is closed.

        Args:
            stream: where to write.
            live: draw a moving line; by default if the stream is a terminal.
            columns: how wide that is; 0 if it tells itself.
        """
        self._stream = sys.stderr if stream is None else stream
        if live is None:
            live = self._stream is not None and self._stream.isatty()
        self._live = live
        self._columns = columns
        self._lock = threading.Lock()
        self._step = ""
        self._began = 0.0
        self._drawn = 0.0
        self._width = 0

    def step(self, name: str) -> None:
        """See the port."""
        with self._lock:
            self._step = name
            self._began = time.monotonic()
            if self._live and name not in _QUIET_STEPS:
                self._draw(name)

    def progress(self, done: int, total: int) -> None:
        """See the port."""
        now = time.monotonic()
        with self._lock:
            if not self._live or (now - self._drawn < _EVERY and done < total):
                return
            self._drawn = now
            seconds = now - self._began
            self._draw(progress_line(self._step, done, total, seconds, self._room()))

    def note(self, text: str) -> None:
        """See the port."""
        with self._lock:
            self._clear()
            self._write(text + "\n")

    def close(self) -> None:
        """Take the moving line away."""
        with self._lock:
            self._clear()

    def _room(self) -> int:
        """Return how many characters fit in a line: one that is wrapped cannot be written over."""
        if self._columns:
            return self._columns - 1
        try:
            return (os.get_terminal_size(self._stream.fileno()).columns or _WIDE) - 1
        except (OSError, ValueError, AttributeError):
            return _WIDE - 1

    def _draw(self, text: str) -> None:
        room = self._room()
        text, self._width = text[:room], min(self._width, room)
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        """Write at once. A terminal that was closed must not fail the job."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
            self._stream.flush()


def progress_line(step: str, done: int, total: int, seconds: float, room: int = _WIDE) -> str:
    """Return a progress bar with amounts, rate and the time that is left.

    Where there is no ``room`` for so many characters, the bar is left out.
    """
    share = min(1.0, done / total) if total else 1.0
    bar = ("#" * int(share * _BAR)).ljust(_BAR, ".")
    text = f" {share:4.0%} {format_bytes(done)} of {format_bytes(total)}"
    if done and seconds > _RATE_AFTER:
        rate = done / seconds
        text += f", {format_bytes(rate)}/s, {format_duration((total - done) / rate)} left"
    with_bar = f"{step} [{bar}]{text}"
    return with_bar if len(with_bar) <= room else step + text
