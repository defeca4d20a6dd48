"""Thaws a frozen guest even if we are killed: a mark on disk and a watchdog process.

The watchdog is this module run as a program. It waits for a line or the end of its stdin,
which comes with our death, or for too long a time; without a line it connects to libvirt and
thaws. The mark (in the runtime directory, so that a reboot forgets it) lets the next run thaw
should the watchdog have been killed too.
"""

import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vm_babysitter.adapters import process
from vm_babysitter.lib.atomicfile import fsync_directory, write_new

log = logging.getLogger(__name__)

LONGEST = 60.0
"""Seconds after which the watchdog thaws although we live: two agent time-outs and a job start."""
_READY_SECONDS = 10.0
_TRIES = 30
_PAUSE = 1.0
_MARK = "frozen-"


class WatchdogGuard:
    """Implements ``ports.FreezeGuard``."""

    def __init__(self, runtime: Path, uri: str) -> None:
        """Keep marks in ``runtime``; the watchdog connects to ``uri``."""
        self._runtime = runtime
        self._uri = uri

    @contextlib.contextmanager
    def watch(self, vm_uuid: str) -> Iterator[None]:
        """See the port."""
        self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = self._mark(vm_uuid)
        watchdog = process.start_survivor(
            [sys.executable, "-m", __name__, self._uri, vm_uuid, str(mark)]
        )
        try:
            if not watchdog.wait_for_line(_READY_SECONDS):
                log.warning("the watchdog that would thaw the guest did not start")
            owner = f"{os.getpid()} {_start_of(os.getpid())}\n"
            write_new(mark, owner.encode(), replace=True)
            fsync_directory(self._runtime)
            yield
        finally:
            # Only after the thaw, which is inside the context.
            mark.unlink(missing_ok=True)
            watchdog.dismiss()

    def leftovers(self) -> tuple[str, ...]:
        """See the port."""
        marks = sorted(self._runtime.glob(f"{_MARK}*"))
        return tuple(mark.name.removeprefix(_MARK) for mark in marks if not _owner_lives(mark))

    def forget(self, vm_uuid: str) -> None:
        """See the port."""
        self._mark(vm_uuid).unlink(missing_ok=True)

    def _mark(self, vm_uuid: str) -> Path:
        return self._runtime / f"{_MARK}{vm_uuid}"


def _owner_lives(mark: Path) -> bool:
    try:
        pid, started = mark.read_text().split()
        return _start_of(int(pid)) == started
    except (OSError, ValueError):
        return False


def _start_of(pid: int) -> str:
    """Return when a process began (clock ticks since boot), to tell it from a later namesake."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()[19]


def _watch(uri: str, vm_uuid: str, mark: Path) -> None:
    from vm_babysitter.adapters.libvirt.connection import Connection
    from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
    from vm_babysitter.adapters.qemu import img

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ready, _, _ = select.select([sys.stdin], [], [], LONGEST)
    if ready and sys.stdin.readline():
        return
    for _ in range(_TRIES):
        if not mark.exists():
            return
        with contextlib.suppress(Exception):
            with Connection(uri) as connection:
                failure = LibvirtHypervisor(connection, img.info).thaw(vm_uuid)
            if not failure:
                mark.unlink(missing_ok=True)
                return
        time.sleep(_PAUSE)


if __name__ == "__main__":
    _watch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
