"""libvirt's events, from a real libvirtd: what happens to VMs is known within seconds."""

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import private_root
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import DiskSpec, VmFactory, vms_on
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.libvirt.feed import open_feed
from vm_babysitter.domain.errors import HypervisorUnreachable
from vm_babysitter.domain.vm_changes import Change, VmChange
from vm_babysitter.engine.vm_watch import Rhythm, VmWatch

SECONDS = 10.0
RHYTHM = Rhythm(settle=0.2, look=300.0, reconnect=(0.2,))


class Watching:
    """A watch of a real libvirtd."""

    def __init__(self, uri: str) -> None:
        self.told: queue.Queue[tuple[VmChange, ...]] = queue.Queue()
        self.watch = VmWatch(partial(open_feed, uri), SystemClock(), self.told.put, RHYTHM)
        self.watch.start()
        assert self.watch.wait_first(SECONDS).trouble == ""

    def changes(self) -> list[tuple[Change, str]]:
        return [(change.change, change.vm.name) for change in self.told.get(timeout=SECONDS)]


@pytest.fixture
def watching(libvirtd: PrivateLibvirtd) -> Iterator[Watching]:
    made = Watching(libvirtd.uri)
    yield made
    assert made.watch.stop()


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_vms_that_come_start_stop_and_go(watching: Watching, vm: VmFactory) -> None:
    name = 'My "VM" & co'
    made = vm(name, [DiskSpec("vda")])
    assert watching.changes() == [(Change.APPEARED, name)]
    made.start()
    assert watching.changes() == [(Change.STARTED, name)]
    made.kill()
    assert watching.changes() == [(Change.STOPPED, name)]
    made.undefine()
    assert watching.changes() == [(Change.GONE, name)]


def test_an_edit_that_removes_and_defines_is_no_loss(watching: Watching, vm: VmFactory) -> None:
    made = vm("house", [DiskSpec("vda")])
    assert watching.changes() == [(Change.APPEARED, "house")]
    made.undefine()
    made.paths["vda"] = made.paths["vda"].with_name("other.qcow2")
    made.define_again()
    assert watching.changes() == [(Change.EDITED, "house")]


def test_libvirt_that_restarts_and_hangs(tmp_path: Path) -> None:
    with private_root() as root:
        host = PrivateLibvirtd(root)
        host.start()
        watching = Watching(host.uri)
        try:
            host.kill()
            until(lambda: "cannot be reached" in watching.watch.now().trouble)
            host.start()
            until(lambda: watching.watch.now().trouble == "")
            with vms_on(host, tmp_path) as factory:
                factory("late", [DiskSpec("vda")])
                assert watching.changes() == [(Change.APPEARED, "late")]
                pid = int((root / "libvirtd.pid").read_text())
                os.kill(pid, signal.SIGSTOP)
                try:
                    until(lambda: watching.watch.now().trouble != "", 40)
                finally:
                    os.kill(pid, signal.SIGCONT)
                until(lambda: watching.watch.now().trouble == "")
        finally:
            assert watching.watch.stop()
            host.close()


def test_nobody_there_is_an_error() -> None:
    missing = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    with pytest.raises(HypervisorUnreachable), open_feed(missing):
        pass
