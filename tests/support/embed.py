"""libvirt's QEMU driver inside a process, without any daemon: ``qemu:///embed?root=DIR``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.libvirt_host import Worker, kill_emulators, write_qemu_conf


class EmbeddedLibvirt:
    """A private embedded libvirt under ``root`` (a LibvirtHost).

    One process at a time can have it open, from its first ``libvirt.open`` until it **ends**
    (closing the connection does not release it). The harness therefore opens it in processes
    of its own: for one ``call``, or as long as ``connect`` lasts. In between it is free for a
    command under test. VMs go on without anybody; whoever opens it next takes them over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"qemu:///embed?root={root}"
        self._worker: Worker | None = None
        write_qemu_conf(root / "etc")

    def call(self, operation: str, *arguments: object) -> object:
        """Run one operation, within the open connection if there is one."""
        if self._worker is not None:
            return self._worker.call(operation, *arguments)
        with self.connect() as worker:
            return worker.call(operation, *arguments)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Worker]:
        """Hold the root; nobody else can open it meanwhile."""
        if self._worker is not None:
            raise RuntimeError("the embedded libvirt is already open")
        with Worker(self.uri, self.root / "worker.log") as worker:
            self._worker = worker
            try:
                yield worker
            finally:
                self._worker = None

    def close(self) -> None:
        """Kill the VMs that are left."""
        kill_emulators(self.root)
