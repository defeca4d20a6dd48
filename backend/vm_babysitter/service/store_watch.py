"""Looks at the backup folder now and then: it may come and go, fill up, and be emptied."""

import logging
import threading
import time
from collections.abc import Callable

_PATIENCE = 30.0
"""Seconds after which a look that has not come back is told of."""
_log = logging.getLogger(__name__)
_CALM = 300.0
"""Seconds from one look to the next while all is well; a folder that is read keeps no disk awake
for that, and none of its files stays open."""
_TROUBLED = 30.0
"""The same as long as something is wrong with it, so that work goes on by itself soon."""


class StoreWatch:
    """A thread that looks at it: a share that does not answer holds up nobody else."""

    def __init__(
        self,
        look: Callable[[], str],
        changed: Callable[[], None],
        there: Callable[[], None],
        seconds: tuple[float, float] = (_CALM, _TROUBLED),
        patience: float = _PATIENCE,
    ) -> None:
        """All are called in this thread.

        Args:
            look: says what is wrong with the folder; empty if nothing is.
            changed: is told when that is something else than before.
            there: is told after each look that found nothing wrong.
            seconds: from one look to the next while all is well, and else.
            patience: after how many seconds a look counts as one that hangs.
        """
        self._look = look
        self._changed = changed
        self._there = there
        self._calm, self._troubled = seconds
        self._patience = patience
        self._asked: float | None = None
        self._bell = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)

    def start(self) -> None:
        """Begin with a look."""
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether the folder does not answer: a share whose server is gone, a disk that fails."""
        asked = self._asked
        return asked is not None and time.monotonic() - asked > self._patience

    def look(self) -> None:
        """Have it looked at soon."""
        self._bell.set()

    def stop(self, seconds: float = 1.0) -> None:
        """End; a look that waits for a disk is left behind."""
        self._stopping = True
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        known, seconds = "", self._calm
        while not self._stopping:
            try:
                self._asked = time.monotonic()
                found = self._look()
                self._asked = None
                seconds = self._troubled if found else self._calm
                if found != known:
                    known = found
                    self._changed()
                if not found:
                    self._there()
            except Exception:  # noqa: BLE001 - the next look may well succeed
                seconds = self._troubled
                _log.exception("Looking at the backup folder failed in a way nobody thought of.")
            self._asked = None
            self._bell.wait(seconds)
            self._bell.clear()
