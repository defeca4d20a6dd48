"""A VM with a small Linux in it: a file system, a guest agent, and a program that writes."""

import contextlib
import fcntl
import json
import re
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from lxml import etree

from tests.support.guest_image import guest_image
from tests.support.libvirt_host import LibvirtHost
from tests.support.vm import GUEST_AGENT_CHANNEL, MIB, DiskSpec, TestVm, run_qemu_img

DISK = DiskSpec("vda", size=32 * MIB)
_MEMORY_MIB = "192"
_BOOT_SECONDS = 30
_SECONDS = 30


class Guest(TestVm):
    """A running Linux; everything it says on its serial line is in ``log``.

    A writer in it appends ascending numbers to a file on the disk's ext4, has each on stable
    storage, and then says ``sequence <number>``.
    """

    def __init__(
        self, host: LibvirtHost, folder: Path, name: str, more_disks: Sequence[DiskSpec] = ()
    ) -> None:
        self.log = folder / "serial.log"
        self._image = guest_image()
        self._agent_options: str | None = None
        super().__init__(host, folder, name, [DISK, *more_disks], [GUEST_AGENT_CHANNEL])
        make_ext4(self.paths["vda"], DISK.size)
        self.start(running=True)
        self.wait_for("guest up", _BOOT_SECONDS)
        self._marker = 0
        self._wait_for_agent("")

    def xml(self, extra_devices: Sequence[str] = ()) -> str:
        """The XML that defines this VM: that of any test VM, and what a Linux needs."""
        domain = etree.fromstring(super().xml(extra_devices))
        # Emulated everywhere: that takes 2 seconds, and not every KVM that answers boots a Linux
        # (one that is emulated itself does not).
        domain.set("type", "qemu")
        os, devices = domain.find("os"), domain.find("devices")
        memory = domain.find("memory")
        assert os is not None
        assert devices is not None
        assert memory is not None
        memory.text = _MEMORY_MIB
        for tag, text in (
            ("kernel", str(self._image.kernel)),
            ("initrd", str(self._image.initramfs)),
            ("cmdline", "console=ttyS0 quiet panic=1"),
        ):
            etree.SubElement(os, tag).text = text
        etree.SubElement(etree.SubElement(domain, "features"), "acpi")
        serial = etree.SubElement(devices, "serial", type="unix")
        etree.SubElement(serial, "source", mode="bind", path=str(self._console))
        etree.SubElement(serial, "log", file=str(self.log), append="on")
        etree.SubElement(serial, "target", port="0")
        return etree.tostring(domain, encoding="unicode")

    @property
    def _console(self) -> Path:
        return self._socket.parent / "console"

    def run(self, command: str) -> None:
        """Run a shell command in the guest, frozen or not, and wait for its end."""
        self.wait_for(self.begin(command))

    def begin(self, command: str) -> str:
        """Begin a shell command in the guest; return what it says when it has succeeded."""
        self._marker += 1
        marker = f"done {self._marker} "
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as console:
            console.connect(str(self._console))
            console.sendall(f"{command}; echo {marker}$?\n".encode())
            wait_until(lambda: not _unread(console))
        return marker + "0"

    def says(self, text: str) -> bool:
        """Whether the guest has said something."""
        return text in self._said()

    def have_agent(self, options: str = "") -> None:
        """See that an agent with these options is there and answers."""
        if self._agent_options == options:
            return
        self.stop_agent()
        self.run(f"agent {options}")
        self._wait_for_agent(options)

    def stop_agent(self) -> None:
        """See that there is no agent.

        QEMU tells libvirt of it up to a second later, so both wait until it has: while libvirt
        has a backup job it would wait 30 seconds with such news, and keep all later news back.
        """
        self._agent_options = None
        self.run("killall -KILL qemu-ga; rm -f /run/qga.state*; true")
        wait_until(lambda: self._agent_state() == "disconnected")

    def _wait_for_agent(self, options: str) -> None:
        wait_until(lambda: self._agent_state() == "connected" and self.agent_answers())
        self._agent_options = options

    def _agent_state(self) -> str:
        domain = etree.fromstring(cast(str, self.host.call("xml", self.name, False)))
        (target,) = domain.findall("devices/channel/target[@name='org.qemu.guest_agent.0']")
        return target.get("state", "")

    def agent(self, command: str, seconds: int = 5, **arguments: object) -> Any:
        """Ask the guest agent. Raises LibvirtRefused."""
        request = json.dumps({"execute": command, "arguments": arguments})
        reply = self.host.call("agent", self.name, request, seconds)
        return json.loads(cast(str, reply))["return"]

    def agent_answers(self) -> bool:
        """Whether the agent is there and answers."""
        return bool(self.host.call("agent_answers", self.name))

    def is_frozen(self) -> bool:
        """Whether the agent says that it has frozen the file systems."""
        return bool(self.agent("guest-fsfreeze-status") == "frozen")

    def sequence(self) -> int:
        """The last number that the writer has on stable storage."""
        found = re.findall(r"^sequence (\d+)\r?$", self._said(), re.MULTILINE)
        return int(found[-1]) if found else 0

    def writes(self, seconds: float = _SECONDS) -> bool:
        """Whether the writer gets on within this time."""
        before = self.sequence()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.sequence() > before + 1, seconds)
            return True
        return False

    def wait_for(self, text: str, seconds: float = _SECONDS) -> None:
        """Wait until the guest has said something."""
        wait_until(lambda: text in self._said(), seconds)

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def guest_on(
    host: LibvirtHost, folder: Path, name: str, more_disks: Sequence[DiskSpec] = ()
) -> Iterator[Guest]:
    """A running guest that is gone afterwards."""
    guest = Guest(host, folder, name, more_disks)
    try:
        yield guest
    finally:
        guest.kill()
        guest.remove()


def _unread(connection: socket.socket) -> int:
    """How many bytes the other end has not taken yet."""
    buffer = bytearray(4)
    fcntl.ioctl(connection, termios.TIOCOUTQ, buffer)
    return int.from_bytes(buffer, sys.byteorder)


def make_ext4(image: Path, size: int) -> None:
    """Make ``image`` a qcow2 with an empty ext4 in it."""
    raw = image.with_suffix(".ext4")
    with raw.open("wb") as file:
        file.truncate(size)
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", raw], check=True)
    run_qemu_img("convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    raw.unlink()


def wait_until(condition: Callable[[], bool], seconds: float = _SECONDS) -> None:
    """Wait for something to become true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
