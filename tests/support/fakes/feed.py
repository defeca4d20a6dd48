"""What libvirt tells of its VMs: ``ports.OpenFeed``."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vm_babysitter.domain.errors import BabysitterError, HypervisorUnreachable
from vm_babysitter.domain.vm import PowerState, Vm

HOUSE = Vm("u1", "house", PowerState.RUNNING, ())
GONE = HypervisorUnreachable("qemu:///system", "it is not there")


@dataclass
class Libvirt:
    """A libvirt that can be absent, end, or not answer; ``ports.OpenFeed``."""

    vms: tuple[Vm, ...] = (HOUSE,)
    absent: BabysitterError | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    news: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    odd: Exception | None = None
    """What a look raises."""
    opened: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.answers.set()

    @contextmanager
    def open(self) -> Iterator["Libvirt"]:
        self.opened += 1
        self.answers.wait(30)
        if self.absent is not None:
            raise self.absent
        self.lost = False
        try:
            yield self
        finally:
            self.closed += 1

    def outlines(self) -> tuple[Vm, ...]:
        self.answers.wait(30)
        if self.odd is not None:
            raise self.odd
        return self.vms

    def wait(self, seconds: float) -> bool:
        came = self.news.wait(seconds)
        self.news.clear()
        if self.lost:
            raise GONE
        return came

    def wake(self) -> None:
        self.news.set()

    def end(self) -> None:
        self.lost = True
        self.news.set()
