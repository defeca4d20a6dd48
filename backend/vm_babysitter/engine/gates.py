"""What has to be so before a job begins: the array started, libvirt up, the store there."""

import logging
import threading
from collections.abc import Callable, Sequence

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.job import JobRequest

Gate = Callable[[JobRequest], str]
"""Returns what the job has to wait for, in words; empty if it may begin, as far as this goes.

It should answer at once. Asked again and again, from any thread, one call at a time.
"""
_log = logging.getLogger(__name__)
NO_ANSWER = "the host does not answer"


class Gates:
    """Asks all gates, and waits for none that hangs."""

    def __init__(self, gates: Sequence[Gate], patience: float = 10.0) -> None:
        """``patience`` is how many seconds the gates may take together."""
        self._gates = gates
        self._patience = patience
        self._asking: threading.Thread | None = None

    def ask(self, request: JobRequest) -> str:
        """Return what the first gate that is shut waits for, empty if all are open.

        A gate that does not answer, or fails, is shut: what it would guard against may be so.
        Not for several threads at once.
        """
        if not self._gates:
            return ""
        if self._asking is not None and self._asking.is_alive():
            return NO_ANSWER
        answer: list[str] = []
        self._asking = threading.Thread(
            target=lambda: answer.append(self._ask(request)), name="gates", daemon=True
        )
        self._asking.start()
        self._asking.join(self._patience)
        return answer[0] if answer else NO_ANSWER

    def _ask(self, request: JobRequest) -> str:
        for gate in self._gates:
            try:
                reason = gate(request)
            except BabysitterError as error:
                reason = error.message
            except Exception:  # noqa: BLE001 - whatever it is, the gate is shut
                _log.exception("A condition of jobs cannot be looked at.")
                reason = "whether it may begin cannot be told: see the log"
            if reason:
                return reason
        return ""
