"""Tries, in an empty folder, what a backup folder must be able to do.

Each trial returns what does not work, empty if it does; an OSError of it says so as well.
"""

import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vm_babysitter.adapters.process import execute
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.store_check import Trial
from vm_babysitter.lib.atomicfile import fsync_directory, write_new

_GIB4 = 4 << 30
_PIECE = 64 << 10
_HOLE = 16 << 20
_RENAMES = 100
_PLAIN = "Windows 11 (x64), 2nd ~ copy_" + "x" * 51 + "-c0ffee00-1111-4222-8333-444455556666"
"""As long as the longest name that backups have."""
_ODD = "größe 猫 é🙂 'a' & $(b) !#%;=@[]^`{}"
_SECONDS = 20.0
_LOCKED = 3
_ASK = f"""
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit({_LOCKED})
"""


def try_all(folder: Path) -> tuple[tuple[Trial, str], ...]:
    """Try everything; a trial that another one makes senseless is left out."""
    found: dict[Trial, str] = {}
    for trial, attempt in _TRIALS:
        if trial is Trial.BIG and found[Trial.SPARSE]:
            attempt = _reaches_big_offsets  # noqa: PLW2901 - four GiB of zeros would be written
        try:
            found[trial] = attempt(folder)
        except OSError as error:
            found[trial] = error.strerror or str(error)
    return tuple(found.items())


def is_case_blind(folder: Path) -> bool:
    """Whether a file is found by its name in other letters."""
    try:
        write_new(folder / "case", b"")
        return (folder / "CASE").exists()
    except OSError:
        return False


def _replaces(folder: Path) -> str:
    path, new = folder / "document", folder / ".document.tmp"
    write_new(path, b"old")
    write_new(new, b"new")
    new.rename(path)
    if path.read_bytes() != b"new" or new.exists():
        return "a file that was renamed has not replaced the other"
    return ""


def _replaces_at_once(folder: Path) -> str:
    """Rename over a file while somebody reads it again and again."""
    path, new = folder / "read", folder / ".read.tmp"
    write_new(path, b"0")
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                if not path.read_bytes():
                    problems.append("it is empty for a moment")
            except OSError as error:
                problems.append(f"it is away for a moment ({error.strerror})")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(_RENAMES):
            write_new(new, str(number).encode())
            new.rename(path)
    finally:
        done.set()
        reader.join()
    return problems[0] if problems else ""


def _syncs(folder: Path) -> str:
    write_new(folder / "synced", bytes(_PIECE))
    fsync_directory(folder)
    return ""


def _creates_once(folder: Path) -> str:
    write_new(folder / "once", b"")
    try:
        write_new(folder / "once", b"")
    except FileExistsError:
        return ""
    return "a file was made a second time under the name of the first"


@contextmanager
def _open(path: Path) -> Iterator[int]:
    # New files only: whoever may write to the place must not lead us elsewhere by a link.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(folder: Path) -> str:
    """Lock a file and have another program try the same."""
    path = folder / "locked"
    with _open(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            asked = execute([sys.executable, "-I", "-c", _ASK, str(path)], timeout=_SECONDS)
        except BabysitterError as error:
            return str(error)
    if asked.status == _LOCKED:
        return ""
    return "a second program does not see the lock of the first"


def _keeps_holes(folder: Path) -> str:
    path = folder / "sparse"
    with _open(path) as descriptor:
        os.pwrite(descriptor, b"x" * _PIECE, _HOLE)
        os.fsync(descriptor)
        taken = os.fstat(descriptor).st_blocks * 512
    path.unlink()
    return "" if taken < _HOLE // 2 else "a file that is empty but for its end takes its full size"


def _writes_big_offsets(folder: Path) -> str:
    path, piece = folder / "big", b"x" * _PIECE
    with _open(path) as descriptor:
        os.pwrite(descriptor, piece, _GIB4 + 1)
        os.fsync(descriptor)
        right = os.pread(descriptor, _PIECE + 1, _GIB4 + 1) == piece
    path.unlink()
    return "" if right else "what is written beyond 4 GiB does not come back"


def _reaches_big_offsets(folder: Path) -> str:
    """Ask only whether there are such places in a file: nothing is written."""
    with _open(folder / "big") as descriptor:
        os.lseek(descriptor, _GIB4 + 1, os.SEEK_SET)
    return ""


def _takes_names(folder: Path) -> str:
    return _takes(folder, _PLAIN)


def _takes_odd_names(folder: Path) -> str:
    return _takes(folder, _ODD)


def _takes(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    kept = name in os.listdir(folder)  # noqa: PTH208 - names as they are
    with suppress(OSError):
        (folder / name).rmdir()
    return "" if kept else f"the name {name!r} is changed"


_TRIALS: tuple[tuple[Trial, Callable[[Path], str]], ...] = (
    (Trial.RENAME, _replaces),
    (Trial.AT_ONCE, _replaces_at_once),
    (Trial.FSYNC, _syncs),
    (Trial.EXCLUSIVE, _creates_once),
    (Trial.LOCK, _locks),
    (Trial.SPARSE, _keeps_holes),
    (Trial.BIG, _writes_big_offsets),
    (Trial.NAMES, _takes_names),
    (Trial.ODD_NAMES, _takes_odd_names),
)
