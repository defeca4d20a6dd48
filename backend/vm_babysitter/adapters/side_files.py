"""Small files beside a VM's disks, read with care: who writes them may not be trusted.

QEMU and the TPM's emulator run as users with few rights, in folders of theirs. A link that one
of them put there must not make us, who may read everything, copy it into a backup.
"""

import os
import re
import stat

from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import SideContent

MAX_FILES = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class _UnfitError(Exception):
    """This is nothing that we read; the message goes on after its name."""


class LocalSideFiles:
    """Implements ``ports.SideFiles``."""

    def read(self, path: str, limit: int, *, folder: bool) -> SideContent:
        """See the port."""
        try:
            if folder:
                return _read_folder(path, limit)
            return SideContent((("", _read_file(path, limit)),))
        except (_UnfitError, OSError) as error:
            return SideContent(problems=(_sentence(path, error),))


def _read_folder(path: str, limit: int) -> SideContent:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        if len(names) > MAX_FILES:
            raise _UnfitError(f"holds more than {MAX_FILES} files")
        return _read_files(path, names, limit, descriptor)
    finally:
        os.close(descriptor)


def _read_files(path: str, names: list[str], limit: int, folder: int) -> SideContent:
    files, problems, left = [], [], limit
    for name in names:
        if not _NAME.fullmatch(name):
            problems.append(f"{f'{path}/{name}'!r} has an unusual name")
            continue
        try:
            content = _read_file(name, limit, folder)
        except FileNotFoundError:  # replaced or removed since the names were read
            continue
        except (_UnfitError, OSError) as error:
            problems.append(_sentence(f"{path}/{name}", error))
            continue
        left -= len(content)
        if left < 0:
            raise _UnfitError(f"holds more than {format_bytes(limit)}")
        files.append((name, content))
    if not files and not problems:
        problems.append(f"{path!r} is empty")
    return SideContent(tuple(files), tuple(problems))


def _read_file(path: str, limit: int, folder: int | None = None) -> bytes:
    # Looked at first because opening alone has an effect on some devices.
    _check(os.stat(path, dir_fd=folder, follow_symlinks=False))
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags, dir_fd=folder), "rb") as file:  # noqa: PTH123 - a descriptor
        _check(os.fstat(file.fileno()))
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _UnfitError(f"is larger than {format_bytes(limit)}")
    return content


def _check(state: os.stat_result) -> None:
    if stat.S_ISLNK(state.st_mode):
        raise _UnfitError("is a link, which is not followed")
    if not stat.S_ISREG(state.st_mode):
        raise _UnfitError("is no plain file")


def _sentence(path: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path!r}: {error.strerror or error}"
    return f"{path!r} {error}"
