"""Where a restore puts its files: an empty or new directory, filled wholly or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vm_babysitter.domain.errors import InvalidInput, NotEnoughSpace, StoreFailed
from vm_babysitter.lib.atomicfile import fsync_directory, write_new

_PROVISIONAL = ".partial"
_FIELD = "--to"


class _Files:
    """Implements ``ports.RestoreFiles``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.made: list[Path] = []

    def begin(self, name: str) -> Path:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no name of a file")
        path = self._directory / (name + _PROVISIONAL)
        self.made.append(path)
        return path

    def copy(self, source: Path, path: Path) -> None:
        write_new(path, source.read_bytes())  # readable by its owner only: it may hold passwords

    def final(self, path: Path) -> Path:
        return path.with_name(path.name.removesuffix(_PROVISIONAL))


class EmptyDirectory:
    """Implements ``ports.RestorePlace`` on a directory that is new or empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def fill(self, needed: int) -> Iterator[_Files]:
        """See the port."""
        self._check(needed)
        made = not self._path.exists()
        files = _Files(self._path)
        try:
            self._path.mkdir(exist_ok=True)
            yield files
            for path in files.made:
                _sync(path)
            for position, path in enumerate(files.made):
                files.made[position] = _rename_new(path, files.final(path))
            fsync_directory(self._path)
            fsync_directory(self._path.absolute().parent)
        except BaseException as error:
            for path in files.made:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            if made:
                with suppress(OSError):
                    self._path.rmdir()
            if isinstance(error, OSError):
                raise StoreFailed(str(self._path), error.strerror or str(error)) from error
            raise

    def _check(self, needed: int) -> None:
        path = self._path
        if path.exists():
            if not path.is_dir():
                raise InvalidInput(_FIELD, str(path), "is not a folder", "Name a folder.")
            if any(path.iterdir()):
                raise InvalidInput(
                    _FIELD, str(path), "is not empty", "Name a new folder; nothing is overwritten."
                )
        elif not path.parent.is_dir():
            raise InvalidInput(
                _FIELD, str(path), "lies in a folder that does not exist", "Create that folder."
            )
        if not os.access(path if path.exists() else path.parent, os.W_OK | os.X_OK):
            raise InvalidInput(_FIELD, str(path), "cannot be written to", "Check its permissions.")
        state = os.statvfs(path if path.exists() else path.parent)
        free = state.f_bavail * state.f_frsize
        if free < needed:
            raise NotEnoughSpace(str(path), free, needed)


def _rename_new(path: Path, final: Path) -> Path:
    if final.exists():  # put there by somebody while we worked
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    path.rename(final)
    return final


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
