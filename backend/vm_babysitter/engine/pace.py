"""Holds a job back to a number of bytes per second."""

import threading
import time

from vm_babysitter.engine.cancel import Cancel


class Pace:
    """Lets bytes pass at a limited rate. Safe for threads.

    What was not used is not saved up: after a break the rate is the same.
    """

    def __init__(self, limit: int | None, cancel: Cancel) -> None:
        """``limit`` is in bytes per second; None lets everything pass at once."""
        self.cancel = cancel
        self._limit = limit
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, amount: int) -> None:
        """Wait until ``amount`` bytes may pass. Raises Cancelled at once when asked to stop."""
        if self._limit is None:
            self.cancel.check()
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + amount / self._limit
        self.cancel.wait(start - now)
