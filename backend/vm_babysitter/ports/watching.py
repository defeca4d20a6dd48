"""How the VMs are watched: a connection to libvirt that is kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from vm_babysitter.domain.vm import Vm


class VmFeed(Protocol):
    """A connection that tells when something about a VM may have changed."""

    def outlines(self) -> tuple[Vm, ...]:
        """Return the persistent VMs, by name; no image is opened.

        Raises:
            HypervisorUnreachable, HypervisorError.
        """

    def wait(self, seconds: float) -> bool:
        """Wait until something may have changed since this was called last.

        Returns False if ``seconds`` have passed before.

        Raises:
            HypervisorUnreachable: the connection is lost.
        """

    def wake(self) -> None:
        """Have ``wait`` return at once. May be called from any thread, at any time."""


OpenFeed = Callable[[], AbstractContextManager[VmFeed]]
"""Connects to libvirt. Raises HypervisorUnreachable, HypervisorMissing, HypervisorError."""
