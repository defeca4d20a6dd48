"""libvirt's embedded QEMU driver inside the process of the tests."""

import contextlib
import ctypes
import os
import threading
from pathlib import Path

import libvirt

from tests.support.libvirt_host import LibvirtRefused, kill_emulators, write_qemu_conf
from tests.support.libvirt_worker import Operations
from vm_babysitter.adapters.libvirt.connection import Connection

_PR_SET_CHILD_SUBREAPER = 36


class EmbeddedHere:
    """A private embedded libvirt under ``root`` (a LibvirtHost) that this process keeps open.

    A process can open such roots about 16 times in its life, so one connection serves both the
    tests and the adapter they test.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"qemu:///embed?root={root}"
        # QEMU becomes a child of ours then, and is buried as soon as it is dead; some machines
        # have an init that takes a second for that, and libvirt waits for it.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._closed = threading.Event()
        threading.Thread(target=self._bury, name="undertaker", daemon=True).start()
        write_qemu_conf(root / "etc")
        self.connection = Connection(self.uri)
        self._operations = Operations(self.connection.handle)

    def call(self, operation: str, *arguments: object) -> object:
        """Run one operation."""
        try:
            result: object = getattr(self._operations, operation)(*arguments)
        except libvirt.libvirtError as error:
            raise LibvirtRefused(error.get_error_code(), str(error)) from error
        return result

    def close(self) -> None:
        """Kill the VMs that are left."""
        kill_emulators(self.root)
        self.connection.close()
        self._closed.set()

    def _bury(self) -> None:
        """Wait for every QEMU that became our child, those of other roots and daemons included."""
        known: set[int] = set()
        while not self._closed.wait(0.02):
            for pid in _children() - known:
                if _name(pid).startswith("qemu-system") and _is_orphan(pid):
                    known.add(pid)
                    threading.Thread(target=_wait, args=(pid,), daemon=True).start()


def _children() -> set[int]:
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in file.read_text().split()}
    return found


def _is_orphan(pid: int) -> bool:
    """Whether it left our session, as a daemon does: libvirt waits for its other children."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return False


def _name(pid: int) -> str:
    """What a process is called, dead and not buried ones included; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
