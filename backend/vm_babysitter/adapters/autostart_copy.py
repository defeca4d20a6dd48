"""The copy of the autostart list beside the settings: implements ``ports.ListCopy``."""

from pathlib import Path

from vm_babysitter.domain.errors import SettingsFailed
from vm_babysitter.lib.atomicfile import write_atomically

_HEAD = "# vm-babysitter autostart 1\n"


class CopyFile:
    """Implements ``ports.ListCopy``; read by `scripts/autostart-guard`.

    A line `UUID <TAB> delay <TAB> name` for each VM, in order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, lines: tuple[tuple[str, int, str], ...]) -> None:
        """See the port: the flash drive wears out, so nothing is written where nothing changed."""
        rows = [f"{uuid}\t{delay}\t{_plain(name)}\n" for uuid, delay, name in lines]
        content = (_HEAD + "".join(rows)).encode(errors="surrogateescape")
        try:
            old = self._path.read_bytes() if self._path.is_file() else None
            if old != content and (lines or old is not None):
                write_atomically(self._path, content)
        except OSError as error:
            raise SettingsFailed(str(self._path), error.strerror or str(error)) from error


def _plain(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name)
