"""One connection to libvirt, with the event loop that its jobs need."""

import threading
from types import TracebackType
from typing import Self

import libvirt

from vm_babysitter.adapters.libvirt.errors import translated

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def _ensure_event_loop() -> None:
    """Start libvirt's event loop, once per process and before the first connection.

    Without it an embedded driver never sees that QEMU ended a job, and a remote one does not
    notice a dead connection.
    """
    global _loop  # noqa: PLW0603 - libvirt's default loop is one per process by its API
    with _loop_lock:
        if _loop is not None:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised, not printed
        libvirt.virEventRegisterDefaultImpl()
        _loop = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _loop.start()


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class Connection:
    """An open connection to the hypervisor at ``uri``; a context manager."""

    def __init__(self, uri: str) -> None:
        """Connect.

        Raises:
            HypervisorUnreachable, HypervisorError.
        """
        self.uri = uri
        _ensure_event_loop()
        with translated("Connecting to libvirt", uri=uri):
            self.handle = libvirt.open(uri)

    def close(self) -> None:
        """Disconnect. VMs go on."""
        self.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
