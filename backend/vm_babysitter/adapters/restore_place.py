"""Where a restore puts its files: an empty or new directory, filled wholly or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vm_babysitter.adapters.room import room
from vm_babysitter.domain.errors import InvalidInput, NotEnoughSpace, StoreFailed
from vm_babysitter.lib.atomicfile import fsync_directory, rename_new, write_new

_WORKING = "unfinished.partial"
_FIELD = "--to"


class _Files:
    """Implements ``ports.RestoreFiles``: files lie in a folder of their own until all are whole.

    Whoever makes that folder has the place for himself: of two restores only one does.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._working = directory / _WORKING
        self._begun: list[Path] = []
        self._placed: list[Path] = []

    def begin(self, name: str) -> Path:
        if Path(name).name != name or name in {"", "..", _WORKING}:
            raise ValueError(f"{name!r} is no name of a file")
        path = self._working / name
        self._begun.append(path)
        return path

    def copy(self, source: Path, path: Path) -> None:
        write_new(path, source.read_bytes())  # readable by its owner only: it may hold passwords

    def final(self, path: Path) -> Path:
        return self._directory / path.name

    def take_place(self) -> None:
        """Make the working folder. Raises FileExistsError."""
        self._working.mkdir(mode=0o700)

    def finish(self) -> None:
        """Have all files on stable storage, under their names."""
        for path in self._begun:
            _sync(path)
        for path in self._begun:
            rename_new(path, self.final(path))
            self._placed.append(self.final(path))
        self._working.rmdir()
        fsync_directory(self._directory)
        fsync_directory(self._directory.absolute().parent)

    def remove(self) -> None:
        """Remove all that was made here."""
        for path in self._placed:
            with suppress(OSError):
                path.unlink()
        shutil.rmtree(self._working, ignore_errors=True)


class EmptyDirectory:
    """Implements ``ports.RestorePlace`` on a directory that is new or empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def fill(self, needed: int) -> Iterator[_Files]:
        """See the port."""
        files = _Files(self._path)
        try:
            self._check(needed)
            made = self._make()
            files.take_place()
        except FileExistsError as error:
            raise self._not_empty() from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            yield files
            files.finish()
        except BaseException as error:
            files.remove()
            if made:
                with suppress(OSError):  # somebody may have put something there
                    self._path.rmdir()
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise

    def _make(self) -> bool:
        """Make the folder; return whether it was not there yet."""
        try:
            self._path.mkdir()
        except FileExistsError:
            return False
        return True

    def _failed(self, error: OSError) -> StoreFailed:
        return StoreFailed(str(self._path), error.strerror or str(error))

    def _not_empty(self) -> InvalidInput:
        return InvalidInput(
            _FIELD, str(self._path), "is not empty", "Name a new folder; nothing is overwritten."
        )

    def _check(self, needed: int) -> None:
        path = self._path
        if os.path.lexists(path):
            if not path.is_dir():
                raise InvalidInput(_FIELD, str(path), "is not a folder", "Name a folder.")
            if any(path.iterdir()):
                raise self._not_empty()
        elif not path.parent.is_dir():
            raise InvalidInput(
                _FIELD, str(path), "lies in a folder that does not exist", "Create that folder."
            )
        if not os.access(path if path.exists() else path.parent, os.W_OK | os.X_OK):
            raise InvalidInput(_FIELD, str(path), "cannot be written to", "Check its permissions.")
        free = room(path if path.exists() else path.parent).free
        if free < needed:
            raise NotEnoughSpace(str(path), free, needed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
