"""`make demo`: a VM is backed up in all its states and restored, told in plain words.

All of it happens under a temporary folder with a libvirt of its own inside this process's
children; the system's libvirt and VMs are never touched.
"""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.demo.daemon import DemoDaemon
from tests.demo.listener import Listener
from tests.support.embed import EmbeddedLibvirt
from tests.support.vm import MIB, DiskSpec, TestVm, copy_content, kvm_works
from vm_babysitter.lib.units import format_bytes, format_duration

VM = 'My "VM" & co'
OTHERS = ["router", "lost", "mail"]
KIB = 1024
FORMATS = {"vda": "qcow2", "vdb": "qcow2", "vdc": "raw"}
_LIBVIRTS = re.compile(r"$|[-0-9]+ [.:+0-9]+: \d+: (info|warning|error) : ")
_KILL_TRIES = 5
_ROUND = 3.0
"""Seconds in which a run of the autostart looks at all VMs once."""
_ROOM = 3 * 1024 * MIB


class Demo:
    """The story, step by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "backups"
        self.libvirt = EmbeddedLibvirt(folder / "libvirt")
        self.chance = random.Random(2026)
        self.references: dict[str, dict[str, Path]] = {}
        self.compared = self.identical = self.made = 0
        for name in ("backups", "disks", "references"):
            (folder / name).mkdir()

    def run(self) -> bool:
        """Tell the story; return whether every comparison came out identical."""
        say(f"Everything happens in {self.folder} and is removed at the end.")
        if not kvm_works():
            say("This machine has no KVM; QEMU emulates, which takes longer.")
        vm = self.make_vm()
        try:
            self.first_backups(vm)
            self.verify()
            self.killed_backup(vm)
            self.off(vm)
            self.power_cut(vm)
            self.bit_flip(vm)
            self.by_itself(vm)
            self.in_order()
            self.restore_all()
            self.restore_by_hand()
        finally:
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                vm.kill()
            vm.remove()
        print(f"\ndemo: {self.identical} of {self.compared} restore points identical")
        return 0 < self.compared == self.identical

    def make_vm(self) -> TestVm:
        title("A VM runs")
        unmap = (("discard", "unmap"),)
        disks = (
            DiskSpec("vda", size=512 * MIB, driver=unmap),
            DiskSpec("vdb", size=64 * MIB, cluster_size=4 * KIB, driver=unmap),
            DiskSpec("vdc", size=64 * MIB, format="raw", driver=unmap),
        )
        vm = TestVm(self.libvirt, self.folder / "disks", VM, disks)
        vm.start(running=True)
        self.fill(vm, "vda", 0, 128)
        self.fill(vm, "vdb", 8, 16)
        self.fill(vm, "vdc", 0, 32)
        say(f"{VM!r} runs with two qcow2 disks and a raw one; 176 MiB of their 640 are in use.")
        self.command("vms")
        return vm

    def first_backups(self, vm: TestVm) -> None:
        title("A full backup while it runs, then three increments")
        self.backup(vm, "The first backup reads all that is in use.")
        vm.write("vda", 3 * MIB, 5 * MIB, 0x11)
        vm.write("vdb", 9 * MIB + 1536, 40 * KIB, 0x22)
        vm.write("vdc", 5 * MIB, 64 * KIB, 0x66)
        self.backup(
            vm,
            "The VM overwrites 5 MiB, 40 KiB and 64 KiB. A raw disk cannot tell what has changed: "
            "it is read as a whole, and what differs is stored.",
        )
        self.command("plan", VM)
        vm.zero("vda", 20 * MIB, 6 * MIB)
        vm.discard("vda", 40 * MIB, 8 * MIB)
        vm.zero("vdb", 12 * MIB, 1 * MIB)
        self.backup(vm, "It writes zeros over 7 MiB and discards 8 MiB (as fstrim does).")
        for _ in range(200):
            vm.write("vda", self.chance.randrange(0, 500 * MIB, 4 * KIB), 4 * KIB, 0x33)
        self.backup(vm, "It writes 200 blocks of 4 KiB, scattered over the whole disk.")
        self.command("points", VM)

    def verify(self) -> None:
        title("Verify: are the files complete, and would they restore what was backed up?")
        self.command("verify", VM)

    def killed_backup(self, vm: TestVm) -> None:
        title("A fifth backup, killed with kill -9 in the middle")
        for _ in range(_KILL_TRIES):
            self.fill(vm, "vda", 256, 160)
            say("The VM writes another 160 MiB; the backup of that is killed.")
            if self.kill_a_backup():
                break
        else:
            raise RuntimeError("the backup was always faster than the kill")
        vm.write("vda", 1 * MIB, 64 * KIB, 0x44)
        say(f"The VM did not notice: it is {vm.state} and goes on writing.")
        say("The unfinished attempt is no restore point, and its remains are explained:")
        self.command("status", code=3)
        say("The next backup would clean up by itself; `repair` does so at once.")
        self.command("repair", VM)
        self.backup(vm, "The next backup goes on from the same point.")

    def off(self, vm: TestVm) -> None:
        title("The VM is switched off, and backed up all the same")
        vm.write("vda", 50 * MIB, 2 * MIB, 0x55)
        vm.write("vdc", 9 * MIB, 128 * KIB, 0x66)
        vm.stop()
        before = self.stamps(vm)
        self.backup(vm, "It had written 2 MiB and 128 KiB more. It is not started for its backup.")
        untouched = self.stamps(vm) == before
        say(f"It is {vm.state}; its images were {'not ' if untouched else ''}written to.")
        say("A second backup finds nothing to do:")
        self.command("backup", VM)

    def stamps(self, vm: TestVm) -> list[int]:
        return [path.stat().st_mtime_ns for path in vm.paths.values()]

    def power_cut(self, vm: TestVm) -> None:
        title("The power fails: QEMU is killed while the VM writes")
        vm.start(running=True)
        vm.write("vda", 60 * MIB, 1 * MIB, 0x77)
        vm.write("vdb", 20 * MIB, 1 * MIB, 0x77)
        vm.flush("vda")
        vm.flush("vdb")
        vm.kill()
        vm.start(running=True)
        vm.write("vda", 61 * MIB, 1 * MIB, 0x78)
        say("What does that mean for its backups?")
        self.command("plan", VM)
        self.backup(vm, "So it does, and the series goes on; no new full backup is needed.")

    def bit_flip(self, vm: TestVm) -> None:
        title("A bit flips in the backup folder, in the newest restore point")
        vm.write("vda", 62 * MIB, 1 * MIB, 0x79)
        self.backup(vm, "The VM writes another 1 MiB, and is backed up.")
        lost = list(self.references)[-1]
        (folder,) = self.store.glob("*/{}/{}-*".format(*lost.split("/")))
        image = folder / "vda.qcow2"
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 1
        image.write_bytes(content)
        say("Nobody can see that without reading; verifying does.")
        self.command("verify", VM, lost, code=12)
        del self.references[lost]
        vm.write("vda", 63 * MIB, 1 * MIB, 0x7A)
        self.command("plan", VM)
        self.backup(
            vm,
            "What has changed since the point before is still tracked, so only that is read.",
            code=3,
        )
        say("The damaged restore point stays: its other disks can still be restored.")
        self.command("status")

    def by_itself(self, vm: TestVm) -> None:
        title("The daemon: backups by schedule")
        say("`vm-babysitter serve` runs from here on, and the commands ask it.")
        with self.daemon("daemon") as daemon:
            self.ask(daemon, "settings", "set", "store.path", str(self.store))
            every_minute = '[{"name": "every minute", "when": "* * * * *"}]'
            self.ask(daemon, "settings", "set", "schedules", every_minute)
            self.ask(daemon, "schedules")
            before = points_of(daemon)
            vm.write("vda", 7 * MIB, 3 * MIB, 0x77)
            say("The VM writes 3 MiB. What is due next is waited for, less than a minute.")
            daemon.wait_for(lambda: points_of(daemon) > before)
            self.references[max(points_of(daemon))] = self.disks_now(vm)
            self.ask(daemon, "jobs", "--limit", "2")
            self.ask(daemon, "status")
            say(f"Told to end, it is gone after {format_duration(daemon.stop())}.")

    def daemon(self, name: str) -> DemoDaemon:
        """Start a daemon that has a folder of its own."""
        return DemoDaemon(self.folder / name, self.libvirt.uri, self.environment())

    def small_vm(self, name: str) -> TestVm:
        """Define a VM that is off."""
        folder = self.folder / "disks" / name
        folder.mkdir()
        return TestVm(self.libvirt, folder, name, [DiskSpec(size=MIB)])

    def in_order(self) -> None:
        """Have VMs started in order; one waits for a port, and one has lost its image."""
        title("The daemon: VMs start in order, and a message tells of one that does not")
        router, lost, mail = OTHERS
        others = {name: self.small_vm(name) for name in OTHERS}
        others[lost].paths["vda"].unlink()
        with self.daemon("order") as daemon, Listener() as listener, socket.socket() as service:
            service.bind(("127.0.0.1", 0))
            port = f"tcp:127.0.0.1:{service.getsockname()[1]}"
            self.ask(daemon, "settings", "set", "notify.webhook", listener.address)
            waits = [f"vm:{router}", port]
            vms = [{"vm": router}, {"vm": lost, "tries": 1}, {"vm": mail, "wait_for": waits}]
            # At once: an embedded libvirt lets itself be opened a few times only.
            self.ask(daemon, "settings", "set", "autostart.vms", json.dumps(vms))
            say("On Unraid the start of the VM service begins this; here it is asked for.")
            self.ask(daemon, "autostart", "now")
            message = listener.wait()
            say("The web hook is told, as Unraid's notifications would be:")
            words = [message["severity"] + ": " + message["subject"], message["details"]]
            print(indented("\n".join(words)))
            self.ask(daemon, "autostart", "list")
            say("Now something answers at that port.")
            service.listen()
            daemon.wait_for(lambda: re.search(rf"(?m)^{mail} +running", status_of(daemon)))
            time.sleep(_ROUND)
            self.ask(daemon, "autostart", "list")
        for vm in others.values():
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                vm.kill()
            vm.remove()

    def ask(self, daemon: DemoDaemon, *arguments: str) -> None:
        """Show a command that asks the daemon, and what it says."""
        show("vm-babysitter", *arguments)
        done = daemon.call(*arguments)
        print(indented(done.stdout + done.stderr))

    def disks_now(self, vm: TestVm) -> dict[str, Path]:
        """Keep what the disks hold now, to compare with."""
        number = self.made = self.made + 1
        folder = self.folder / "references"
        return {t: vm.reference(t, folder / f"{number}-{t}.raw") for t in FORMATS}

    def restore_all(self) -> None:
        title("Every restore point is restored and compared with the disk as it was then")
        for point, references in self.references.items():
            target = self.folder / "restored"
            started = time.monotonic()
            self.command("restore", VM, point, "--to", str(target), quiet=True)
            seconds = time.monotonic() - started
            images = {t: target / f"{t}.{format}" for t, format in FORMATS.items()}
            self.compare(f"{point}, restored in {format_duration(seconds)}", images, references)
            shutil.rmtree(target)

    def restore_by_hand(self) -> None:
        title("The newest point once more, with nothing but qemu-img convert")
        point, references = list(self.references.items())[-1]
        chain, seq = point.split("/")
        (directory,) = self.store.glob(f"*/{chain}/{seq}-*")
        images = {}
        for target in FORMATS:
            image, raw = directory / f"{target}.qcow2", self.folder / f"{target}.raw"
            show("qemu-img", "convert", "-O", "raw", str(image), str(raw))
            images[target] = copy_content(image, "qcow2", raw)
        self.compare(f"{point}, converted", images, references)

    def fill(self, vm: TestVm, target: str, start_mib: int, length_mib: int) -> None:
        """Write random data."""
        for position in range(start_mib, start_mib + length_mib, 8):
            vm.write_bytes(target, position * MIB, self.chance.randbytes(8 * MIB))

    def backup(self, vm: TestVm, story: str, code: int = 0) -> None:
        """Back up, and keep what the disks hold now to compare with."""
        say(story)
        references = self.disks_now(vm)
        self.command("backup", VM, code=code)
        listed = json.loads(self.call("points", VM, "--json").stdout)
        self.references[max(entry["point"] for entry in listed)] = references

    def kill_a_backup(self) -> bool:
        """Kill a backup while it copies; return whether it was in time."""
        arguments = self.arguments("backup", VM)
        show("vm-babysitter", "…", "backup", VM)
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment()
        )
        while process.poll() is None and not self.copying():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        unfinished = list(self.store.glob("*/*/*.attempt.json"))
        if not unfinished:
            say("It was faster; once more.")
            return False
        size = sum(f.stat().st_blocks * 512 for f in self.store.glob("*/*/000004-inc/*"))
        say(f"Killed after {format_bytes(size)} had been written.")
        return not any(self.store.glob("*/*/000004-inc/point.json"))

    def copying(self) -> bool:
        """Whether the fifth point has begun to be filled."""
        images = self.store.glob("*/*/000004-inc/vda.qcow2")
        return any(image.stat().st_blocks * 512 > 16 * MIB for image in images)

    def compare(self, what: str, images: dict[str, Path], references: dict[str, Path]) -> None:
        """Compare with qemu-img, which knows nothing of us."""
        same = True
        for target, image in images.items():
            done = subprocess.run(
                ["qemu-img", "compare", str(image), str(references[target])],
                capture_output=True,
                text=True,
                check=False,
            )
            same &= done.returncode == 0
        self.compared += 1
        self.identical += same
        say(f"{what}: {'identical' if same else 'DIFFERENT'}")

    def command(self, *arguments: str, quiet: bool = False, code: int = 0) -> None:
        """Run a command of ours, which ends with this status, and show what it says."""
        show("vm-babysitter", "…", *arguments)
        done = self.call(*arguments, code=code)
        if not quiet:
            # Children of the embedded libvirt forget where its log goes.
            ours = [line for line in done.stderr.splitlines() if not _LIBVIRTS.match(line)]
            print(indented("\n".join([*ours, done.stdout])))

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.arguments(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
        )
        if done.returncode != code:
            raise RuntimeError(f"{arguments[0]}: {done.returncode}: {done.stderr.strip()}")
        return done

    def environment(self) -> dict[str, str]:
        """The environment of our commands: the embedded libvirt talks to a file."""
        return {**os.environ, "LIBVIRT_LOG_OUTPUTS": f"3:file:{self.folder}/libvirt.log"}

    def arguments(self, *arguments: str) -> list[str]:
        tool = [sys.executable, "-m", "vm_babysitter", "--standalone", "--uri", self.libvirt.uri]
        return [*tool, "--store", str(self.store), "--allow-ram-store", *arguments]


def status_of(daemon: DemoDaemon) -> str:
    """What the daemon says of all VMs, for which it need not ask libvirt."""
    return daemon.call("status").stdout


def points_of(daemon: DemoDaemon) -> set[str]:
    """Return the names of the restore points that a daemon tells of."""
    listed = json.loads(daemon.call("points", VM, "--json").stdout)
    return {entry["point"] for entry in listed}


def title(text: str) -> None:
    print(f"\n== {text}")


def say(text: str) -> None:
    print(text, flush=True)


def show(*arguments: str) -> None:
    words = [a if a == "…" else shlex.quote(a) for a in arguments]
    print(f"  $ {' '.join(words)}", flush=True)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def roomy_folder(make: Callable[..., str] = tempfile.mkdtemp) -> Path:
    """Make a temporary folder where a few GiB fit; short, since sockets are made below it."""
    for place in ("/var/tmp", "/tmp"):
        if Path(place).is_dir() and shutil.disk_usage(place).free > _ROOM:
            return Path(make(prefix="vmb-demo-", dir=place))
    raise SystemExit("demo: neither /var/tmp nor /tmp has 3 GiB free")


def main() -> int:
    if os.geteuid() != 0:
        say("demo: libvirt's embedded driver needs root; run it as root.")
        return 1
    folder = roomy_folder()
    demo = Demo(folder)
    started = time.monotonic()
    try:
        good = demo.run()
    finally:
        demo.libvirt.close()
        shutil.rmtree(folder)
    say(f"It took {format_duration(time.monotonic() - started)}.") if not good else None
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
