"""Thaws a frozen guest even if we are killed: a mark on disk and a watchdog process.

The watchdog is this module run as a program. It waits for a line on its stdin, or for the end
of it, which comes with our death, or for too long a time; without a line it connects to libvirt
and thaws. The mark (in the runtime directory, so that a reboot forgets it) lets the next run
thaw should the watchdog have been killed too.

A mark is for one VM of one libvirt: another one may have none of that UUID, or one that is off, and
would not know whether something is frozen.

A mark reads ``<pid> <start of it> <pid of the watchdog>``. A watchdog whose pid it no longer
names is not responsible any more: thawing could end a freeze that a later run has begun.
"""

import contextlib
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from vm_babysitter.adapters import process
from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.errors import ProgramMissing, VmNotFound
from vm_babysitter.lib.atomicfile import write_atomically

log = logging.getLogger(__name__)

LONGEST = 60.0
"""Seconds after which the watchdog thaws although we live: all agent time-outs, a job start."""
PAUSES = (1.0,) * 60 + (10.0,) * 354
"""Seconds between the watchdog's tries to thaw: an hour in all, then it is up to the next run."""
_READY_SECONDS = 10.0
_MARK = "frozen-"
_DIGITS = 16
"""Of the digest that tells one libvirt's marks from another's."""
_NOBODY = "0 0"


class WatchdogGuard:
    """Implements ``ports.FreezeGuard``."""

    def __init__(self, runtime: Path, uri: str, longest: float = LONGEST) -> None:
        """Keep marks in ``runtime``; the watchdog connects to ``uri``."""
        self._runtime = runtime
        self._uri = uri
        self._suffix = f"-{blake3(uri.encode(errors='surrogateescape')).hexdigest()[:_DIGITS]}"
        self._longest = longest

    @contextlib.contextmanager
    def watch(self, vm_uuid: str) -> Iterator["Watch"]:
        """See the port."""
        mark = self._mark(vm_uuid)
        watch = Watch(mark)
        try:
            watch.begin([self._uri, vm_uuid, str(mark), str(self._longest)])
            yield watch
        finally:
            watch.end()

    def leftovers(self) -> tuple[str, ...]:
        """See the port."""
        marks = sorted(self._runtime.glob(f"{_MARK}*{self._suffix}"))
        left = [mark.name for mark in marks if mark.exists() and not _is_owned(mark)]
        return tuple(name.removeprefix(_MARK).removesuffix(self._suffix) for name in left)

    def forget(self, vm_uuid: str) -> None:
        """See the port."""
        self._mark(vm_uuid).unlink(missing_ok=True)

    def _mark(self, vm_uuid: str) -> Path:
        return self._runtime / f"{_MARK}{vm_uuid}{self._suffix}"


class Watch:
    """Implements ``ports.FreezeWatch``."""

    def __init__(self, mark: Path) -> None:
        self.unfit = ""
        self._mark = mark
        self._watchdog: process.Survivor | None = None
        self._thawed = False

    def begin(self, arguments: list[str]) -> None:
        """Start the watchdog, then put down the mark; ``unfit`` says what went wrong."""
        if _is_owned(self._mark):
            self.unfit = "another backup has the guest frozen"
            return
        try:
            self._mark.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._watchdog = process.start_survivor(
                [sys.executable, "-P", "-m", __name__, *arguments]
            )
            if not self._watchdog.wait_for_line(_READY_SECONDS):
                self.unfit = "the watchdog that would thaw the guest did not start"
            else:
                self._write(f"{os.getpid()} {_start_of(os.getpid())}")
        except (OSError, ProgramMissing) as error:
            self.unfit = f"thawing the guest could not be made sure of: {error}"

    def thawed(self) -> None:
        """See the port."""
        self._thawed = True

    def end(self) -> None:
        """Send the watchdog home if all is well, else leave the guest to it."""
        if self._watchdog is None:
            return
        try:
            if self._thawed or self.unfit:
                if _is_for(self._mark, self._watchdog.pid):
                    self._mark.unlink(missing_ok=True)
            else:
                self._write(_NOBODY)
        except OSError as error:
            log.warning("the mark of a frozen guest could not be changed: %s", error)
        if self._thawed or self.unfit:
            self._watchdog.dismiss()
        else:
            self._watchdog.leave()

    def _write(self, owner: str) -> None:
        if self._watchdog is not None:
            write_atomically(self._mark, f"{owner} {self._watchdog.pid}\n".encode())


def _read(mark: Path) -> list[str]:
    try:
        return mark.read_text().split()
    except (OSError, ValueError):
        return []


def _is_for(mark: Path, watchdog: int) -> bool:
    """Whether a mark is there and names this watchdog."""
    return _read(mark)[2:] == [str(watchdog)]


def _is_owned(mark: Path) -> bool:
    """Whether a mark is there and the process that wrote it lives."""
    match _read(mark):
        case [pid, started, _] if pid.isdecimal():
            return _start_of(int(pid)) == started
    return False


def _start_of(pid: int) -> str:
    """Return when a process began (clock ticks since boot), to tell it from a later namesake.

    Empty if there is none, or it is dead and only not buried yet.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]


def keep_watch(
    stdin: int, longest: float, is_mine: Callable[[], bool], thaw: Callable[[], AgentAnswer]
) -> bool:
    """Do the watchdog's work; return whether it thawed in place of an owner that is gone.

    Args:
        stdin: brings a line when we are not needed, and ends when our owner does.
        longest: seconds of silence after which to thaw although the owner lives.
        is_mine: whether the mark is there and ours; while it is not, nothing is thawed.
        thaw: tries to; what it raises means that it did not work.
    """
    while True:
        ready, _, _ = select.select([stdin], [], [], longest)
        if ready and os.read(stdin, 1):
            return False
        thawed = _thaw_at_last(is_mine, thaw)
        if ready:
            return thawed
        # An owner that only slept may be about to freeze: the watch goes on.


def _thaw_at_last(is_mine: Callable[[], bool], thaw: Callable[[], AgentAnswer]) -> bool:
    for pause in PAUSES:
        if not is_mine():
            return False
        with contextlib.suppress(Exception):
            if not thaw().refusal:
                return True
        threading.Event().wait(pause)
    return False


def main() -> None:
    """Be the watchdog."""
    # Before the freeze: nothing may have to be loaded from a disk while it lasts.
    from vm_babysitter.adapters.libvirt.connection import Connection
    from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
    from vm_babysitter.adapters.qemu import img

    uri, vm_uuid, mark, longest = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])

    def is_mine() -> bool:
        return _is_for(mark, os.getpid())

    def thaw() -> AgentAnswer:
        with Connection(uri) as connection:
            try:
                return LibvirtHypervisor(connection, img.info).thaw(vm_uuid)
            except VmNotFound:
                return AgentAnswer()  # it is gone, and what was frozen in it

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if keep_watch(sys.stdin.fileno(), longest, is_mine, thaw) and is_mine():
        mark.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
