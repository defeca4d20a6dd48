"""Turning a raw disk into a qcow2 one: names, notes, and what may be converted. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from vm_babysitter.domain.vm import Disk, DiskKind

NEW_FORMAT, OLD_FORMAT = "qcow2", "raw"
_RAW_EXTENSIONS = frozenset({".img", ".raw", ".dd", ".bin"})
_NONCE = re.compile("[0-9a-f]{6,32}")
_NOTE = ".vmb-convert.json"
_PARTIAL = ".vmb-partial-"
_MAPPED_BY_A_BYTE = 4096
"""Bytes of disk for each byte of the L2 tables (8 for 64 KiB), with as much again to be safe."""
_TABLES = 1 << 20
_MOST_NAME_BYTES = 255 - len("..tmp")  # as long as a name can be, less what writing a note adds


def new_name(path: str) -> str:
    """Return where the new image of a raw one goes: beside it, its extension replaced.

    An extension that raw images do not usually have is part of the name, and stays.
    """
    old = PurePosixPath(path)
    stem = old.stem if old.suffix.lower() in _RAW_EXTENSIONS else old.name
    return str(old.with_name(f"{stem}.{NEW_FORMAT}"))


def note_path(new_path: str) -> str:
    """Return where the note on the conversion to this image lies."""
    return f"{new_path}{_NOTE}"


def partial_path(new_path: str, nonce: str) -> str:
    """Return what a new image is called while it is being written."""
    return f"{new_path}{_PARTIAL}{nonce}"


def name_too_long(new_path: str) -> bool:
    """Whether some file system would not take the names that belong to a new image."""
    return len(PurePosixPath(note_path(new_path)).name.encode()) > _MOST_NAME_BYTES


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file as its file system tells of it. Every write changes some of it."""

    device: int
    inode: int
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since the epoch."""
    changed: int
    """Nanoseconds since the epoch; unlike ``modified`` nobody can set it."""
    allocated: int
    """Bytes that it takes of its file system."""
    links: int
    """How many names it has."""
    plain: bool
    """Whether it is a regular file and no link to one."""

    @property
    def place(self) -> tuple[int, int]:
        """Tells it from all other files that there are at this moment."""
        return self.device, self.inode

    @property
    def mark(self) -> "Mark":
        """By what it is known again later."""
        return Mark(self.inode, self.size, self.modified, self.changed)


@dataclass(frozen=True, slots=True)
class Mark:
    """By what a file is known again: the same after a reboot, another one after every write."""

    inode: int
    size: int
    modified: int
    changed: int

    def same_content(self, other: "Mark") -> bool:
        """Whether it is the same file and not written since, whatever names it got meanwhile."""
        return (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)


class Stage(StrEnum):
    """How far a conversion has come, as its note tells."""

    COPYING = "copying"
    """The new image is being written under its provisional name."""
    WHOLE = "whole"
    """It is complete, and about to get its own name."""
    SWITCHING = "switching"
    """The definition is about to name the new image, or does already."""
    DONE = "done"
    """The definition names the new image, and nobody can have used the old one since."""
    UNDONE = "undone"
    """The definition names the old image again."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is put down of a conversion, beside the new image."""

    vm_uuid: str
    vm_name: str
    target: str
    old_source: str
    """As the definition had it."""
    old_path: str
    """The file itself."""
    old: Mark
    new_source: str
    new_path: str
    nonce: str
    stage: Stage
    begun: datetime
    new: Mark | None = None
    """From the stage ``whole`` on."""
    switched: datetime | None = None
    undone: datetime | None = None

    def is_of(self, vm_uuid: str, target: str, new_path: str) -> bool:
        """Whether it tells of this disk and this image, and of nothing that we would not write.

        Whoever may write to the folder can put a note there that names the files of others.
        """
        return (
            (self.vm_uuid, self.target, self.new_path) == (vm_uuid, target, new_path)
            and new_name(self.old_path) == self.new_path
            and new_name(self.old_source) == self.new_source
            and PurePosixPath(self.old_source).name == PurePosixPath(self.old_path).name
            and _NONCE.fullmatch(self.nonce) is not None
        )

    def copied(self, old: ImageFile | None) -> bool:
        """Whether this file is the raw image that was copied, whatever was written to it since."""
        return (
            old is not None
            and old.plain
            and old.inode == self.old.inode
            and old.size >= self.old.size
        )

    def made(self, new: ImageFile | None) -> bool:
        """Whether this file is the image that the conversion made, never written since."""
        if new is None or self.new is None or not new.plain:
            return False
        if self.stage is Stage.WHOLE:  # its getting a name is a change, too
            return self.new.same_content(new.mark)
        return self.new == new.mark


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a disk is not converted, and what to do about it."""

    reason: str
    way_out: str = ""


_DISK_RULES: tuple[tuple[Callable[[Disk], bool], str, str], ...] = (
    (lambda d: d.kind is not DiskKind.DISK, "it is a {kind}, not a disk", ""),
    (
        lambda d: d.source_type != "file",
        "its source is of type {source_type!r}; only plain files are converted",
        "Copy its content into an image file and give the VM that.",
    ),
    (
        lambda d: d.read_only,
        "it is read-only, so there are no changes to track",
        "Leave it as it is.",
    ),
    (
        lambda d: d.shareable,
        "it is shared with other VMs, which qcow2 images cannot be",
        "Leave it as it is.",
    ),
    (
        lambda d: d.transient,
        "it is transient: its changes are thrown away at power-off",
        "Leave it as it is.",
    ),
    (
        lambda d: bool(d.unreadable),
        "its image {source!r} cannot be read: {unreadable}",
        "See to it that the file is there and can be read.",
    ),
    (
        lambda d: not d.direct,
        "its image {source!r} lies in a share, and cannot be found on its disk or pool, where QEMU "
        "would open it",
        "Have the definition name the file by its disk or pool.",
    ),
    (
        lambda d: d.declared_format != OLD_FORMAT and d.real_format == d.declared_format,
        "its image {source!r} is {real_format} already; only raw ones are converted",
        "",
    ),
    (
        lambda d: d.declared_format != OLD_FORMAT,
        "the definition calls its image {source!r} {declared_format!r}, but it is {real_format}",
        "Put the definition right first.",
    ),
    (
        lambda d: d.real_format != OLD_FORMAT,
        "the VM uses its image {source!r} as raw, but it looks like {real_format}",
        "Only an image that is nothing but the content of the disk can be converted.",
    ),
)


def disk_obstacle(disk: Disk) -> Obstacle | None:
    """Say what about a disk itself forbids to convert it; the first rule that fits."""
    for fits, reason, way_out in _DISK_RULES:
        if fits(disk):
            fields = {name: getattr(disk, name) for name in Disk.__slots__}
            return Obstacle(reason.format(**fields), way_out)
    return None


def file_obstacle(source: str, image: ImageFile) -> Obstacle | None:
    """Say what about an image file, as the definition names it, forbids to exchange it."""
    if not image.plain:
        return Obstacle(
            f"its image {source!r} is a link or no plain file, and the new image would lie "
            "elsewhere than the definition says",
            "Have the definition name the file itself.",
        )
    if image.links != 1:
        return Obstacle(
            f"its image {source!r} has {image.links} names (hard links); under the others the old "
            "image would live on",
            "Remove the other names, or leave the disk as it is.",
        )
    return None


def room_needed(image: ImageFile, virtual_size: int) -> int:
    """Return how many bytes a new image takes at most: the content and the tables to find it."""
    return image.allocated + virtual_size // _MAPPED_BY_A_BYTE + _TABLES
