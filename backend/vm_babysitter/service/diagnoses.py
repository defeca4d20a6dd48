"""How the backups of all VMs are, looked at in the background: asking waits for nobody."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.diagnosis import Diagnosis
from vm_babysitter.domain.errors import BabysitterError, VmNotFound
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.ports import Clock

_log = logging.getLogger(__name__)
_AGAIN = 60.0
"""Seconds after which a look that failed is made again, if nothing has it made sooner."""
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

    def __init__(
        self,
        opened: Open,
        clock: Clock,
        told: Callable[[Diagnosis], None],
        again: float = _AGAIN,
    ) -> None:
        """``told`` is called for each VM that was looked at, in this thread.

        ``again`` is after how many seconds a look that failed is made again.
        """
        self._again = again
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
        everything, wanted = False, list[str]()
        while True:
            with self._change:
                while not (self._stopping or self._all or self._wanted):
                    self._idle.set()
                    if not self._change.wait(self._again if self.problem else None):
                        # What failed is looked at again, by itself.
                        self._all = everything
                        self._wanted.update(wanted)
                if self._stopping:
                    return
                if not self.problem:
                    everything, wanted = False, []
                everything = everything or self._all
                wanted = sorted(self._wanted.union(wanted))
                self._all = False
                self._wanted.clear()
            self.problem = self._try(everything, wanted)

    def _try(self, everything: bool, wanted: list[str]) -> str:  # noqa: FBT001
        """Look; return why that failed as a whole."""
        try:
            self._look(everything, wanted)
        except (BabysitterError, OSError) as error:
            return str(error)
        except Exception:  # noqa: BLE001 - the next look may well succeed
            _log.exception("Looking at the backups failed in a way nobody thought of.")
            return "an error that nobody thought of: see the log"
        return ""

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
                except VmNotFound as error:  # it is gone, with all its backups
                    _log.info("VM %s is not looked at any more: %s", uuid, error)
                    with self._change:
                        self._known.pop(uuid, None)

    def _keep(self, found: Diagnosed) -> None:
        diagnosis = found.diagnosis
        with self._change:
            self._known[diagnosis.facts.uuid] = Known(diagnosis, self._clock.now())
        try:
            self._told(diagnosis)
        except Exception:  # noqa: BLE001 - the other VMs are looked at all the same
            _log.exception("What was found of VM %s was not acted on.", diagnosis.facts.name)
