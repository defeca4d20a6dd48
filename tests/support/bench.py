"""VMs for contract suites, the same to handle on the fakes and on a real libvirt."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from lxml import etree

from tests.support.fakes.definitions import FakeDefinitions
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.exports import FakeDiskExports
from tests.support.fakes.hypervisor import FakeHypervisor, FakeJob, FakeVm
from tests.support.libvirt_host import LibvirtHost
from tests.support.vm import DiskSpec, TestVm, VmFactory
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.definitions import LibvirtDefinitions
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.adapters.qemu.exports import NbdExports
from vm_babysitter.adapters.qemu.img import info
from vm_babysitter.domain.point import Checkpoint, bitmap_name
from vm_babysitter.domain.vm import DiskState, PowerState
from vm_babysitter.ports import (
    BackupRequest,
    Belongings,
    Definitions,
    DiskExports,
    DiskRequest,
    Hypervisor,
)

KIB = 1024
SIZE = 16 * 64 * KIB
"""Bytes of a disk that nobody said more about."""
TWO_DISKS = (DiskSpec("vda", size=SIZE), DiskSpec("vdb", "raw", size=SIZE))
PREFIX = "vmb-0000000a-"
FIRST, SECOND = f"{PREFIX}000000-aaaaaa", f"{PREFIX}000001-bbbbbb"
GOOD, BROKEN = (True, False), (False, True)
"""What a bitmap may be: recording, inconsistent."""
FOREIGN = "somebody-elses"
"""Name of a checkpoint that is not ours."""
_EXTERNAL_SNAPSHOT = 16 | 4
"""VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY and ..._NO_METADATA."""


class BenchVm(Protocol):
    """A VM that a contract suite plays with."""

    @property
    def name(self) -> str: ...

    @property
    def uuid(self) -> str: ...

    def start(self, *, running: bool = True) -> None:
        """Start it, running or paused."""

    def stop(self) -> None:
        """Switch it off in good order."""

    def kill(self) -> None:
        """Kill QEMU, and wait until that is known."""

    def write(self, target: str, offset: int, data: bytes) -> None:
        """Write to a disk as the guest would."""

    def zero(self, target: str, offset: int, length: int) -> None:
        """Discard a range."""

    def snapshot(self, target: str) -> None:
        """Put a new layer on top of a disk."""

    def checkpoints(self) -> set[str]:
        """Return the names of the checkpoints that libvirt knows of."""

    def set_autostart(self, *, on: bool) -> None:
        """Have it start with the host, or not."""

    def managed_save(self) -> None:
        """Have libvirt save its memory and switch it off."""

    def begin_foreign_backup(self, checkpoint: str | None = None) -> None:
        """Start a backup job of somebody else's over the disk vda."""

    def has_job(self) -> bool:
        """Whether libvirt has a job under way."""


class Bench(Protocol):
    """A hypervisor with its exports, and a way to make VMs on it."""

    @property
    def hypervisor(self) -> Hypervisor: ...

    @property
    def definitions(self) -> Definitions: ...

    @property
    def exports(self) -> DiskExports: ...

    def vm(
        self,
        name: str = "a vm",
        disks: Sequence[DiskSpec] = (DiskSpec(size=SIZE),),
        *,
        nvram: Path | None = None,
    ) -> BenchVm:
        """Define a VM, off; with ``nvram``, which is made, one of UEFI."""

    def transient_vm(self, name: str) -> str:
        """Start a VM that is gone once it is off; return its UUID."""

    def request(self, checkpoint: str, *disks: DiskRequest) -> BackupRequest:
        """Ask for a job over these disks, its socket and scratch files in new places.

        The new checkpoints are named ``on(target, checkpoint)``.
        """


def whole(target: str, *, track: bool = True) -> DiskRequest:
    """Ask for a disk as a whole; ``track`` makes the checkpoint that ``request`` names."""
    return DiskRequest(target, "", None, "" if track else None)


def since(target: str, checkpoint: str) -> DiskRequest:
    """Ask for a disk with what changed since a checkpoint, and for a new checkpoint."""
    return DiskRequest(target, "", checkpoint, "")


def on(target: str, checkpoint: str) -> str:
    """Return the name of a checkpoint on one disk: on vda the bare one."""
    return checkpoint if target == "vda" else bitmap_name(checkpoint, target)


def bitmaps(state: DiskState) -> list[dict[str, tuple[bool, bool]]]:
    """Return GOOD, BROKEN or what else each layer's bitmaps are, the active layer first."""
    return [{b.name: (b.recording, b.inconsistent) for b in a.bitmaps} for a in state.layers]


def tracked(bench: Bench, vm: BenchVm, checkpoint: str = FIRST) -> Checkpoint:
    """Make a backup of vda that leaves a bitmap; libvirt does not know of it any more."""
    bench.hypervisor.begin_backup(vm.uuid, bench.request(checkpoint, whole("vda")))
    bench.hypervisor.end_backup(vm.uuid)
    bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
    return Checkpoint(checkpoint, 1_700_000_000, ("vda",))


class _Places:
    """Names for sockets and scratch files that were never used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def request(self, checkpoint: str, *disks: DiskRequest) -> BackupRequest:
        number = next(self._numbers)
        return BackupRequest(
            str(self._folder / f"job {number}"),
            tuple(
                DiskRequest(
                    d.target,
                    str(self._folder / f"{number}, {d.target}"),
                    d.since,
                    None if d.track is None else on(d.target, checkpoint),
                )
                for d in disks
            ),
        )


class RealBench(_Places):
    """The adapters on a private libvirt."""

    def __init__(
        self, host: LibvirtHost, connection: Connection, factory: VmFactory, folder: Path
    ) -> None:
        """``folder`` has a short path, for sockets."""
        super().__init__(folder)
        self.hypervisor = LibvirtHypervisor(connection, info)
        self.definitions = LibvirtDefinitions(connection)
        self.exports = NbdExports()
        self._host = host
        self._factory = factory
        self._transient: list[str] = []

    def vm(
        self,
        name: str = "a vm",
        disks: Sequence[DiskSpec] = (DiskSpec(size=SIZE),),
        devices: Sequence[str] = (),
        *,
        nvram: Path | None = None,
    ) -> "RealVm":
        """Define a VM, off, with more devices given as XML."""
        return RealVm(self._host, self._factory(name, disks, devices, nvram), self)

    def transient_vm(self, name: str) -> str:
        kind = f'<domain type="qemu"><name>{name}</name><memory unit="MiB">32</memory>'
        system = "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
        self._host.call("create_transient", kind + system)
        self._transient.append(name)
        text = cast(str, self._host.call("xml", name, False))
        return etree.fromstring(text).findtext("uuid") or ""

    def close(self) -> None:
        for name in self._transient:
            self._host.call("remove", name)


class RealVm:
    """A BenchVm on a real QEMU."""

    def __init__(self, host: LibvirtHost, vm: TestVm, places: _Places) -> None:
        self.host = host
        self.vm = vm
        self.name, self.uuid = vm.name, vm.uuid
        self._places = places

    def start(self, *, running: bool = True) -> None:
        self.vm.start(running=running)

    def stop(self) -> None:
        self.vm.stop()

    def kill(self) -> None:
        self.vm.kill()
        assert self.vm.state == "shutoff"

    def set_autostart(self, *, on: bool) -> None:
        self.host.call("set_autostart", self.name, on)

    def managed_save(self) -> None:
        self.host.call("managed_save", self.name)

    def write(self, target: str, offset: int, data: bytes) -> None:
        self.vm.write_bytes(target, offset, data)

    def zero(self, target: str, offset: int, length: int) -> None:
        self.vm.discard(target, offset, length)

    def snapshot(self, target: str) -> None:
        path = self.vm.paths[target].with_suffix(".layer, 2")
        root = etree.Element("domainsnapshot")
        disks = etree.SubElement(root, "disks")
        for name in self.vm.disks:
            kind = "external" if name == target else "no"
            disk = etree.SubElement(disks, "disk", name=name, snapshot=kind)
            if name == target:
                etree.SubElement(disk, "source", file=str(path))
        text = etree.tostring(root, encoding="unicode")
        self.host.call("snapshot", self.name, text, _EXTERNAL_SNAPSHOT)

    def checkpoints(self) -> set[str]:
        return set(cast(list[str], self.host.call("checkpoints", self.name)))

    def begin_foreign_backup(self, checkpoint: str | None = None) -> None:
        request = self._places.request("", whole("vda"))
        root = etree.Element("domainbackup", mode="pull")
        etree.SubElement(root, "server", transport="unix", socket=request.socket)
        disks = etree.SubElement(root, "disks")
        for target in self.vm.disks:
            backup = "yes" if target == "vda" else "no"
            disk = etree.SubElement(disks, "disk", name=target, backup=backup, type="file")
            if target == "vda":
                etree.SubElement(disk, "scratch", file=request.disks[0].scratch)
        text = etree.tostring(root, encoding="unicode")
        self.host.call("begin_backup", self.name, text, self._checkpoint_xml(checkpoint))

    def has_job(self) -> bool:
        return self.host.call("job", self.name) != 0

    def _checkpoint_xml(self, name: str | None) -> str | None:
        if name is None:
            return None
        root = etree.Element("domaincheckpoint")
        etree.SubElement(root, "name").text = name
        disks = etree.SubElement(root, "disks")
        for target in self.vm.disks:
            kind = "bitmap" if target == "vda" else "no"
            etree.SubElement(disks, "disk", name=target, checkpoint=kind)
        return etree.tostring(root, encoding="unicode")


class FakeBench(_Places):
    """The fakes."""

    def __init__(self) -> None:
        super().__init__(Path("/run/bench"))
        self.hypervisor = FakeHypervisor()
        self.definitions = FakeDefinitions(self.hypervisor)
        self.exports = FakeDiskExports(self.hypervisor)

    def vm(
        self,
        name: str = "a vm",
        disks: Sequence[DiskSpec] = (DiskSpec(size=SIZE),),
        *,
        nvram: Path | None = None,
    ) -> "FakeBenchVm":
        made = [FakeDisk(disk.target, disk.size, format=disk.format) for disk in disks]
        vm = self.hypervisor.add(name, *made)
        vm.state = PowerState.OFF
        vm.belongings = Belongings(nvram="" if nvram is None else str(nvram))
        return FakeBenchVm(vm, self)

    def transient_vm(self, name: str) -> str:
        vm = self.hypervisor.add(name)
        vm.persistent = False
        return vm.uuid


class FakeBenchVm:
    """A BenchVm in memory."""

    def __init__(self, vm: FakeVm, places: _Places) -> None:
        self.fake = vm
        self.name, self.uuid = vm.name, vm.uuid
        self._places = places

    def start(self, *, running: bool = True) -> None:
        self.fake.start(PowerState.RUNNING if running else PowerState.PAUSED)

    def stop(self) -> None:
        self.fake.stop()

    def kill(self) -> None:
        self.fake.kill()

    def set_autostart(self, *, on: bool) -> None:
        self.fake.belongings = replace(self.fake.belongings, autostart=on)

    def managed_save(self) -> None:
        self.fake.stop()
        self.fake.belongings = replace(self.fake.belongings, managed_save=True)

    def write(self, target: str, offset: int, data: bytes) -> None:
        self.fake.disks[target].write(offset, data)

    def zero(self, target: str, offset: int, length: int) -> None:
        self.fake.disks[target].zero(offset, length)

    def snapshot(self, target: str) -> None:
        disk = self.fake.disks[target]
        disk.snapshot(f"{disk.path}.2")

    def checkpoints(self) -> set[str]:
        return set(self.fake.checkpoints)

    def begin_foreign_backup(self, checkpoint: str | None = None) -> None:
        self.fake.job = FakeJob(self._places.request("").socket, (), {})
        if checkpoint is not None:
            self.fake.checkpoints[checkpoint] = ("vda",)
            self.fake.disks["vda"].layers[0].bitmaps[checkpoint] = FakeBitmap()

    def has_job(self) -> bool:
        return self.fake.job is not None
