"""VMs without a guest: their disks are written through QEMU's own monitor."""

import contextlib
import fcntl
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from lxml import etree

from tests.support.libvirt_host import LibvirtHost, kill_and_wait
from tests.support.qmp import Qmp

MIB = 1024 * 1024
EMULATOR = "/usr/bin/qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
EMPTY_NVRAM = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
TPM = '<tpm model="tpm-tis"><backend type="emulator" version="2.0"/></tpm>'
GUEST_AGENT_CHANNEL = (
    '<channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>'
)
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12
_PERIPHERAL = "/machine/peripheral/"
_QDEV_OF_BUS = {
    "virtio": "virtio-disk{index}/virtio-backend",
    "sata": "sata0-0-{index}",
    "scsi": "scsi0-0-0-{index}",
}


class MonitorRefused(Exception):
    """A command of QEMU's human monitor said something else than success."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk to be made for a test VM."""

    target: str = "vda"
    format: str = "qcow2"
    size: int = 64 * MIB
    cluster_size: int | None = None
    bus: str = "virtio"
    path: Path | None = None
    """Where the image lies; by default beside those of the other disks. Or a block device."""
    driver: tuple[tuple[str, str], ...] = ()
    """More attributes of libvirt's ``<driver>``, such as ``error_policy``."""


def kvm_works() -> bool:
    """Whether this machine can run VMs by hardware."""
    try:
        with Path("/dev/kvm").open("r+b", buffering=0) as device:
            return fcntl.ioctl(device, _KVM_GET_API_VERSION) == _KVM_API_VERSION
    except OSError:
        return False


class TestVm:
    """One VM on ``host``, its disk images under ``folder``. Defined at once, not started.

    ``extra_devices`` are XML elements for ``<devices>``: a cdrom, a shareable disk, a channel.
    With ``nvram``, the path of a file that is made, its firmware is UEFI.
    """

    __test__: ClassVar[bool] = False

    def __init__(
        self,
        host: LibvirtHost,
        folder: Path,
        name: str,
        disks: Sequence[DiskSpec] = (DiskSpec(),),
        extra_devices: Sequence[str] = (),
        nvram: Path | None = None,
    ) -> None:
        self.host = host
        self.nvram = nvram
        self.name = name
        self.disks = {disk.target: disk for disk in disks}
        self.paths = {d.target: d.path or folder / f"{d.target}.{d.format}" for d in disks}
        # Beside libvirt's own sockets, since their paths must be short.
        self._socket = Path(tempfile.mkdtemp(dir=host.root, prefix="qmp")) / "s"
        for disk in disks:
            create_image(self.paths[disk.target], disk)
        if nvram is not None:
            shutil.copyfile(EMPTY_NVRAM, nvram)
        self.uuid = self.define(self.xml(extra_devices))

    def xml(self, extra_devices: Sequence[str] = ()) -> str:
        """The XML that defines this VM."""
        # UEFI is always emulated: some machines' KVM stops it at its first FPU instruction.
        kind = "kvm" if kvm_works() and self.nvram is None else "qemu"
        domain = etree.Element("domain", {"type": kind}, nsmap={"qemu": _QEMU_NAMESPACE})
        _add(domain, "name", text=self.name)
        _add(domain, "memory", unit="MiB", text="32" if self.nvram is None else "128")
        _add(domain, "vcpu", text="1")
        self._add_firmware(domain)
        devices = _add(domain, "devices")
        _add(devices, "emulator", text=EMULATOR)
        for disk in self.disks.values():
            devices.append(self._disk_element(disk))
        _add(devices, "controller", type="usb", model="none")
        _add(devices, "memballoon", model="none")
        for element in extra_devices:
            devices.append(etree.fromstring(element))
        command_line = etree.SubElement(domain, f"{{{_QEMU_NAMESPACE}}}commandline")
        for argument in ("-qmp", f"unix:{self._socket},server=on,wait=off"):
            etree.SubElement(command_line, f"{{{_QEMU_NAMESPACE}}}arg", {"value": argument})
        return etree.tostring(domain, encoding="unicode")

    def define(self, xml: str) -> str:
        """Define or redefine the VM; returns its UUID."""
        return cast(str, self.host.call("define", xml))

    def define_again(self, extra_devices: Sequence[str] = ()) -> None:
        """Redefine it with the disks and the images that ``disks`` and ``paths`` name now."""
        kept, own = f"<uuid>{self.uuid}</uuid>", self.xml(extra_devices)
        self.define(own.replace("</name>", f"</name>{kept}", 1))

    def undefine(self) -> None:
        self.host.call("undefine", self.name)

    def remove(self) -> None:
        """Stop and undefine it if it is there."""
        self.host.call("remove", self.name)

    def start(self, *, running: bool = False) -> None:
        """Start it: paused, which is all that writing takes, or idling in its firmware."""
        self.host.call("start", self.name, running)

    def stop(self) -> None:
        """Switch it off; QEMU ends in good order."""
        self.host.call("destroy", self.name)

    def suspend(self) -> None:
        self.host.call("suspend", self.name)

    def resume(self) -> None:
        self.host.call("resume", self.name)

    def kill(self) -> None:
        """Kill QEMU with SIGKILL, as a crash or a power cut does."""
        kill_and_wait(self.pid)

    @property
    def pid(self) -> int:
        """The process id of its QEMU."""
        with self.monitor() as monitor:
            return monitor.pid

    @property
    def state(self) -> str:
        """``running``, ``paused``, ``shutoff`` or ``crashed``, as libvirt sees it."""
        return cast(str, self.host.call("state", self.name))

    def socket_on(self, host: LibvirtHost) -> Path:
        """Where the tests' own QMP socket lies when the VM runs on this host."""
        return host.root / self._socket.parent.name / self._socket.name

    def move_to(self, host: LibvirtHost) -> None:
        """Talk to the VM on another host, where it runs or is defined now."""
        self.host, self._socket = host, self.socket_on(host)

    def monitor(self) -> Qmp:
        """Open the QMP socket that the tests have beside libvirt's."""
        return Qmp(self._socket)

    def write(self, target: str, offset: int, length: int, pattern: int) -> None:
        """Write a repeated byte."""
        self._qemu_io(
            target, f"write -P {pattern:#x} {offset} {length}", f"wrote {length}/{length}"
        )

    def write_bytes(self, target: str, offset: int, data: bytes) -> None:
        """Write these bytes."""
        length = len(data)
        with tempfile.NamedTemporaryFile(dir=self._socket.parent) as file:
            file.write(data)
            file.flush()
            command = f"write -s {file.name} {offset} {length}"
            self._qemu_io(target, command, f"wrote {length}/{length}")

    def write_each(self, target: str, offsets: Iterable[int], length: int, pattern: int) -> None:
        """Write a repeated byte at many places."""
        with self.monitor() as qmp:
            for offset in offsets:
                command = f"write -P {pattern:#x} {offset} {length}"
                self._qemu_io_with(qmp, target, command, f"wrote {length}/{length}")

    def zero(self, target: str, offset: int, length: int) -> None:
        """Write zeros by the request for it, which may make explicit zero clusters."""
        self._qemu_io(target, f"write -z {offset} {length}", f"wrote {length}/{length}")

    def discard(self, target: str, offset: int, length: int) -> None:
        """Give a range back, as a guest's fstrim does."""
        self._qemu_io(target, f"discard {offset} {length}", f"discard {length}/{length}")

    def flush(self, target: str) -> None:
        """Have all that was written in the file."""
        self._qemu_io(target, "flush", "")

    def reference(self, target: str, path: Path) -> Path:
        """Copy what the disk holds now into a raw file, and return that file.

        Running or not; of a running VM it is the image that QEMU has on top at the moment.
        """
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), self.monitor() as qmp:
            self._qemu_io_with(qmp, target, "flush", "")
            return copy_content(*self._top_image(qmp, target), path)
        return copy_content(self.paths[target], self.disks[target].format, path)

    def _add_firmware(self, domain: etree._Element) -> None:
        system = _add(domain, "os")
        machine = "pc" if self.nvram is None else "q35"
        _add(system, "type", machine=machine, text="hvm")
        if self.nvram is not None:
            _add(system, "loader", text=str(FIRMWARE), readonly="yes", type="pflash")
            _add(system, "nvram", text=str(self.nvram))
            _add(_add(domain, "features"), "acpi")

    def _disk_element(self, disk: DiskSpec) -> etree._Element:
        path = self.paths[disk.target]
        kind, place = ("block", "dev") if path.is_block_device() else ("file", "file")
        element = etree.Element("disk", {"type": kind, "device": "disk"})
        driver = _add(element, "driver", name="qemu", type=disk.format, discard="unmap")
        for key, value in disk.driver:
            driver.set(key, value)
        element.append(etree.Element("source", {place: str(path)}))
        _add(element, "target", dev=disk.target, bus=disk.bus)
        return element

    def _device(self, target: str) -> str:
        index = ord(target[-1]) - ord("a")
        return _PERIPHERAL + _QDEV_OF_BUS[self.disks[target].bus].format(index=index)

    def _top_image(self, qmp: Qmp, target: str) -> tuple[Path, str]:
        for block in cast(list[dict[str, dict[str, dict[str, str]]]], qmp.execute("query-block")):
            name = cast(str, block.get("qdev", ""))
            if name and self._device(target).removeprefix(_PERIPHERAL) == name.removeprefix(
                _PERIPHERAL
            ):
                file = block["inserted"]["image"]["filename"]
                return Path(_file_of(file)), self._format_of(qmp, file)
        raise LookupError(f"QEMU has no disk {target!r}")

    @staticmethod
    def _format_of(qmp: Qmp, file: str) -> str:
        """The driver that reads an image; during a backup job a filter lies on top of it."""
        nodes = cast(list[dict[str, str]], qmp.execute("query-named-block-nodes"))
        drivers = {node["drv"] for node in nodes if node["file"] == file}
        return next((d for d in sorted(drivers) if d in {"qcow2", "qed"}), "raw")

    def _qemu_io(self, target: str, command: str, expected: str) -> None:
        with self.monitor() as qmp:
            self._qemu_io_with(qmp, target, command, expected)

    def _qemu_io_with(self, qmp: Qmp, target: str, command: str, expected: str) -> None:
        # Whether it worked is only in what QEMU prints, which libvirt keeps in a log; QEMU's
        # output is line buffered, so all of it is there when the command returns.
        log = self.host.root / "log" / "qemu" / f"{self.name}.log"
        seen = log.stat().st_size
        text = qmp.hmp(f'qemu-io -d {self._device(target)} "{command}"')
        with log.open("rb") as file:
            file.seek(seen)
            text += file.read().decode(errors="replace")
        if expected not in text or "failed" in text or "rror:" in text:
            raise MonitorRefused(f"{command}: {text.strip()}")


class VmFactory:
    """Makes test VMs on one host and removes them all at the end."""

    def __init__(self, host: LibvirtHost, folder: Path) -> None:
        self.host = host
        self._folder = folder
        self._vms: list[TestVm] = []

    def __call__(
        self,
        name: str = 'My "VM" & co',
        disks: Sequence[DiskSpec] = (DiskSpec(),),
        extra_devices: Sequence[str] = (),
        nvram: Path | None = None,
    ) -> TestVm:
        folder = self._folder / f"vm {len(self._vms)}"
        folder.mkdir()
        vm = TestVm(self.host, folder, name, disks, extra_devices, nvram)
        self._vms.append(vm)
        return vm

    def close(self) -> None:
        """Remove all VMs; their images stay in the folder."""
        for vm in self._vms:
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                vm.kill()  # faster than asking for an orderly end
            vm.remove()
        self._vms.clear()


@contextlib.contextmanager
def vms_on(host: LibvirtHost, folder: Path) -> Iterator[VmFactory]:
    """A factory whose VMs are gone afterwards."""
    factory = VmFactory(host, folder)
    try:
        yield factory
    finally:
        factory.close()


def create_image(path: Path, disk: DiskSpec) -> None:
    """Create an empty image; a block device is there and is raw as it is."""
    if path.is_block_device() and disk.format == "raw":
        return
    options = [] if disk.cluster_size is None else ["-o", f"cluster_size={disk.cluster_size}"]
    run_qemu_img("create", "-q", "-f", disk.format, *options, str(path), str(disk.size))


def copy_content(image: Path, format: str, path: Path) -> Path:
    """Copy what an image and those beneath it hold, in use or not, into a raw file."""
    run_qemu_img("convert", "-U", "-f", format, "-O", "raw", str(image), str(path))
    return path


def run_qemu_img(*arguments: str) -> str:
    """Run qemu-img and return what it printed; paths must be absolute."""
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"qemu-img {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _file_of(name: str) -> str:
    """Return the path in a file name as QEMU reports it: plain, or as a JSON description."""
    if not name.startswith("json:"):
        return name
    description = json.loads(name.removeprefix("json:"))
    while "filename" not in description:
        description = description["file"]
    return cast(str, description["filename"])


def _add(
    parent: etree._Element, tag: str, /, text: str | None = None, **attributes: str
) -> etree._Element:
    element = etree.SubElement(parent, tag, dict(attributes))
    element.text = text
    return element
