"""Working space of running backups: scratch files beside the disks, and job sockets."""

import os
import stat
from pathlib import Path

from vm_babysitter.domain.errors import ScratchUnfit, StoreFailed

MIN_FREE = 64 << 20
"""Bytes that must be free where scratch files go."""
_PROBE = b"vm-babysitter probe\n"


class Workspace:
    """Implements ``ports.ScratchPlaces``."""

    def __init__(self, runtime: Path, fallback: Path) -> None:
        """Use ``runtime`` for sockets and ``fallback`` for scratch that has no folder.

        Block devices have no folder to put scratch beside them.
        """
        self._runtime = runtime
        self._fallback = fallback.absolute()  # QEMU has a working directory of its own

    def scratch_path(self, disk_path: str, nonce: str, target: str) -> str:
        """See the port."""
        path = Path(disk_path)
        folder = path.parent if path.is_file() else self._fallback
        return str(folder / f".vmb-{nonce}-{target}.scratch")

    def probe(self, path: str) -> str:
        """See the port."""
        trial = Path(f"{path}.probe")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(trial, flags, 0o600)
            try:
                os.write(descriptor, _PROBE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                trial.unlink()
            state = os.statvfs(trial.parent)
        except OSError as error:
            return error.strerror or str(error)
        free = state.f_bavail * state.f_frsize
        if free < MIN_FREE:
            return f"only {free} bytes are free there"
        return ""

    def socket_path(self, nonce: str) -> str:
        """See the port."""
        path = self._runtime / f"job-{nonce}.socket"
        try:
            self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ScratchUnfit(str(path), error.strerror or str(error)) from error
        return str(path)

    def remove(self, path: str, nonce: str) -> None:
        """See the port."""
        file = Path(path)
        if nonce not in file.name:  # not a name that this attempt can have made
            return
        for name in (file, Path(f"{path}.probe")):
            try:
                mode = name.lstat().st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
                try:
                    name.unlink()
                except OSError as error:
                    raise StoreFailed(path, error.strerror or str(error)) from error
