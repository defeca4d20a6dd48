"""Looks at a place that is to hold backups, and tries it: ``ports.StoreProbe``."""

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vm_babysitter.adapters.room import room
from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import StoreDocument
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.adapters.store.place import foreign_entries, mount_of
from vm_babysitter.adapters.store.trials import is_case_blind, try_all
from vm_babysitter.domain.errors import BabysitterError, Damaged, StoreFailed, StoreRefused
from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.store_check import Place
from vm_babysitter.ports import Clock, DiskPlace, ThisHost

_PREFIX = layout.CHECK_PREFIX
_IN_USE = ".in-use"
_LOCATION = "system.LOCATION"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
"""New files only: whoever may write to the place must not lead us elsewhere by a link."""
_PIECE = 1 << 20
_AMOUNT = 64 << 20
_LONGEST = 10.0
"""Seconds after which a slow place is slow enough."""


class LocalProbe:
    """Implements ``ports.StoreProbe``.

    It works in a folder of its own, with the host in its name. What a check that was killed has
    left is removed by the next one of this host: it is locked as long as its check lives.
    """

    def __init__(self, host: ThisHost, clock: Clock, *, allow_ram: bool = False) -> None:
        self._host = host
        self._clock = clock
        self._allow_ram = allow_ram
        self._own = re.compile(re.escape(f"{_PREFIX}{host.id[:8]}-") + "[0-9a-f]{6}")

    def look(self, path: Path, disks: Sequence[DiskPlace] = ()) -> Place:
        """See the port."""
        place = Place(str(path), allow_ram=self._allow_ram)
        if not path.exists():
            return replace(place, exists=False)
        if not path.is_dir():
            return replace(place, folder=False)
        place = replace(
            place, unreadable=_failure(lambda: list(path.iterdir())), unwritable=_unwritable(path)
        )
        place = self._try(path, _described(path, place, disks))
        return place if place.unreadable else self._read(path, place)

    def take_over(self, path: Path) -> Lease | None:
        """See the port."""
        if not (path / layout.STORE_FILE).is_file():
            raise StoreRefused(
                str(path), "it is no backup folder", "Only a backup folder belongs to a host."
            )
        lease = self._lease(path)
        try:
            had = lease.read()
        except (Damaged, StoreFailed):  # on a bad sector: writing tells if the place is gone
            had = None
        if had is not None and had.host == self._host.id:
            return None
        lease.take_over()
        return had

    def _lease(self, path: Path) -> StoreLease:
        return StoreLease(path, self._host, self._clock.now)

    def _read(self, path: Path, place: Place) -> Place:
        """Read what is in it already."""
        mark = path / layout.STORE_FILE
        if not os.path.lexists(mark):
            return replace(place, foreign=foreign_entries(path))
        try:
            documents.read(mark, "store", StoreDocument)
        except BabysitterError as error:
            return replace(place, is_store=True, store_problem=_reason(error))
        place = replace(place, is_store=True)
        try:
            lease = self._lease(path).read()
        except BabysitterError as error:
            return replace(place, lease_problem=_reason(error))
        return replace(place, lease=lease, own_lease=bool(lease and lease.host == self._host.id))

    def _try(self, path: Path, place: Place) -> Place:
        """Try it in a folder of our own."""
        if place.unwritable:
            return place
        try:
            with self._folder(path) as folder:
                place = replace(
                    place,
                    trials=try_all(folder),
                    case_blind=is_case_blind(folder),
                    location=_location(folder),
                )
                rates = _speed(folder) if _has_room(place) else (None, None)
                place = replace(place, write_rate=rates[0], read_rate=rates[1])
        except OSError as error:
            return replace(place, unwritable=error.strerror or str(error))
        left = [e.name for e in path.iterdir() if self._own.fullmatch(e.name)]
        return replace(place, left=", ".join(left))

    @contextmanager
    def _folder(self, path: Path) -> Iterator[Path]:
        """Make a folder for the time of the trials, and remove what earlier ones have left."""
        for entry in list(path.iterdir()):
            if self._own.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                _remove_dead(entry)
        folder = path / f"{_PREFIX}{self._host.id[:8]}-{self._clock.new_nonce()}"
        folder.mkdir(mode=0o700)
        descriptor = None
        try:
            descriptor = os.open(folder / _IN_USE, _NEW, 0o600)
            with suppress(OSError):  # a file system without locks says so in the trials
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if descriptor is not None:
                os.close(descriptor)
            # Network file systems keep files that are open under another name.
            shutil.rmtree(folder, ignore_errors=True)


def _remove_dead(folder: Path) -> None:
    """Remove the folder of a check that is no longer alive."""
    try:
        descriptor = os.open(folder / _IN_USE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # killed at its very beginning, or end
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
    finally:
        os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)


def _described(path: Path, place: Place, disks: Sequence[DiskPlace]) -> Place:
    mount = mount_of(path)
    with suppress(OSError):
        place = replace(place, room=room(path))
    beside = []
    for disk in disks:
        with suppress(OSError):
            if Path(disk.path).stat().st_dev == path.stat().st_dev and Path(disk.path).is_file():
                beside.append(disk.name)
    return replace(
        place,
        filesystem=mount.kind,
        mount=mount.point,
        source=mount.source,
        disks_beside=tuple(beside),
    )


def _reason(error: BabysitterError) -> str:
    return str(getattr(error, "reason", "") or error.message)


def _failure(action: Callable[[], Any]) -> str:
    try:
        action()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _unwritable(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is mounted read-only"
    return "" if os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def _location(folder: Path) -> str:
    """Return the disk or pool on which a user share of Unraid has put a new folder."""
    try:
        found = os.fsdecode(os.getxattr(folder, _LOCATION).rstrip(b"\0"))
    except OSError:
        return ""
    return "" if "/" in found else found


def _has_room(place: Place) -> bool:
    return place.room is not None and place.room.free > 4 * _AMOUNT


def _speed(folder: Path) -> tuple[float | None, float | None]:
    """Return how many bytes a second are written, and read; None where that fails."""
    path, piece = folder / "speed", bytearray(os.urandom(_PIECE))
    try:
        descriptor = os.open(path, _NEW, 0o600)
        try:
            began, written = time.monotonic(), 0
            while written < _AMOUNT and time.monotonic() - began < _LONGEST:
                piece[:8] = written.to_bytes(8, "little")  # no two alike
                written += os.write(descriptor, piece)
                if not written % (8 * _PIECE):
                    os.fsync(descriptor)
            os.fsync(descriptor)
            write_rate = written / max(time.monotonic() - began, 1e-6)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            began, read = time.monotonic(), 0
            while read < written and time.monotonic() - began < _LONGEST:
                read += len(os.pread(descriptor, _PIECE, read)) or written
            return write_rate, read / max(time.monotonic() - began, 1e-6)
        finally:
            os.close(descriptor)
    except OSError:
        return None, None
    finally:
        path.unlink(missing_ok=True)
