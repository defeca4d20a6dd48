"""A real guest that writes faster than there is working space: the backup gives way, never it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conftest import private_root
from tests.support.faulty import Fault
from tests.support.guest import Guest, guest_on, wait_until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.qemu_img import run
from tests.support.vm import MIB, DiskSpec, copy_content
from tests.support.world import environment

NAME = "a 'busy' guest"
DISK = 24 * MIB
POOL = 44 * MIB
"""Holds the disk and less working space than the disk may need; 16 MiB of it are reserved."""
COPYING = Fault("stop", "step", "copy")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest whose second disk, full of data, lies on a small pool."""
    folder = tmp_path_factory.mktemp("guest")
    # Mounted before libvirtd begins: mounts that come later are none in its namespace.
    with private_root() as root, ram_disk(root / "pool", POOL) as pool:
        host = PrivateLibvirtd(root)
        disk = DiskSpec("vdb", size=DISK, path=pool / "vdb.qcow2")
        try:
            host.start()
            with guest_on(host, folder, NAME, [disk]) as guest:
                guest.run(write("zero", 1))
                yield guest
        finally:
            host.close()


def write(source: str, pause: int) -> str:
    """A command that writes the whole disk, a MiB at a time, with pauses (microseconds)."""
    one = f"/bin/busybox dd if=/dev/{source} of=/dev/vdb bs=1M count=1 seek=$n conv=notrunc,fsync"
    return (
        f"n=0; while [ $n -lt {DISK // MIB} ] && {one} 2>/dev/null; "
        f"do n=$((n + 1)); usleep {pause}; done; [ $n = {DISK // MIB} ]"
    )


class Stage:
    """The guest and a backup folder."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.guest = guest
        self.folder = folder
        self.pool = guest.paths["vdb"].parent
        (folder / "store").mkdir()

    @contextmanager
    def backup(
        self, *options: str, faults: Sequence[Fault] = ()
    ) -> Iterator["subprocess.Popen[str]"]:
        """Start a backup."""
        spec = json.dumps([list(asdict(fault).values()) for fault in faults])
        runtime = str(self.guest.host.root / "run" / "vmb")
        program = [sys.executable, "-m", "tests.support.faulty", runtime, spec]
        place = [
            "--standalone",
            "--uri",
            self.guest.host.uri,
            "--store",
            str(self.folder / "store"),
        ]
        command = [*program, *place, "--allow-ram-store", "backup", *options, "--", NAME]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def unharmed(self) -> None:
        """The guest runs, writes, and has seen no error; nothing of ours is left on its pool."""
        assert self.guest.state == "running"
        assert self.guest.writes()
        assert not self.guest.says("I/O error")
        assert [path.name for path in self.pool.iterdir()] == ["vdb.qcow2"]

    def goes_on(self) -> None:
        """The next backup is whole, and holds what the guest wrote."""
        with self.backup() as process:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
        command = [sys.executable, "-m", "vm_babysitter", "--standalone", "--allow-ram-store"]
        to = self.folder / "restored"
        restore = ["--store", str(self.folder / "store"), "restore", NAME, "latest"]
        subprocess.run([*command, *restore, "--to", str(to)], check=True, env=environment())
        now = self.guest.reference("vdb", self.folder / "now.raw")
        was = copy_content(to / "vdb.qcow2", "qcow2", self.folder / "was.raw")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(was), str(now))


@pytest.fixture
def stage(guest: Guest, tmp_path: Path) -> Stage:
    """The guest, running, with nothing in the store."""
    guest.run("true")
    return Stage(guest, tmp_path)


def test_a_backup_gives_way_before_the_space_ends(stage: Stage) -> None:
    with stage.backup("--limit", "1M") as process:
        wait_until(lambda: any(p.suffix == ".scratch" for p in stage.pool.iterdir()))
        wrote = stage.guest.begin(write("urandom", 100_000))
        seen = set()
        while process.poll() is None:
            seen.add(stage.guest.state)
            time.sleep(0.05)
        assert process.returncode == 1
        assert process.stderr is not None
        told = process.stderr.read()
    assert f"The working space of the backup at '{stage.pool}' is running out" in told
    assert seen == {"running"}
    stage.guest.wait_for(wrote, 60)
    stage.unharmed()
    stage.goes_on()


@pytest.mark.parametrize("killed", [False, True], ids=["stalled", "killed"])
def test_a_vm_paused_by_full_working_space_goes_on_without_an_error(
    stage: Stage, killed: bool
) -> None:
    with stage.backup(faults=[COPYING]) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        wrote = stage.guest.begin(write("urandom", 1))
        wait_until(lambda: stage.guest.state == "paused", 60)
        if killed:
            process.kill()
            assert stage.guest.state == "paused"
        else:
            process.send_signal(signal.SIGCONT)
            _, told = process.communicate(timeout=60)
            assert "it goes on now" in told
            assert process.returncode == (1 if "was given up" in told else 3), told
    if killed:
        with stage.backup() as process:
            _, told = process.communicate(timeout=90)
            assert "it goes on now" in told
            assert process.returncode == 3, told
    stage.guest.wait_for(wrote, 60)
    stage.unharmed()
    stage.goes_on()
