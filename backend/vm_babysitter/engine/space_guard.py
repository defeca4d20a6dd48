"""Watches the space of a running backup, and gives the backup up before the guest suffers."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vm_babysitter.domain.errors import BabysitterError, NotEnoughSpace, SpaceRunningOut
from vm_babysitter.domain.space import (
    Growth,
    Scratch,
    find_shortage,
    must_give_up,
    sees_errors,
    store_reserve,
)
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Hypervisor, ScratchPlaces, Store

INTERVAL = 0.5
"""Seconds between two looks."""
_REMEMBERED = 6
"""Looks over which the growth is judged."""


@dataclass(slots=True)
class _Watched:
    """The scratch files of one file system."""

    scratch: list[Scratch]
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
            raise NotEnoughSpace(shortage.path, shortage.free, shortage.needed)
        return places

    @contextmanager
    def watching(self, vm_uuid: str, scratch: Sequence[Scratch]) -> Iterator[None]:
        """Stop the job, by way of its ``cancel``, when space runs out during the context.

        Also when QEMU has paused the VM all the same.
        """
        watched: dict[int, _Watched] = {}
        for place in scratch:
            watched.setdefault(place.room.device, _Watched([])).scratch.append(place)
        over = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(vm_uuid, list(watched.values()), over), name="space-guard"
        )
        thread.daemon = True  # it may wait for a libvirt that does not answer
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(INTERVAL)

    def _watch(self, vm_uuid: str, watched: list[_Watched], over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            try:
                ending = self._look(vm_uuid, watched)
            except (BabysitterError, OSError):  # the copying meets it, too, and says so
                continue
            if ending is not None:
                if not over.is_set():
                    self._cancel.fail(ending)
                return

    def _look(self, vm_uuid: str, watched: list[_Watched]) -> SpaceRunningOut | None:
        for group in watched:
            first = group.scratch[0]
            room = self._places.room(first.path)
            used = sum(self._places.used(s.path) for s in group.scratch)
            group.history.append(Growth(time.monotonic(), used))
            cautious = any(s.cautious for s in group.scratch)
            if must_give_up(room, list(group.history), cautious=cautious):
                return SpaceRunningOut("The working space beside the disk", first.path, room.free)
        room = self._store.room()
        if room.free < store_reserve(room.total):
            return SpaceRunningOut("The backup folder", str(self._store.path), room.free)
        if self._hypervisor.power(vm_uuid) is PowerState.STUCK:
            first = watched[0].scratch[0]
            room = self._places.room(first.path)
            return SpaceRunningOut("The working space beside the disk", first.path, room.free)
        return None
