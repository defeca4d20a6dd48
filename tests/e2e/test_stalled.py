"""Stopping a backup whose QEMU does not answer any more."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, VmFactory
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.errors import Cancelled
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel


class StallsQemu:
    """An observer that stops QEMU once data flows, asks for cancelling, and lets QEMU go on."""

    def __init__(self, pid: int, cancel: Cancel) -> None:
        self._pid = pid
        self._cancel = cancel
        self._stalled = False
        self.asked = self.noticed = 0.0

    def step(self, name: str) -> None:
        if name == "roll back":
            self.noticed = time.monotonic()
            os.kill(self._pid, signal.SIGCONT)

    def progress(self, done: int, total: int) -> None:
        if self._stalled or done == total:
            return
        self._stalled = True
        os.kill(self._pid, signal.SIGSTOP)
        threading.Timer(1.0, self._ask).start()

    def note(self, text: str) -> None:
        """Ignore it."""

    def _ask(self) -> None:
        self.asked = time.monotonic()
        self._cancel.request()


def test_a_backup_is_stopped_at_once_though_qemu_is_stalled(
    libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path
) -> None:
    test_vm = vm(disks=(DiskSpec(size=256 * MIB),))
    test_vm.start()
    for position in range(0, 256, 64):
        test_vm.write("vda", position * MIB, 64 * MIB, 0x11 + position)
    (tmp_path / "store").mkdir()
    cancel = Cancel()
    observer = StallsQemu(test_vm.pid, cancel)
    place = Place(libvirtd.uri, tmp_path / "store", allow_ram_store=True)
    with Standalone(place, observer, cancel).backup() as work, pytest.raises(Cancelled):
        work.run(test_vm.name)
    assert observer.asked > 0
    assert observer.noticed - observer.asked < 2
    assert test_vm.state == "paused"


def test_ctrl_c_ends_the_command_though_neither_qemu_nor_libvirt_answers(
    libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path
) -> None:
    test_vm = vm(disks=(DiskSpec(size=256 * MIB),))
    test_vm.start()
    for position in range(0, 256, 64):
        test_vm.write("vda", position * MIB, 64 * MIB, 0x11 + position)
    store = tmp_path / "store"
    store.mkdir()
    tool = [sys.executable, "-m", "vm_babysitter", "--standalone", "--uri", libvirtd.uri]
    command = [*tool, "--store", str(store), "--allow-ram-store", "backup", test_vm.name]
    # Slow enough to be caught in the middle, however busy the machine is.
    process = subprocess.Popen([*command, "--limit", "40M"], stderr=subprocess.PIPE, text=True)
    while not any(image.stat().st_size for image in store.glob("*/*/*/vda.qcow2")):
        assert process.poll() is None
        time.sleep(0.001)
    pid = test_vm.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)  # the second one does not wait for anybody
        _, said = process.communicate(timeout=5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert process.returncode == 130
    assert "the next run cleans up" in said
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "which was interrupted, was undone" in done.stderr
