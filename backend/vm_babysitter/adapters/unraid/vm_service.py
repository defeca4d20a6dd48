"""The VM service of an Unraid server: implements ``ports.VmService``."""

import os
import re
from pathlib import Path

_CONFIG = "boot/config/domain.cfg"
_PID = "var/run/libvirt/libvirtd.pid"
_STARTED = "var/run/libvirt/qemu/autostarted"
_DISABLED = re.compile(rb"""^DISABLE=["']?yes["']?\s*$""", re.MULTILINE | re.IGNORECASE)


class UnraidVmService:
    """Implements ``ports.VmService``; on other systems nothing is ever suppressed."""

    def __init__(self, root: Path = Path("/")) -> None:
        """``root`` is where the host's file system begins."""
        self._root = root

    def stamp(self) -> str:
        """See the port."""
        try:
            found = (self._root / _PID).stat()
        except OSError:
            return ""
        return f"{found.st_ino}-{found.st_mtime_ns}"

    def held(self, *, by_user: bool) -> str:
        """See the port.

        libvirt makes its file ``autostarted`` after it has begun. Where it is older, Unraid has
        made it, which it does to have nothing started when a device could not be bound to VFIO.
        """
        if _DISABLED.search(_content(self._root / _CONFIG)):
            return 'Unraid is set not to start VMs (DISABLE="yes" in domain.cfg).'
        if by_user:
            return ""
        try:
            begun = (self._root / _PID).stat().st_mtime_ns
            made = (self._root / _STARTED).stat().st_mtime_ns
        except OSError:
            return ""
        if made < begun:
            return (
                "Unraid has suppressed it, because a device for VMs could not be prepared (VFIO); "
                "see Tools, System Devices."
            )
        return ""


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
