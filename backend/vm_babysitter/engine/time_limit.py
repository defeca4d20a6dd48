"""Ends what takes longer than it may."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vm_babysitter.domain.errors import JobTooLong
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.lib.units import format_duration


@contextmanager
def within(seconds: float | None, cancel: Cancel) -> Iterator[None]:
    """Have ``cancel`` fail with JobTooLong if the context takes longer; None: it never does."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, lambda: cancel.fail(JobTooLong(format_duration(seconds))))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
