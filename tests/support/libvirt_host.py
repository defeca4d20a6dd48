"""A libvirt of the tests' own, whatever its kind, and the process that talks to it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Protocol, Self, cast

_WORKER = Path(__file__).with_name("libvirt_worker.py")


class LibvirtRefused(Exception):
    """libvirt refused what a test asked for; ``number`` is its error code."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"{message} ({number})")
        self.number = number


class LibvirtHost(Protocol):
    """A libvirt that only the tests know."""

    @property
    def root(self) -> Path:
        """All its files lie under this folder; its path is short."""

    @property
    def uri(self) -> str:
        """How to connect to it."""

    def call(self, operation: str, *arguments: object) -> object:
        """Run one operation of ``libvirt_worker``. Raises LibvirtRefused."""


class Worker:
    """A process with a connection to ``uri``; a context manager that ends it."""

    def __init__(self, uri: str, log: Path) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER), uri],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, operation: str, *arguments: object) -> object:
        """Run one operation. Raises LibvirtRefused, also where connecting failed."""
        request = json.dumps({"operation": operation, "arguments": arguments})
        stdin = cast(IO[str], self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it could not connect, and said why
            stdin.write(request + "\n")
            stdin.flush()
        line = cast(IO[str], self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"the libvirt worker ended during {operation!r}")
        reply = json.loads(line)
        if "error" in reply:
            raise LibvirtRefused(*reply["error"])
        return cast(object, reply["result"])

    def close(self) -> None:
        """End the process, and with it the connection. VMs go on."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                cast(IO[str], stream).close()
        self._process.wait(30)

    def kill(self) -> None:
        """End the process without any warning."""
        self._process.kill()
        self.close()


def write_qemu_conf(folder: Path, user: str = "root") -> None:
    """Write the settings under which QEMU runs as ``user``, without helpers of a whole system."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qemu.conf").write_text(
        f'user = "{user}"\n'
        f'group = "{user}"\n'
        'swtpm_user = "root"\n'  # which alone gets through to our temporary folder
        'swtpm_group = "root"\n'
        'security_driver = "none"\n'
        'stdio_handler = "file"\n'  # no virtlogd
        "cgroup_controllers = []\n"
        "namespaces = []\n"
    )


def kill_and_wait(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill a process, a child of ours or not, and wait until it is dead. Gone is fine."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, how)
        select.select([descriptor], [], [], 30)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def kill_emulators(root: Path, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill every QEMU that libvirt started under ``root``."""
    for file in (root / "run" / "qemu").glob("*.pid"):
        pid = int(file.read_text().strip() or "0")
        if file.name != "driver.pid" and _belongs_to(pid, root):
            kill_and_wait(pid, how)


def end_emulators(root: Path) -> None:
    """Have every QEMU that libvirt started under ``root`` end in good order."""
    kill_emulators(root, signal.SIGTERM)


def _belongs_to(pid: int, root: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"qemu-system" in command and os.fsencode(root) in command
