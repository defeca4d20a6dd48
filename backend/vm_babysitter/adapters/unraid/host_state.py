"""What an Unraid server is busy with, from the files in which its own pages look it up."""

import os
from pathlib import Path

from vm_babysitter.domain.host_state import HostState

_STATE = "var/local/emhttp/var.ini"
_MOVER = "var/run/mover.pid"
_ACTIONS = {
    "check": "a parity check",
    "recon": "the rebuild of a disk",
    "clear": "the clearing of a new disk",
}


class UnraidState:
    """Implements ``ports.HostBusy``; on other systems nothing is ever under way."""

    def __init__(self, root: Path = Path("/")) -> None:
        """``root`` is where the host's file system begins."""
        self._root = root

    def __call__(self) -> HostState:
        """See the port."""
        values = _ini(self._root / _STATE)
        return HostState(values.get("fsState", ""), _parity(values), self._mover())

    def _mover(self) -> bool:
        """Whether the process that the mover's file names lives; a crash leaves that file."""
        try:
            pid = int((self._root / _MOVER).read_text().split()[0])
            return pid > 0 and (self._root / "proc" / str(pid)).is_dir()
        except (OSError, ValueError, IndexError):
            return False


def _parity(values: dict[str, str]) -> str:
    """Say what is done to parity: not paused, which Unraid tells by a time of no seconds."""
    if _number(values.get("mdResyncPos", "")) <= 0 or not _number(values.get("mdResyncDt", "")):
        return ""
    words = values.get("mdResyncAction", "").split()
    return _ACTIONS.get(words[0] if words else "", "a check or rebuild of the array")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _ini(path: Path) -> dict[str, str]:
    """Return the values of such a file, as far as it has any; Unraid writes it anew at any time."""
    try:
        # A pipe would keep us waiting for ever without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            lines = os.read(descriptor, 1 << 20).decode(errors="replace").splitlines()
        finally:
            os.close(descriptor)
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip().strip('"') for name, mark, value in pairs if mark}
