"""A word that stops a running job."""

import threading

from vm_babysitter.domain.errors import Cancelled


class Cancel:
    """Set by one thread, looked at by those that work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Ask the job to stop. May be called from a signal handler."""
        self._event.set()

    def check(self) -> None:
        """Raise Cancelled if the job was asked to stop."""
        if self._event.is_set():
            raise Cancelled
