"""Runs the command line and has something happen at chosen moments; run as a program.

    python -m tests.support.faulty RUNTIME '[["die", "step", "copy", 1]]' --standalone … backup VM

The product has no hooks for this. What it does is seen from outside: the steps and the progress
it tells its observer, the changes of the file system that Python audits, its calls of ``fsync``,
and the calls of its functions that Python's profiler sees.
"""

import errno
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import partial
from pathlib import Path
from types import FrameType

from vm_babysitter import bootstrap
from vm_babysitter.adapters.qemu.exports import NbdExports
from vm_babysitter.adapters.qemu.nbd import Tuning
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.cli.main import run
from vm_babysitter.domain.errors import StoreFailed
from vm_babysitter.engine.app import App, Place
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Observer, ThisHost

FILE_EVENTS = {
    "open": 0,
    "os.link": 1,
    "os.rename": 1,
    "os.remove": 0,
    "os.mkdir": 0,
    "os.rmdir": 0,
}
"""Audited before they happen; the position of the path among the arguments."""


IMPATIENT = 3.0
"""Seconds of silence after which QEMU counts as lost, where that is asked for."""
_AWAKE = 0.1
"""Seconds in which other threads learn of a signal that came while all stood still."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and at which occurrence of what."""

    action: str
    """``die`` (SIGKILL), ``stop`` (SIGSTOP), ``fail`` (raise an error), ``eio`` (as a disk)."""
    kind: str
    """``step``, ``progress``, ``call``, ``return``, ``fsync``, or one of ``FILE_EVENTS``.
    ``impatience`` has no moment: a silent QEMU is given up after ``IMPATIENT`` seconds.
    Nor has ``host``: the program takes itself for one on a host whose identity, name and boot
    are in ``name``, separated by ``|``.
    """
    name: str = ""
    """Of the step or function; of the path a pattern as the shell's."""
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.action} at {self.nth}. {self.kind} {self.name}".strip()


class Faults:
    """Counts what happens and acts when it is time. Safe for threads."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = [(fault, re.compile(translate(fault.name or "*"))) for fault in faults]
        self._left = {index: fault.nth for index, fault in enumerate(faults)}
        self._kinds = {fault.kind for fault in faults}
        self._lock = threading.RLock()

    @property
    def host(self) -> ThisHost | None:
        """The machine that the program is to take for its own; None for the one it is."""
        names = [fault.name for fault, _ in self._faults if fault.kind == "host"]
        return ThisHost(*names[0].split("|")) if names else None

    def watch(self) -> None:
        """Begin to see what the process does."""
        if self._kinds & set(FILE_EVENTS):
            sys.addaudithook(self._audit)
        if self._kinds & {"call", "return"}:
            sys.setprofile(self._profile)
        if "fsync" in self._kinds:
            vars(os)["fsync"] = partial(self._fsync, os.fsync)
        if "impatience" in self._kinds:
            vars(bootstrap)["NbdExports"] = partial(NbdExports, Tuning(timeout=IMPATIENT))

    def reached(self, kind: str, name: str) -> None:
        """Something happens."""
        due = []
        with self._lock:
            for index, (fault, pattern) in enumerate(self._faults):
                if fault.kind == kind and pattern.match(name):
                    self._left[index] -= 1
                    if self._left[index] == 0:
                        due.append(fault)
        for fault in due:
            _act(fault)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        position = FILE_EVENTS.get(event)
        if position is not None and event in self._kinds:
            self.reached(event, os.fsdecode(_path(arguments[position])))

    def _fsync(self, real: Callable[[int], None], descriptor: int) -> None:
        self.reached("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event in self._kinds:
            self.reached(event, frame.f_code.co_qualname)


def _path(argument: object) -> str | bytes:
    return os.fspath(argument) if isinstance(argument, str | bytes | os.PathLike) else ""


def _act(fault: Fault) -> None:
    if fault.action == "eio":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if fault.action == "fail":
        raise StoreFailed("/injected", f"injected {fault}")
    os.kill(os.getpid(), signal.SIGKILL if fault.action == "die" else signal.SIGSTOP)
    time.sleep(_AWAKE)


class Watched:
    """An observer that also tells the faults."""

    def __init__(self, observer: Observer, faults: Faults) -> None:
        self._observer = observer
        self._faults = faults

    def step(self, name: str) -> None:
        self._observer.step(name)
        self._faults.reached("step", name)

    def progress(self, done: int, total: int) -> None:
        self._observer.progress(done, total)
        self._faults.reached("progress", "")

    def note(self, text: str) -> None:
        self._observer.note(text)


def main() -> None:
    runtime, faults = Path(sys.argv[1]), Faults([Fault(*f) for f in json.loads(sys.argv[2])])

    tpms = runtime.parent / "lib" / "swtpm"  # RUNTIME lies where a private libvirt has its files

    def compose(place: Place, observer: Observer, cancel: Cancel) -> App:
        place = replace(place, runtime=runtime, tpm_roots=(tpms,), host=faults.host)
        return Standalone(place, Watched(observer, faults), cancel)

    faults.watch()
    run(compose, sys.argv[3:])


if __name__ == "__main__":
    main()
