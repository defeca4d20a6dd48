"""Start other programs. The only module that may use ``subprocess``.

Whatever we start has the priority of the thread that starts it, and ends with us, if not said
otherwise, even when we are killed with SIGKILL, which leaves no moment to clean up. The kernel
offers that as PR_SET_PDEATHSIG, with two traps:

* It has to be set in the child. ``preexec_fn`` would run Python between fork and exec, which
  is unsafe while other threads run. So we start a tiny Python (``_SHIM``, about 10 ms), which
  sets it and then *becomes* the program: same pid, same process group, no wrapper remains.
* The signal comes when the *thread* that forked ends, not the process. A job's worker thread
  would take its children along. So one thread, which never ends, does all the forking. It has a
  priority of its own, so the child is told which one to take.

The signal reaches the child itself, not its children; programs that fork helpers (rsync, ssh)
see their pipes close.
"""

import logging
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from vm_babysitter.domain.errors import CommandFailed, ProgramMissing

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds a child is given between the request to end and the kill."""

_TAIL = 4000  # bytes of a program's output that go into an error

# Between our fork and the prctl we may already have died: then nobody would send the signal,
# which the parent's pid tells.
_SHIM = """
import ctypes, os, signal, sys
if int(sys.argv[1]):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]): os._exit(125)
try: os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[2]))
except PermissionError: pass  # only root may go up again
for ignored_by_python in signal.SIGPIPE, signal.SIGXFSZ:
    signal.signal(ignored_by_python, signal.SIG_DFL)
os.execv(sys.argv[3], sys.argv[4:])
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left behind."""

    status: int
    """Exit status; negative: the signal that ended it."""
    stdout: str
    stderr: str


class Child:
    """A program that runs beside us. Made by `start`."""

    def __init__(self, argv: Sequence[str], process: subprocess.Popen[bytes], errors: IO[bytes]):
        self.program = os.path.basename(argv[0])  # noqa: PTH119 - a name, not a path we open
        self._process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        """The process id, also that of its process group."""
        return self._process.pid

    def exited(self, timeout: float = 0.0) -> bool:
        """Wait up to ``timeout`` seconds for the child to end and tell whether it has."""
        return self._process.returncode is not None or _wait(self.pid, timeout)

    def stderr_tail(self) -> str:
        """Return the end of what the child has said on stderr so far."""
        size = os.fstat(self._errors.fileno()).st_size
        tail = os.pread(self._errors.fileno(), _TAIL, max(0, size - _TAIL))
        return tail.decode("utf-8", "replace").strip()

    def stop(self, grace: float = GRACE) -> int:
        """Ask the child to end, kill it after ``grace`` seconds, and return its exit status."""
        if self._process.returncode is None:
            _end(self._process, grace)
            log.debug("%s (pid %d) ended with %d", self.program, self.pid, self._process.returncode)
        return self._process.returncode

    def failure(self) -> CommandFailed:
        """Return the error that says how the child, which has ended, failed."""
        return CommandFailed(self.program, self.stop(), self.stderr_tail())


def run(argv: Sequence[str], *, timeout: float, input: str | None = None) -> str:
    """Run a program to its end and return what it wrote to stdout.

    Args:
        argv: the program, by name or absolute path, and its arguments.
        timeout: seconds after which it is killed.
        input: what it reads on stdin; nothing by default.

    Raises:
        ProgramMissing: the program is not installed.
        CommandFailed: it failed or took too long; with the end of its stderr.
    """
    finished = execute(argv, timeout=timeout, input=input)
    if finished.status != 0:
        output = (finished.stderr or finished.stdout).strip()[-_TAIL:]
        raise CommandFailed(argv[0], finished.status, output)
    return finished.stdout


def execute(
    argv: Sequence[str], *, timeout: float, input: str | None = None, finish: bool = False
) -> Finished:
    """Run a program to its end and return its exit status and output, like `run`.

    For programs whose exit status is an answer. With ``finish`` it goes on to its end even if
    we are interrupted or killed: for short work that is better not left half done.

    Raises:
        ProgramMissing: the program is not installed.
        CommandFailed: it took too long.
    """
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    process = _spawn(argv, stdin, subprocess.PIPE, subprocess.PIPE, finish=finish)
    try:
        data = None if input is None else os.fsencode(input)
        stdout, stderr = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process, grace=0)
        reason = f"did not end within {timeout:g} seconds"
        raise CommandFailed(argv[0], process.returncode, reason) from None
    except BaseException:
        if finish:
            _reap(process)
        else:
            _end(process, grace=0)
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()
    log.debug("%s ended with %d", argv[0], process.returncode)
    return Finished(process.returncode, os.fsdecode(stdout), os.fsdecode(stderr))


@contextmanager
def start(
    argv: Sequence[str], *, grace: float = GRACE, told: Sequence[str] | None = None
) -> Iterator[Child]:
    """Run a program beside us, in a process group of its own, for the time of the context.

    At the end of the context the group is asked to end, killed after ``grace`` seconds, and
    reaped, whatever happened. Its stdout goes nowhere, its stderr is kept for errors. ``told`` is
    what the log has in place of ``argv``, which may hold secrets of a user's.

    Raises:
        ProgramMissing: the program is not installed.
    """
    with tempfile.TemporaryFile(prefix="vmb-stderr-") as errors:
        process = _spawn(argv, subprocess.DEVNULL, subprocess.DEVNULL, errors, told=told)
        child = Child(argv, process, errors)
        try:
            yield child
        finally:
            child.stop(grace)


class Survivor:
    """A program that goes on when we die; it learns of that by the end of its stdin."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait_for_line(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for a line on its stdout; tell whether one came."""
        stdout = self._process.stdout
        if stdout is None:  # it was started with a pipe there
            return False
        ready, _, _ = select.select([stdout], [], [], timeout)
        return bool(ready) and stdout.readline() != b""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def leave(self) -> None:
        """Let it learn now what it would learn by our end. It goes on by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        _reap(self._process)

    def dismiss(self) -> None:
        """Say that it is not needed: it reads a line, and is reaped."""
        try:
            self._process.communicate(b"done\n", timeout=GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def start_survivor(argv: Sequence[str]) -> Survivor:
    """Start a program in a session of its own that outlives us, even if we are killed.

    Its stdin is a pipe that ends when we do.

    Raises:
        ProgramMissing: the program is not installed.
    """
    program = shutil.which(argv[0])
    if program is None:
        raise ProgramMissing(argv[0])
    process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
        [program, *argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log.debug("started %r as pid %d, to outlive us", list(argv), process.pid)
    return Survivor(process)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Have a program that goes on buried if it ends before us."""
    threading.Thread(target=process.wait, name="mourner", daemon=True).start()


def _spawn(
    argv: Sequence[str],
    stdin: int,
    stdout: int,
    stderr: int | IO[bytes],
    *,
    finish: bool = False,
    told: Sequence[str] | None = None,
) -> subprocess.Popen[bytes]:
    program = shutil.which(argv[0])
    if program is None:
        raise ProgramMissing(argv[0])
    until = "0" if finish else str(os.getpid())
    priority = str(os.getpriority(os.PRIO_PROCESS, 0))
    shim = [sys.executable, "-I", "-S", "-c", _SHIM, until, priority, program]
    process = _forker().call(
        lambda: subprocess.Popen(  # noqa: S603 - an argument list, no shell
            [*shim, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
            env={**os.environ, "LC_ALL": "C.UTF-8"},  # messages that we and the user can read
        )
    )
    log.debug("started %r as pid %d", list(argv if told is None else told), process.pid)
    return process


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a child and its whole process group, and reap it."""
    if process.returncode is not None:
        return
    if grace > 0:
        os.killpg(process.pid, signal.SIGTERM)
        _wait(process.pid, grace)
    # Not reaped yet, so the pid cannot have been given to somebody else. Helpers that the
    # program left behind in its group go too.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(pid: int, timeout: float) -> bool:
    """Wait for a child to end without reaping it; tell whether it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(descriptor)


class _Forker:
    """The thread that forks (see the module's text). It lives as long as the process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._calls: queue.SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="forker", daemon=True).start()

    def call(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        self._calls.put((spawn, future))
        try:
            return future.result()
        except BaseException:
            # We were interrupted while it starts: nobody would know the child.
            future.add_done_callback(_abandon)
            raise

    def _serve(self) -> None:
        while True:
            spawn, future = self._calls.get()
            try:
                future.set_result(spawn())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                future.set_exception(error)


def _abandon(future: "Future[subprocess.Popen[bytes]]") -> None:
    if future.exception() is None:
        _end(future.result(), grace=0)


_lock = threading.Lock()
_current: _Forker | None = None


def _forker() -> _Forker:
    global _current  # noqa: PLW0603 - one thread per process is the point
    with _lock:
        if _current is None or _current.owner != os.getpid():  # threads do not survive a fork
            _current = _Forker()
        return _current
