"""Tells a person at a terminal how a job goes; says little where nobody watches."""

import contextlib
import sys
import threading
import time
from typing import TextIO

from vm_babysitter.lib.units import format_bytes, format_duration

_EVERY = 0.2
_BAR = 24
_QUIET_STEPS = frozenset({"freeze", "frozen", "begin"})
"""While the guest may be frozen nothing is written: a stopped terminal would prolong it."""
_RATE_AFTER = 0.5
"""Seconds before a rate means something."""


class TerminalObserver:
    """Implements ``ports.Observer``: one line that is written over, notes on lines of their own."""

    def __init__(self, stream: TextIO = sys.stderr, *, live: bool | None = None) -> None:
        """``live``: draw a moving line; by default if the stream is a terminal."""
        self._stream = stream
        self._live = stream.isatty() if live is None else live
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
            self._draw(progress_line(self._step, done, total, now - self._began))

    def note(self, text: str) -> None:
        """See the port."""
        with self._lock:
            self._clear()
            self._write(text + "\n")

    def close(self) -> None:
        """Take the moving line away."""
        with self._lock:
            self._clear()

    def _draw(self, text: str) -> None:
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        """Write at once. A terminal that was closed must not fail the job."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def progress_line(step: str, done: int, total: int, seconds: float) -> str:
    """Return a progress bar with amounts, rate and the time that is left."""
    share = min(1.0, done / total) if total else 1.0
    bar = ("#" * int(share * _BAR)).ljust(_BAR, ".")
    text = f"{step} [{bar}] {share:4.0%} {format_bytes(done)} of {format_bytes(total)}"
    if done and seconds > _RATE_AFTER:
        rate = done / seconds
        text += f", {format_bytes(rate)}/s, {format_duration((total - done) / rate)} left"
    return text
