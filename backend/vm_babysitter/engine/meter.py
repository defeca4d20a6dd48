"""The progress of a job that has several parts."""

import threading

from vm_babysitter.ports import Observer


class Meter:
    """Adds up what the parts of a job have done, for one progress bar."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0

    def expect(self, amount: int) -> None:
        """Say that ``amount`` bytes more are to be done."""
        with self._lock:
            self._total += amount

    def add(self, amount: int) -> None:
        """Say that ``amount`` bytes more are done. Safe for threads."""
        with self._lock:
            self._done += amount
            self._observer.progress(self._done, self._total)
