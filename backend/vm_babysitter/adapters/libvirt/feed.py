"""Events of libvirt: ``ports.VmFeed``."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import libvirt

from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.domain.errors import HypervisorUnreachable, ImageUnreadable
from vm_babysitter.domain.vm import Vm
from vm_babysitter.ports import ImageInfo

_ALIVE_EVERY = 5
"""Seconds after which libvirtd is asked for a sign of life; an embedded driver has none."""
_ALIVE_TRIES = 3
_WATCHED = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR,
)


class LibvirtFeed:
    """Implements ``ports.VmFeed``."""

    def __init__(self, connection: Connection) -> None:
        """Watch the VMs behind ``connection``, which has to stay open meanwhile."""
        self._connection = connection
        self._hypervisor = LibvirtHypervisor(connection, _no_image)
        self._news = threading.Event()
        self._lost = ""

    def outlines(self) -> tuple[Vm, ...]:
        """See the port."""
        return self._hypervisor.outlines()

    def wait(self, seconds: float) -> bool:
        """See the port."""
        came = self._news.wait(seconds)
        self._news.clear()
        if self._lost:
            raise HypervisorUnreachable(self._connection.uri, self._lost)
        return came

    def wake(self) -> None:
        """See the port."""
        self._news.set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take libvirt's events while the context lasts."""
        handle = self._connection.handle
        with suppress(libvirt.libvirtError):  # an embedded driver needs no sign of life
            handle.setKeepAlive(_ALIVE_EVERY, _ALIVE_TRIES)
        with suppress(libvirt.libvirtError):
            handle.registerCloseCallback(self._closed, None)
        numbers = [
            handle.domainEventRegisterAny(None, event, self._changed, None) for event in _WATCHED
        ]
        try:
            yield
        finally:
            for number in numbers:
                with suppress(libvirt.libvirtError):
                    handle.domainEventDeregisterAny(number)
            with suppress(libvirt.libvirtError):
                handle.unregisterCloseCallback()

    def _changed(self, *_: Any) -> None:
        self._news.set()

    def _closed(self, _connection: Any, reason: int, *_: Any) -> None:
        words = {
            libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "it has not given a sign of life",
            libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "it has ended the connection",
        }
        self._lost = words.get(reason, "the connection is lost")
        self._news.set()


@contextmanager
def open_feed(uri: str) -> Iterator[LibvirtFeed]:
    """Connect to libvirt, and listen. Raises HypervisorUnreachable, HypervisorError."""
    with Connection(uri) as connection:
        feed = LibvirtFeed(connection)
        with feed.listening():
            yield feed


def _no_image(path: Path) -> ImageInfo:
    raise ImageUnreadable(str(path), "it is not looked at")
