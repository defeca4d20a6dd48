"""Commands that need not import the product first, which takes longer than most of them do.

    python -m tests.support.forked DESCRIPTOR IMPORTS…

imports, and then forks a process for each order. That runs a module as ``python -m`` does, with
arguments, environment, folder and output of its own. In a soak each command is a new interpreter,
as it is for users; and so it is always in the tests of the programs themselves.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self

from tests.support.soak import SOAK

IMPORTS = {
    "tests.support.faulty": ("vm_babysitter.bootstrap", "vm_babysitter.cli.main"),
    "tests.chaos.program": ("tests.support.faulty",),
    "tests.support.daemon": ("vm_babysitter.bootstrap_daemon", "tests.support.world"),
}
"""What each module needs, itself left out: it is run."""
_READ_ONCE = ("PYTHON", "LC_", "LANG", "TZ")
"""Beginnings of the names of variables that an interpreter reads when it starts."""
_LONGEST = 200_000
"""Bytes of an order, nearly all of them environment."""
_SECONDS = 30.0
_parents: dict[tuple[object, ...], "_Parent"] = {}


class Command(Protocol):
    """What a ``subprocess.Popen`` of text and ``Forked`` have in common."""

    returncode: Any

    @property
    def pid(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: Any) -> None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[Any, Any]: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def start(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    stdout: IO[Any] | int,
    stderr: IO[Any] | int,
    cwd: Path | None = None,
) -> Command:
    """Start ``python -m module arguments``, without input."""
    if not SOAK:
        return Forked(module, arguments, env, stdout=stdout, stderr=stderr, cwd=cwd)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        text=True,
    )


class _Parent:
    """The process that commands are forked from, one for a module and its environment."""

    def __init__(self, module: str, env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", __name__, str(number), *IMPORTS[module]]
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, pass_fds=[number]
            )
        atexit.register(self.close)

    @classmethod
    def of(cls, module: str, env: Mapping[str, str]) -> "_Parent":
        key = (module, *sorted(i for i in env.items() if i[0].startswith(_READ_ONCE)))
        if key not in _parents:
            _parents[key] = cls(module, env)
        return _parents[key]

    def fork(self, order: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Have a process forked; returns its id."""
        socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
        return int(self._socket.recv(64))

    def close(self) -> None:
        """End it; those that were forked go on."""
        self._socket.close()
        self.process.wait(_SECONDS)


class Forked:
    """A process that a third one has forked; it is told how it ended through a pipe."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        stdout: IO[Any] | int,
        stderr: IO[Any] | int,
        cwd: Path | None,
    ) -> None:
        self.returncode: int | None = None
        self._streams: list[int | None] = []
        order = {
            "module": module,
            "arguments": list(arguments),
            "env": dict(env),
            "cwd": str(cwd or Path.cwd()),
        }
        with contextlib.ExitStack() as stack:
            theirs = [self._output(given, stack) for given in (stdout, stderr)]
            self._status, status = os.pipe()
            stack.callback(os.close, status)
            self.pid = _Parent.of(module, env).fork(order, [*theirs, status])

    def _output(self, given: IO[Any] | int, stack: contextlib.ExitStack) -> int:
        if given != subprocess.PIPE:
            self._streams.append(None)
            return given if isinstance(given, int) else given.fileno()
        ours, theirs = os.pipe()
        self._streams.append(ours)
        stack.callback(os.close, theirs)
        return theirs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()
        self.wait()

    def poll(self) -> int | None:
        """Return how it ended, None if it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(os.read(self._status, 64))
            os.close(self._status)
        return self.returncode

    def communicate(
        self, input: None = None, timeout: float | None = None
    ) -> tuple[str | None, str | None]:
        """Read all that it prints, and wait for its end; raises ``TimeoutExpired``."""
        assert input is None
        until = None if timeout is None else time.monotonic() + timeout
        read = {stream: bytearray() for stream in self._streams if stream is not None}
        with selectors.DefaultSelector() as selector:
            for stream in read:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_left(until))
                if not ready and _left(until) == 0:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
                for key, _ in ready:
                    piece = os.read(key.fd, 1 << 16)
                    read[key.fd] += piece
                    if not piece:
                        selector.unregister(key.fd)
        self.wait(_left(until))
        out, err = (None if s is None else read[s].decode() for s in self._streams)
        self._close()
        return out, err

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _close(self) -> None:
        for stream in self._streams:
            if stream is not None:
                os.close(stream)
        self._streams = [None, None]


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _serve(orders: socket.socket) -> dict[str, Any] | None:
    """Fork for each order, and tell how each fork ended.

    Returns the order in each fork, and None at the end of all orders.
    """
    running: dict[int, tuple[int, int]] = {}  # by the pidfd
    while True:
        for ready in select.select([orders.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                    os.write(status, str(code).encode())
                os.close(status)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(orders, _LONGEST, 3)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                return _begin(dict(json.loads(message)), orders, descriptors)
            for descriptor in descriptors[:2]:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = (pid, descriptors[2])


def _begin(order: dict[str, Any], orders: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    """Become a process of its own, and tell so when it is."""
    try:
        for number, descriptor in enumerate(descriptors[:2], 1):
            os.dup2(descriptor, number)
        os.dup2(orders.detach(), 3)
        os.closerange(4, 1 << 16)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
    finally:
        os.write(3, str(os.getpid()).encode())
        os.close(3)
    sys.path[0] = order["cwd"]
    sys.argv = ["-m", *order["arguments"]]
    return order


def main() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    order = _serve(orders)
    if order is not None:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
