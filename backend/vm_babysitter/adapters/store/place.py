"""Is a path fit to hold backups? Looks only; changes nothing."""

import os
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.adapters.store import layout
from vm_babysitter.domain.errors import StoreRefused
from vm_babysitter.domain.store_check import IN_RAM

_HARMLESS = layout.HARMLESS | {
    f".{layout.STORE_FILE}.tmp",  # of a first backup that died at once
    layout.LOCK_FILE,
    layout.LEASE_FILE,
}


def check_place(path: Path, *, writable: bool, allow_ram: bool) -> None:
    """Refuse what cannot be a backup folder.

    Args:
        path: the folder.
        writable: whether it is going to be written to; reading needs no more than it says.
        allow_ram: whether it may lie in RAM.

    Raises:
        StoreRefused: missing, not a directory, not writable, or in RAM.
    """
    if not path.exists():
        raise StoreRefused(str(path), "it does not exist", "Create it, or name another folder.")
    if not path.is_dir():
        raise StoreRefused(str(path), "it is not a folder", "Name a folder.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise StoreRefused(str(path), "it cannot be read", "Check its permissions.")
    if writable and (not os.access(path, os.W_OK) or _read_only(path)):
        raise StoreRefused(
            str(path), "it cannot be written to", "Check its permissions and how it is mounted."
        )
    kind = filesystem_type(path)
    if kind in IN_RAM and not allow_ram:
        raise StoreRefused(
            str(path),
            f"it lies in RAM ({kind}) and would be gone after a reboot",
            "Name a folder on a disk, or check that the disk is mounted.",
        )


def foreign_entries(path: Path) -> tuple[str, ...]:
    """Return the names of what lies in a folder and is neither ours nor harmless."""
    return tuple(
        sorted(
            entry.name
            for entry in path.iterdir()
            if entry.name not in _HARMLESS
            and not entry.name.startswith(layout.CHECK_PREFIX)
            and not _has_backups(entry)
        )
    )


def check_new_place(path: Path) -> None:
    """Refuse to begin a backup folder among other things. Raises StoreRefused.

    Backups that lost their ``store.json`` are not other things.
    """
    foreign = foreign_entries(path)
    if foreign:
        raise StoreRefused(
            str(path),
            f"it holds no backups of ours but other things ({', '.join(foreign[:3])})",
            "Name an empty folder, for instance a new one inside it.",
        )


def check_holds_backups(path: Path) -> None:
    """Refuse to read a folder without any backups. Raises StoreRefused."""
    if not any(path.iterdir()):
        raise StoreRefused(
            str(path),
            "it is empty, there are no backups yet",
            "Is its disk mounted? If it is new, make a backup first; else name another folder.",
        )
    if not any(map(_has_backups, path.iterdir())):
        raise StoreRefused(
            str(path), "it holds no backups yet", "Make a backup first, or name another folder."
        )


def _has_backups(entry: Path) -> bool:
    """Whether this is the folder of a VM's backups: its mark says so, or else its points."""
    return (entry / layout.VM_FILE).is_file() or any(entry.glob(f"*/*/{layout.POINT_FILE}"))


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system and where it is."""

    point: str
    kind: str
    """``ext4``, ``tmpfs``, …; empty if none is known."""
    source: str


def mount_of(path: Path, mounts: str | None = None) -> Mount:
    """Return the file system that holds ``path``.

    ``mounts`` is the text of ``/proc/self/mountinfo``; it is read where not given.
    """
    text = mounts
    if text is None:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    wanted = str(path.resolve())
    best = Mount("", "", "")
    for line in filter(None, text.split("\n")):  # names may hold what else ends a line
        before, _, after = line.partition(" - ")
        mount = _unescaped(before.split(" ")[4])
        inside = wanted == mount or wanted.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best.point):  # later mounts hide earlier ones
            kind, source, *_ = [*after.split(" "), ""]
            best = Mount(mount, kind, _unescaped(source))
    return best


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds ``path``, see ``mount_of``."""
    return mount_of(path, mounts).kind


def _unescaped(text: str) -> str:
    escaped = text.encode(errors="surrogateescape").decode("unicode_escape").encode("latin-1")
    return escaped.decode(errors="surrogateescape")


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
