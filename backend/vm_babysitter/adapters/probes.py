"""Looks whether what VMs wait for is there: implements ``ports.Probes``."""

import os
import socket
from pathlib import Path

from vm_babysitter.adapters.store.place import mount_of
from vm_babysitter.domain.autostart import Awaited, Condition
from vm_babysitter.domain.store_check import IN_RAM

_SECONDS = 3.0
"""For one connection; a host that is off answers never."""


class HostProbes:
    """Implements ``ports.Probes``."""

    def unmet(self, condition: Condition) -> str:
        """See the port."""
        if condition.kind is Awaited.TCP:
            return _silent(condition.target, condition.port)
        return _away(condition.target)


def _away(path: str) -> str:
    """A folder in the system's own file system, or in RAM, waits to be mounted over."""
    try:
        os.stat(path)  # noqa: PTH116 - which has an automounter mount it
        found = mount_of(Path(path))
        own = os.path.realpath(path) == found.point
    except OSError as error:
        return f"{path} is not there: {error.strerror or error}"
    if found.point == "/" or (found.kind in IN_RAM and not own):
        return f"nothing is mounted at {path}"
    return ""


def _silent(host: str, port: int) -> str:
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=_SECONDS):
            return ""
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return f"nothing answers at {host}:{port}: {reason}"
