"""A guard of frozen guests that only remembers: ``ports.FreezeGuard``."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fakes.faults import Faults, faulty


class FakeFreezeWatch:
    """Implements ``ports.FreezeWatch``."""

    def __init__(self, unfit: str) -> None:
        self.unfit = unfit
        self.done = False

    def thawed(self) -> None:
        self.done = True


class FakeFreezeGuard(Faults):
    """Implements ``ports.FreezeGuard``."""

    def __init__(self) -> None:
        super().__init__()
        self.unfit = ""
        """Why guests should not be frozen."""
        self.left: set[str] = set()
        """VMs that may be frozen, with nobody who would thaw them."""
        self.watched: list[str] = []
        """Every VM that was ever watched, in order."""

    @contextmanager
    def watch(self, vm_uuid: str) -> Iterator[FakeFreezeWatch]:
        if "watch" in self.fail:
            raise self.fail["watch"]
        watch = FakeFreezeWatch(self.unfit)
        self.watched.append(vm_uuid)
        try:
            yield watch
        finally:
            if not (watch.done or watch.unfit):
                self.left.add(vm_uuid)

    @faulty
    def leftovers(self) -> tuple[str, ...]:
        return tuple(sorted(self.left))

    @faulty
    def forget(self, vm_uuid: str) -> None:
        self.left.discard(vm_uuid)
