"""Restore points: what the manifest of one says, and the names that follow from it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from vm_babysitter.domain.reread import Reread


class Method(StrEnum):
    """How the content of one disk came into one point."""

    FULL = "full"
    """Everything, without a parent."""
    BITMAP = "bitmap"
    """What the change tracking of an ancestor had marked."""
    SCAN = "scan"
    """The whole disk was read and compared with the parent."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment since which bitmaps record; libvirt can be told about it again."""

    name: str
    created: int
    """Seconds since the epoch."""
    disks: tuple[str, ...]
    """Targets that got a bitmap."""
    per_disk: bool = False
    """Whether the bitmap of each disk has a name of its own, see ``bitmap_name``.

    Points of earlier versions have one name for all their disks.
    """

    def bitmap(self, target: str) -> str:
        """Return the name of a disk's bitmap."""
        return bitmap_name(self.name, target) if self.per_disk else self.name

    @property
    def ambiguous(self) -> bool:
        """Whether a bitmap's name does not tell which disk it belongs to."""
        return not self.per_disk and len(self.disks) > 1


@dataclass(frozen=True, slots=True)
class PointDisk:
    """One disk in one restore point."""

    target: str
    method: Method
    file: str
    """Name of the image inside the point's directory."""
    index: str
    """Name of the block index inside the point's directory."""
    virtual_size: int
    """Bytes, as the export had it."""
    file_size: int
    """Bytes of the image file."""
    digest: str
    index_digest: str
    index_entries: int
    read_bytes: int
    """Bytes read from the VM's disk for this point."""
    written_bytes: int
    """Bytes of content stored, zeros left aside."""
    zeroed_bytes: int
    """Bytes (in whole blocks) that had content in the parent and are zero now."""
    path: str
    """The image that QEMU had open."""
    identity: str
    source_format: str
    """What the VM uses it as."""
    reason: str
    """Why this method, in a user's words."""
    parent: str | None = None
    """Directory name of the point whose image of this disk is the backing file."""
    parent_file: str = ""
    """Name of that image; empty where it is that of this one: the disk had the same target."""
    encrypted: bool = False
    """Whether the VM's image is encrypted on the host; the point holds what the VM sees."""
    reread: Reread | None = None
    """How far re-reading the unchanged blocks has come; None: a turn is complete."""
    compression: str = ""
    """How blocks that shrink are stored in the image: ``zstd``, ``zlib``, or empty for as is."""

    @property
    def backing(self) -> str | None:
        """The backing file as the image names it, None without one."""
        if self.parent is None:
            return None
        return f"../{self.parent}/{self.parent_file or self.file}"


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file beside the disks: the VM's definition and such."""

    name: str
    size: int
    digest: str
    origin: str = ""
    """Where it lay; empty for what was no file."""
    format: str = ""
    """What the VM uses it as (``raw``, ``qcow2``); empty for what is no image."""


@dataclass(frozen=True, slots=True)
class Point:
    """The manifest of one restore point."""

    vm_uuid: str
    vm_name: str
    chain_id: str
    seq: int
    nonce: str
    """Six hex digits, new for each attempt."""
    level: Literal["full", "inc"]
    parent: int | None
    """Sequence number of the parent point, None for a full."""
    started: datetime
    taken: datetime
    """The moment that a restore brings back (UTC)."""
    finished: datetime
    disks: tuple[PointDisk, ...]
    files: tuple[SavedFile, ...]
    checkpoint: Checkpoint | None
    quiesced: bool
    quiesce_note: str
    warnings: tuple[str, ...]
    versions: dict[str, str]
    autostart: bool | None = None
    """Whether the VM starts with the host; None where that was not noted."""
    off: bool = False
    """Whether the VM was off."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of the VM and needs nobody's attention."""
    parent_nonce: str = ""
    """Nonce of the parent point: another one of its number is not what this one was made on.

    Empty for a full, and in points of earlier versions.
    """

    @property
    def directory(self) -> str:
        """The name of this point's directory."""
        return point_directory(self.seq, self.level)

    def disk(self, target: str) -> PointDisk | None:
        """Return this point's disk of that target."""
        return next((d for d in self.disks if d.target == target), None)

    def disk_in(self, file: str) -> PointDisk | None:
        """Return this point's disk whose image has that name."""
        return next((d for d in self.disks if d.file == file), None)


def point_directory(seq: int, level: str) -> str:
    """Return the directory name of a point: ``000000-full``, ``000001-inc``."""
    return f"{seq:06d}-{level}"


def checkpoint_name(chain_id: str, seq: int, nonce: str) -> str:
    """Return the name of an attempt's checkpoint. It is never used twice."""
    return f"{checkpoint_prefix(chain_id)}{seq:06d}-{nonce}"


def bitmap_name(checkpoint: str, target: str) -> str:
    """Return the name of one disk's bitmap, which is that of its checkpoint in libvirt too.

    It means one moment of one disk and is never used twice. So whatever image has a sound
    bitmap of this name descends from the disk at that moment, with all changes recorded,
    wherever it was copied or moved to.
    """
    return f"{checkpoint}-{target}"


def checkpoint_prefix(chain_id: str) -> str:
    """Return what the names of all checkpoints of a chain begin with."""
    return f"vmb-{chain8(chain_id)}-"


def chain8(chain_id: str) -> str:
    """Return the eight hex digits of a chain's id that its checkpoints carry."""
    return chain_id.replace("-", "")[:8]
