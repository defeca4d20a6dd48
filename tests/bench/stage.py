"""Where the benchmark happens: a folder, a private libvirt, VMs with data, backup jobs."""

import contextlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from tests.bench.measure import measure, sync_all
from tests.bench.results import Run
from tests.support.libvirt_host import LibvirtRefused
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.vm import MIB, DiskSpec, TestVm, VmFactory, run_qemu_img

GIB = 1024 * MIB
BLOCK = 64 * 1024
_ROOM = 26 * GIB
"""What a run of full size takes at most, disks and backups of all tools together."""
_EXTENTS = 150


class NoRoom(Exception):
    """The folder cannot hold what the benchmark writes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done, and where."""

    rounds: int
    scale: float
    """1 for disks of the sizes that the jobs are defined with."""
    folder: Path

    def size(self, full: int) -> int:
        """Scale a number of bytes; the result is in whole MiB, and never nothing."""
        return max(1, round(full * self.scale / MIB)) * MIB

    def count(self, full: int) -> int:
        """Scale a number of things."""
        return max(1, round(full * self.scale))


class Stage:
    """Everything that the tools work with. What they write goes under ``folder``."""

    def __init__(self, settings: Settings, folder: Path, host: PrivateLibvirtd) -> None:
        self.settings = settings
        self.folder = folder
        self.host = host
        self.environment: Mapping[str, str] = {**os.environ, "TMPDIR": str(folder)}
        self._factory = VmFactory(host, folder)
        self._chance = random.Random(2026)
        self._numbers = itertools.count(1)

    def vm(
        self, name: str, size: int, data: int, extents: int = _EXTENTS, format: str = "qcow2"
    ) -> TestVm:
        """Start a VM, paused, whose disk has ``data`` random bytes in about so many extents."""
        vm = self._factory(name, (DiskSpec(size=size, format=format),))
        raw = self.folder / "raw"
        self._write_random(raw, size, data, extents)
        run_qemu_img("convert", "-n", "-O", format, "-f", "raw", str(raw), str(vm.paths["vda"]))
        raw.unlink()
        vm.start()
        return vm

    def scatter(self, vm: TestVm, blocks: int) -> None:
        """Overwrite so many blocks of 64 KiB, anywhere on the disk."""
        size = vm.disks["vda"].size
        chosen = sorted(self._chance.sample(range(size // BLOCK), min(blocks, size // BLOCK)))
        # Every call has another byte, so that each block differs from what it was.
        pattern = next(self._numbers) % 255 + 1
        vm.write_each("vda", (block * BLOCK for block in chosen), BLOCK, pattern)

    def run(
        self,
        command: Sequence[str | Path],
        output: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Measure a command that writes to the file or folder ``output``."""
        before = allocated(output)
        wanted = environment or self.environment
        seconds, cpu, rss = measure(command, self.folder, [output], wanted)
        return Run(seconds, cpu, rss or None, allocated(output) - before)

    @contextlib.contextmanager
    def pull(self, vm: TestVm) -> Iterator[str]:
        """Have a pull job of somebody's own open. Yields the URI of the disk's export."""
        number = next(self._numbers)
        socket, scratch = self.host.root / f"pull{number}", self.folder / f"scratch{number}"
        job = etree.Element("domainbackup", mode="pull")
        etree.SubElement(job, "server", transport="unix", socket=str(socket))
        disks = etree.SubElement(job, "disks")
        disk = etree.SubElement(disks, "disk", name="vda", type="file")
        etree.SubElement(disk, "scratch", file=str(scratch))
        self.host.call("begin_backup", vm.name, etree.tostring(job, encoding="unicode"), None)
        try:
            yield f"nbd+unix:///vda?socket={socket}"
        finally:
            self.host.call("abort_job", vm.name)
            scratch.unlink(missing_ok=True)

    def push(self, vm: TestVm, output: Path) -> Run:
        """Have QEMU itself write a backup as qcow2. All the work is QEMU's: only time is known."""
        job = etree.Element("domainbackup", mode="push")
        disks = etree.SubElement(job, "disks")
        disk = etree.SubElement(disks, "disk", name="vda", type="file")
        etree.SubElement(disk, "driver", type="qcow2")
        etree.SubElement(disk, "target", file=str(output))
        started = time.monotonic()
        self.host.call("begin_backup", vm.name, etree.tostring(job, encoding="unicode"), None)
        while self._has_job(vm):
            time.sleep(0.02)
        sync_all([output])
        return Run(time.monotonic() - started, written_bytes=allocated(output))

    def compare(self, vm: TestVm, image: Path, format: str = "qcow2") -> str:
        """Return "" if an image holds what the disk of the VM holds, else what is wrong."""
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # it is off
            vm.flush("vda")
        try:
            disk = named(vm.paths["vda"], vm.disks["vda"].format)
            run_qemu_img("compare", "-U", named(image, format), disk)
        except RuntimeError:
            return "differs from the disk"
        return ""

    def _has_job(self, vm: TestVm) -> bool:
        try:
            return self.host.call("job", vm.name) != 0
        except LibvirtRefused:  # between having a job and having none it knows neither
            return True

    def _write_random(self, path: Path, size: int, data: int, extents: int) -> None:
        pieces = max(1, min(extents, data // BLOCK))
        length = data // pieces // BLOCK * BLOCK
        distance = size // pieces // BLOCK * BLOCK
        with path.open("wb") as file:
            file.truncate(size)
            for number in range(pieces):
                file.seek(number * distance)
                for _ in range(length // BLOCK):
                    file.write(os.urandom(BLOCK))

    def close(self) -> None:
        """End the VMs."""
        self._factory.close()


def allocated(path: Path) -> int:
    """Return the bytes that a file, or a folder with all that is in it, takes on the disk."""
    if not path.exists():
        return 0
    return sum(file.stat().st_blocks * 512 for file in [path, *path.rglob("*")])


def remove(path: Path) -> None:
    """Remove a file or a folder, there or not."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_stage(settings: Settings) -> Iterator[Stage]:
    """Set the stage; all of it is gone afterwards. Raises NoRoom."""
    need = int(_ROOM * settings.scale) + GIB
    free = _free(settings.folder)
    if free < need:
        raise NoRoom(
            f"{settings.folder} has {free / GIB:.1f} GiB to spare and the benchmark may need "
            f"{need / GIB:.1f}: name another folder in VMB_BENCH_DIR, or shrink it with "
            "VMB_BENCH_SCALE=0.1"
        )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder("vmb-bench-", settings.folder)))
        # Paths of sockets must be short, whatever folder was given.
        root = Path(stack.enter_context(_folder("vmb", Path("/tmp"))))
        host = PrivateLibvirtd(root)
        stack.callback(host.close)
        host.start()
        stage = Stage(settings, folder, host)
        stack.callback(stage.close)
        yield stage


def is_ram(folder: Path) -> bool:
    """Whether what is written there never reaches a disk."""
    found = run("stat", "--file-system", "--format=%T", folder).strip()
    return found in {"tmpfs", "ramfs"}


def _free(folder: Path) -> int:
    """Return the bytes that may be used: of a folder in RAM, half of what the machine has left."""
    free = shutil.disk_usage(folder).free
    if not is_ram(folder):
        return free
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = [line for line in lines if line.startswith("MemAvailable:")]
    return min(free, int(available.split()[1]) * 1024 // 2)


def _folder(prefix: str, parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=prefix, dir=parent)
