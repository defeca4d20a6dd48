"""How the backups of all VMs are, looked at in the background: asking waits for nobody."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.diagnosis import Diagnosis
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.ports import Clock

_log = logging.getLogger(__name__)
Open = Callable[[], AbstractContextManager[Diagnoser]]
"""Makes what diagnoses. Raises BabysitterError, OSError."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was found of a VM, and when."""

    found: Diagnosis
    at: datetime


class Diagnoses:
    """A thread that looks at VMs' backups whenever something may have changed.

    No image of a VM is opened for it, and no index read: see ``Diagnoser.diagnose``.
    """

    def __init__(self, opened: Open, clock: Clock, told: Callable[[Diagnosis], None]) -> None:
        """``told`` is called for each VM that was looked at, in this thread."""
        self._open = opened
        self._clock = clock
        self._told = told
        self._known: dict[str, Known] = {}  # by UUID
        self._wanted: set[str] = set()
        self._all = False
        self._stopping = False
        self.problem = ""
        """Why the last look failed as a whole; empty if it did not."""
        self._change = threading.Condition()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="diagnoses", daemon=True)

    def start(self) -> None:
        """Begin with all VMs."""
        self._all = True
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """End; a look that waits for a disk is left behind."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def look(self, uuid: str | None = None) -> None:
        """Have a VM looked at soon, or all of them."""
        with self._change:
            if uuid is None:
                self._all = True
            else:
                self._wanted.add(uuid)
            self._idle.clear()
            self._change.notify()

    def of(self, uuid: str) -> Known | None:
        """Return what is known of a VM; None if it was not looked at yet."""
        with self._change:
            return self._known.get(uuid)

    def all(self) -> dict[str, Known]:
        """Return what is known of all VMs, by UUID."""
        with self._change:
            return dict(self._known)

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is left to be looked at; whether that came in time."""
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            with self._change:
                while not (self._stopping or self._all or self._wanted):
                    self._idle.set()
                    self._change.wait()
                if self._stopping:
                    return
                everything, wanted = self._all, sorted(self._wanted)
                self._all = False
                self._wanted.clear()
            try:
                self._look(everything, wanted)
                self.problem = ""
            except (BabysitterError, OSError) as error:
                self.problem = str(error)
            except Exception:  # noqa: BLE001 - the next look may well succeed
                _log.exception("Looking at the backups failed in a way nobody thought of.")
                self.problem = "an error that nobody thought of: see the log"

    def _look(self, everything: bool, wanted: list[str]) -> None:  # noqa: FBT001
        with self._open() as diagnoser:
            if everything:
                seen = set()
                for found in diagnoser.all(planned=False):
                    seen.add(found.diagnosis.facts.uuid)
                    self._keep(found)
                    if self._stopping:
                        return
                with self._change:
                    self._known = {u: known for u, known in self._known.items() if u in seen}
                return
            for uuid in wanted:
                try:
                    self._keep(diagnoser.diagnose(uuid, planned=False))
                except BabysitterError as error:  # it is gone, with all its backups
                    _log.info("VM %s is not looked at any more: %s", uuid, error)
                    with self._change:
                        self._known.pop(uuid, None)

    def _keep(self, found: Diagnosed) -> None:
        diagnosis = found.diagnosis
        with self._change:
            self._known[diagnosis.facts.uuid] = Known(diagnosis, self._clock.now())
        self._told(diagnosis)
