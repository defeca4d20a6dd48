"""Watches the space of a running backup, and gives the backup up before the guest suffers."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from vm_babysitter.domain.errors import BabysitterError, NotEnoughSpace, SpaceRunningOut, VmStuck
from vm_babysitter.domain.space import (
    Growth,
    Scratch,
    find_shortage,
    must_give_up,
    scratch_reserve,
    sees_errors,
    store_floor,
    store_reserve,
)
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Hypervisor, ScratchPlaces, Store

INTERVAL = 0.5
"""Seconds between two looks."""
PATIENCE = 3.0
"""Seconds that the copying has to stop."""
Look = Callable[[], BabysitterError | None]
_SCRATCH = "The working space of the backup"
_REMEMBERED = 6
"""Looks over which the growth is judged."""


@dataclass(slots=True)
class _Watched:
    """The scratch files of one file system."""

    scratch: list[Scratch]
    cautious: bool
    history: deque[Growth] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class SpaceGuard:
    """Guards one backup of one VM."""

    def __init__(
        self, hypervisor: Hypervisor, places: ScratchPlaces, store: Store, cancel: Cancel
    ) -> None:
        self._hypervisor = hypervisor
        self._places = places
        self._store = store
        self._cancel = cancel

    def check(self, vm: Vm, paths: Sequence[tuple[str, str]]) -> list[Scratch]:
        """Look for enough space before a backup begins.

        Args:
            vm: the VM.
            paths: the target of each disk, and where its scratch file goes.

        Raises:
            NotEnoughSpace: there is too little where scratch files go, or in the store.
        """
        room = self._store.room()
        reserve = store_reserve(room.total)
        if room.free < reserve:
            raise NotEnoughSpace(str(self._store.path), room.free, reserve)
        disks = {disk.target: disk for disk in vm.disks}
        places = [
            Scratch(
                path,
                self._places.room(path),
                disks[target].virtual_size,
                sees_errors(disks[target].error_policy),
            )
            for target, path in paths
        ]
        shortage = find_shortage(places)
        if shortage is not None:
            raise NotEnoughSpace(_folder(shortage.path), shortage.free, shortage.needed)
        return places

    def reserve(self, scratch: Sequence[Scratch]) -> int:
        """Return how many bytes the backup must leave free in the store.

        Raises:
            StoreFailed.
        """
        return store_floor(self._store.room(), scratch)

    @contextmanager
    def watching(
        self, vm: Vm, scratch: Sequence[Scratch], end: Callable[[], object], *more: Look
    ) -> Iterator[None]:
        """Stop the job, by way of its ``cancel``, when space runs out during the context.

        Or when one of ``more`` finds a problem.

        Also when QEMU has paused the VM all the same. Where the job does not stop, because it
        waits for a folder that does not answer, ``end`` is called: it ends the VM's part.
        """
        watched: dict[int, _Watched] = {}
        for place in scratch:
            group = watched.setdefault(place.room.device, _Watched([], False))
            group.scratch.append(place)
            group.cautious |= place.cautious
        over = threading.Event()
        groups = list(watched.values())
        looks = [
            partial(self._look_at_scratch, groups),
            partial(self._look_at_store, scratch),
            *more,
        ]
        if vm.state is not PowerState.STUCK:
            looks.append(partial(self._look_at_vm, vm, groups))
        threads = [  # apart from each other: a folder or a libvirt may not answer
            threading.Thread(
                target=self._watch, args=(look, end, over), name="space-guard", daemon=True
            )
            for look in looks
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(INTERVAL)

    def _watch(self, look: Look, end: Callable[[], object], over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            try:
                problem = look()
            except (BabysitterError, OSError):  # the copying meets it, too, and says so
                continue
            if problem is None:
                continue
            if not over.is_set():
                self._cancel.fail(problem)
            if not over.wait(PATIENCE):
                with suppress(BabysitterError, OSError):  # undoing tries it again
                    end()
            return

    def _look_at_scratch(self, watched: Sequence[_Watched]) -> BabysitterError | None:
        for group in watched:
            first = group.scratch[0]
            room = self._places.room(first.path)
            used = sum(self._places.used(s.path) for s in group.scratch)
            group.history.append(Growth(time.monotonic(), used))
            if must_give_up(room, list(group.history), cautious=group.cautious):
                return SpaceRunningOut(_SCRATCH, _folder(first.path), room.free)
        return None

    def _look_at_store(self, scratch: Sequence[Scratch]) -> BabysitterError | None:
        room = self._store.room()
        if room.free < store_floor(room, scratch):
            return SpaceRunningOut("The backup folder", str(self._store.path), room.free)
        return None

    def _look_at_vm(self, vm: Vm, watched: Sequence[_Watched]) -> BabysitterError | None:
        if self._hypervisor.power(vm.uuid) is not PowerState.STUCK:
            return None
        for group in watched:
            first = group.scratch[0]
            room = self._places.room(first.path)
            if room.free < scratch_reserve(room.total, cautious=group.cautious):
                return SpaceRunningOut(_SCRATCH, _folder(first.path), room.free)
        return VmStuck(vm.name)


def _folder(path: str) -> str:
    """Return the folder of a scratch file: that is what a user knows."""
    return str(PurePosixPath(path).parent)
