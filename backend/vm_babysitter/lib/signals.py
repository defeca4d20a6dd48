"""Signals that are waited for."""

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals(numbers: Collection[signal.Signals]) -> Iterator[Callable[[], None]]:
    """Take signals; yields what waits for the first of them, which may have come already.

    To be entered and waited for in the main thread. Where the system hands a signal to another
    thread the main thread learns of it only when it next runs, which one that waits for a
    ``threading.Event`` never does: the interpreter's wake-up descriptor is what wakes it.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    before = {number: signal.signal(number, _do_nothing) for number in numbers}
    fd_before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    wanted = {int(number) for number in numbers}

    def wait() -> None:
        while not wanted.intersection(os.read(receiving, 1)):
            pass  # another signal that Python has a handler for

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(sending)
        os.close(receiving)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Take the place of the default action; the wake-up descriptor does the rest."""
