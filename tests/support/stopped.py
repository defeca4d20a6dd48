"""A backup that stands still at a chosen moment, so that a test can do something to its world."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.faulty import Fault
from tests.support.world import World


class Stopped:
    """A backup that stands still in the middle."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.out = self.err = ""

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def go_on(self, expect: int, *, or_else: int | None = None) -> float:
        """Let it go on to its end, with this exit code or the other. Returns the seconds."""
        self._process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        self.out, self.err = self._process.communicate(timeout=60)
        code = self._process.returncode
        assert code in {expect, or_else}, (self._process.returncode, self.out, self.err)
        assert "Traceback" not in self.err
        return time.monotonic() - began


@contextmanager
def stopped_command(world: World, *arguments: str, faults: Sequence[Fault]) -> Iterator[Stopped]:
    """Start a command and wait until it stands still at one of the faults."""
    with world.start(*arguments, faults=faults) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), status
            yield Stopped(process)
        finally:
            process.kill()


@contextmanager
def stopped_backup(world: World, *faults: Fault) -> Iterator[Stopped]:
    """Start a backup and wait until it stands still at one of the faults."""
    with stopped_command(world, "backup", "--", world.vm.name, faults=faults) as still:
        yield still
