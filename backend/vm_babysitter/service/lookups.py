"""What has to be looked up for an answer: by few at a time, and never in the wrong folder."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from vm_babysitter.config.context import VmRef
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    HypervisorUnreachable,
    StoreAway,
    StoreNotSetUp,
    VmNotFound,
)
from vm_babysitter.engine.app import App
from vm_babysitter.engine.catalog import find_vm
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.ports import Hypervisor, Store, StoredVm
from vm_babysitter.service.daemon import Daemon

_PATIENCE = 5.0
"""Seconds that a question waits for others before it is turned away."""
_AT_ONCE = 3
"""Questions at a time that have to ask libvirt, or read the backup folder."""


class Lookups:
    """Asks libvirt and the backup folder for those who wait."""

    def __init__(self, daemon: Daemon, compose: Callable[[], App]) -> None:
        self._daemon = daemon
        self._compose = compose
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def named(self, vm: str) -> tuple[str, str]:
        """Return UUID and name of a VM that libvirt has, or that has backups.

        Raises:
            VmNotFound, HypervisorUnreachable: libvirt was never seen, and there are no backups.
        """
        seen = self._seen(vm)
        if seen is not None:
            return seen.uuid, seen.name
        stored = self._stored_only(vm)
        return stored.uuid, stored.names[-1]

    def uuid_or(self, vm: str) -> str:
        """Return the UUID of a VM that libvirt has, whatever it was called; else what was given."""
        seen = self._seen(vm)
        return vm if seen is None else seen.uuid

    def _seen(self, vm: str) -> VmRef | None:
        """Return a VM that libvirt has, or had when it answered last."""
        self._daemon.watch.wait_first(_PATIENCE)  # just after the start, when nothing is known
        return next((ref for ref in self._daemon.refs() if ref.called(vm)), None)

    def _stored_only(self, vm: str) -> StoredVm:
        """Return a VM that only the backup folder has. Raises the same as ``named``."""
        if self._daemon.guard.path is not None:
            with suppress(VmNotFound), self.reading() as store:
                return find_vm(store, vm)
        watched = self._daemon.watch.now()
        if watched.at is None and watched.trouble:
            raise HypervisorUnreachable("libvirt", watched.trouble.rstrip("."))
        raise VmNotFound(vm)

    def stored(self, store: Store, vm: str) -> StoredVm | None:
        """Return a VM as the backup folder has it; None if it only has no backups.

        Raises:
            VmNotFound: libvirt does not have it either.
        """
        seen = self._seen(vm)
        if seen is None:
            return find_vm(store, vm)
        return next((each for each in store.vms() if each.uuid == seen.uuid), None)

    def set_up(self) -> None:
        """Refuse what needs a backup folder as long as none is set up."""
        configuration = self._daemon.configuration
        if configuration.problem is not None and configuration.loaded is None:
            raise configuration.problem  # what is set up is not known
        if self._daemon.guard.path is None:
            raise StoreNotSetUp

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """Open the backup folder, if it is the right one."""
        self.set_up()
        with self._asking(libvirt=False):
            self._right()
            yield self._compose().store()

    @contextmanager
    def hypervisor(self) -> Iterator[Hypervisor]:
        """Connect to libvirt, if it answers."""
        with self._asking(libvirt=True), self._compose().hypervisor() as hypervisor:
            yield hypervisor

    def owned(self, ask: Callable[[], Mapping[str, bool]]) -> Mapping[str, bool] | None:
        """Ask libvirt something that an answer can do without; None where it does not answer."""
        with suppress(BabysitterError), self._asking(libvirt=True):
            return ask()
        return None

    @contextmanager
    def diagnoser(self) -> Iterator[Diagnoser]:
        """Open what diagnoses; as long as nothing is set up it knows of no backups."""
        with_store = self._daemon.guard.path is not None
        with self._asking(libvirt=True):
            self._right()
            with self._compose().diagnoser(with_store=with_store) as diagnoser:
                yield diagnoser

    def _right(self) -> None:
        """Refuse to take another folder, or none, for one without backups."""
        guard = self._daemon.guard
        reason = "" if guard.path is None else guard.hindrance()
        if reason:
            raise StoreAway(reason)

    @contextmanager
    def _asking(self, *, libvirt: bool) -> Iterator[None]:
        trouble = self._daemon.watch.now().trouble if libvirt else ""
        if trouble:
            raise HypervisorUnreachable("libvirt", trouble.rstrip("."))
        if not self._slots.acquire(timeout=_PATIENCE):
            raise Busy("The daemon", "it is answering others")
        try:
            yield
        finally:
            self._slots.release()
