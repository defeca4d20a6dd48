"""Knows at any time which VMs there are, whatever libvirt does: it may be absent, or restart."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.vm import Vm
from vm_babysitter.domain.vm_changes import VmChange, vm_changes
from vm_babysitter.ports import Clock, OpenFeed, VmFeed

_log = logging.getLogger(__name__)
_PATIENCE = timedelta(seconds=30)
"""After so long without an answer we say that libvirt does not answer."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the watch looks; all in seconds."""

    settle: float = 0.5
    """From an event to the look: an edit in a GUI removes the VM and defines it anew."""
    look: float = 60.0
    """From one look to the next where no event comes."""
    reconnect: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    """From one try to connect to the next; the last one stays."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of the VMs."""

    vms: tuple[Vm, ...]
    """As they were seen last, by name."""
    at: datetime | None
    """When that was; None if they were never seen yet."""
    trouble: str
    """Why libvirt cannot be asked now, in a sentence; empty if it answers."""


class VmWatch:
    """A thread that keeps a connection to libvirt, and what it tells."""

    def __init__(
        self,
        open_feed: OpenFeed,
        clock: Clock,
        told: Callable[[tuple[VmChange, ...]], None],
        rhythm: Rhythm = Rhythm(),
    ) -> None:
        """``told`` gets what has changed since the last look, in this thread; never the first."""
        self.answered: Callable[[], None] = lambda: None
        """Is called when libvirt answers, at first and again, in the watch's own thread."""
        self._open = open_feed
        self._clock = clock
        self._told = told
        self._rhythm = rhythm
        self._lock = threading.Lock()
        self._vms: tuple[Vm, ...] = ()
        self._at: datetime | None = None
        self._trouble = "libvirt was not asked yet."
        self._asked: datetime | None = None
        self._feed: VmFeed | None = None
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vm-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> bool:
        """End it. Returns False if libvirt keeps the thread waiting longer than this."""
        self._stopping.set()
        with self._lock:
            feed = self._feed
        if feed is not None:
            feed.wake()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def now(self) -> Watched:
        """Return what is known at this moment; never waits for libvirt."""
        with self._lock:
            trouble, asked = self._trouble, self._asked
            vms, at = self._vms, self._at
        if asked is not None and self._clock.now() - asked > _PATIENCE:
            trouble = f"libvirt does not answer, since {asked:%Y-%m-%d %H:%M:%S} UTC."
        return Watched(vms, at, trouble)

    def wait_first(self, seconds: float) -> Watched:
        """Wait until libvirt was asked once, with whatever success, but no longer than this."""
        self._looked.wait(seconds)
        return self.now()

    def look(self) -> None:
        """Have the VMs looked at soon, without an event."""
        with self._lock:
            feed = self._feed
        if feed is not None:
            feed.wake()

    def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            try:
                with self._connected() as feed:
                    tries = 0
                    self._follow(feed)
            except BabysitterError as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - without this thread no VM is known any more
                _log.exception("Watching VMs goes on after an error that nobody thought of.")
                self._fail(f"libvirt could not be asked: {type(error).__name__}: {error}")
            delays = self._rhythm.reconnect
            self._stopping.wait(delays[min(tries, len(delays) - 1)])
            tries += 1

    @contextmanager
    def _connected(self) -> Iterator[VmFeed]:
        with self._asking():
            opened = self._open()
            feed = opened.__enter__()
        try:
            with self._lock:
                self._feed = feed
            yield feed
        finally:
            with self._lock:
                self._feed = None
            with self._asking():
                opened.__exit__(None, None, None)

    def _follow(self, feed: VmFeed) -> None:
        while not self._stopping.is_set():
            with self._asking():
                vms = feed.outlines()
            self._learn(vms)
            if feed.wait(self._rhythm.look) and not self._stopping.wait(self._rhythm.settle):
                feed.wait(0)  # what came meanwhile is seen by this look

    def _learn(self, vms: tuple[Vm, ...]) -> None:
        with self._lock:
            first, before, away = self._at is None, self._vms, bool(self._trouble)
            self._vms, self._at, self._trouble = vms, self._clock.now(), ""
        self._looked.set()
        changes = () if first else vm_changes(before, vms)
        try:
            if changes:
                self._told(changes)
            if away:
                self.answered()
        except Exception:  # noqa: BLE001 - it says nothing about libvirt
            _log.exception("Not everybody was told of changes to VMs.")

    def _fail(self, trouble: str) -> None:
        with self._lock:
            self._trouble = trouble
        self._looked.set()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._lock:
            self._asked = self._clock.now()
        try:
            yield
        finally:
            with self._lock:
                self._asked = None
