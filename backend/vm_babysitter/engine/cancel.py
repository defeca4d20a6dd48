"""A word that stops a running job."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vm_babysitter.domain.errors import BabysitterError, Cancelled


class Cancel:
    """Set by one thread, looked at by those that work."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._error: BabysitterError | None = None
        self._requested = False
        self._interrupt: Callable[[], None] | None = None

    def request(self) -> None:
        """Ask the job to stop. May be called from a signal handler."""
        self._requested = True
        self._stop()

    def fail(self, error: BabysitterError) -> None:
        """Make the job stop with this error, unless it is being stopped already."""
        if not self._event.is_set():
            self._error = error
            self._stop()

    def recover(self) -> None:
        """Let the job go on after an error; not if the user said stop."""
        self._error = None
        self._event.clear()
        if self._requested:  # which may have come this moment
            self._event.set()

    def check(self) -> None:
        """Raise Cancelled if the job was asked to stop, or the error it is to stop with."""
        if self._event.is_set():
            raise self._error or Cancelled

    def wait(self, seconds: float) -> None:
        """Wait, and raise Cancelled as soon as the job is asked to stop."""
        if seconds > 0:
            self._event.wait(seconds)
        self.check()

    def _stop(self) -> None:
        self._event.set()
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Have a request call ``interrupt`` while the context lasts.

        For calls that may wait for somebody who does not answer. What they then raise becomes
        Cancelled.
        """
        self._interrupt = interrupt
        try:
            self.check()
            yield
        except BabysitterError:
            self.check()
            raise
        finally:
            self._interrupt = None
