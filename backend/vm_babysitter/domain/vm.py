"""A VM as we see it: its disks, its state, and what of it can be backed up."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class PowerState(StrEnum):
    """What the VM is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    STUCK = "paused by QEMU because of a disk error"
    OFF = "off"
    SHUTTING_DOWN = "shutting down"
    CRASHED = "crashed"
    SUSPENDED = "suspended by the guest"
    UNKNOWN = "unknown"


class Access(StrEnum):
    """How the disks of a VM can be read at one moment."""

    LIVE = "live"
    """Through its QEMU, whether the guest runs or not."""
    OFF = "off"
    """From the images, which nobody has open."""
    WAIT = "wait"
    """Not now: it will soon be one of the others."""


_ACCESS = {
    PowerState.RUNNING: Access.LIVE,
    PowerState.PAUSED: Access.LIVE,
    PowerState.STUCK: Access.LIVE,
    PowerState.SUSPENDED: Access.LIVE,
    PowerState.CRASHED: Access.LIVE,
    PowerState.OFF: Access.OFF,
    PowerState.SHUTTING_DOWN: Access.WAIT,
    PowerState.UNKNOWN: Access.WAIT,
}
QEMU_RUNS = frozenset(state for state, access in _ACCESS.items() if access is Access.LIVE)


def access_of(state: PowerState) -> Access:
    """Say how the disks of a VM in this state can be read."""
    return _ACCESS[state]


MOST_LAYERS = 200
"""Images of a disk that build on each other: libvirt's own limit."""


class DiskKind(StrEnum):
    """What the VM sees the disk as."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    LUN = "lun"


class Verdict(StrEnum):
    """How a disk is backed up, if at all."""

    TRACKED = "tracked"
    """qcow2: change tracking tells what to read."""
    COMPARED = "compared"
    """No change tracking possible: the whole disk is read and compared each time."""
    LEFT_OUT = "left out"
    """Not part of a backup, by its nature."""
    REFUSED = "refused"
    """Should be part of a backup and cannot be: the VM is not backed up without it."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a VM as its definition and its image file describe it."""

    target: str
    kind: DiskKind
    source_type: str
    """libvirt's word: file, block, network, volume, …; empty where nothing is inserted."""
    source: str
    """The path as the definition has it; empty where there is none."""
    path: str
    """The path that QEMU has open, links and shares resolved; empty where there is none."""
    read_only: bool = False
    shareable: bool = False
    transient: bool = False
    declared_format: str = ""
    """What the definition says; trusted for nothing but a warning."""
    real_format: str = ""
    """What the image says; empty where it was not or could not be read."""
    virtual_size: int = 0
    """Bytes; 0 where unknown."""
    allocated: int | None = None
    """Bytes that its content takes on the host; None where unknown, as with backing files."""
    compat: str = ""
    """qcow2's version (``0.10``, ``1.1``); empty for other formats."""
    data_file: str = ""
    """The file in which a qcow2 keeps its content, as the image names it; empty: in itself."""
    encrypted: bool = False
    """Whether the host keeps it encrypted and the VM sees it decrypted."""
    file_id: str = ""
    """Equal for two paths that name one file at the same time; empty where nothing is there."""
    unreadable: str = ""
    """Why the image could not be read; empty if it could."""
    error_policy: str = ""
    alias: str = ""
    direct: bool = True
    """Whether ``path`` is the file itself. Behind FUSE locks and writes would not meet QEMU's."""
    beneath: tuple[tuple[str, str], ...] = ()
    """The images beneath it, each with its format, as far as the definition names them itself.

    An empty path says that there is none, whatever the image says.
    """
    partial: bool = False
    """Whether the VM sees only a part of the image (``<slices>``)."""


@dataclass(frozen=True, slots=True)
class DiskVerdict:
    """How one disk is backed up and why, in a user's words."""

    disk: Disk
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A dirty bitmap in one layer of a disk."""

    name: str
    recording: bool
    inconsistent: bool
    dirty: int | None = None
    """Bytes that it has marked by now; None where QEMU does not tell."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a disk's backing chain."""

    path: str
    bitmaps: tuple[Bitmap, ...]

    def bitmap(self, name: str) -> Bitmap | None:
        """Return the bitmap of this name in this layer."""
        return next((b for b in self.bitmaps if b.name == name), None)


@dataclass(frozen=True, slots=True)
class DiskState:
    """What a running QEMU says of one disk, or the images of a VM that is off.

    Its layers are told from the active one down.
    """

    target: str
    identity: str
    """Tells one image from another at the same path; see FORMAT.md."""
    layers: tuple[Layer, ...]
    internal_snapshots: int = 0


@dataclass(frozen=True, slots=True)
class Vm:
    """A persistent VM."""

    uuid: str
    name: str
    state: PowerState
    disks: tuple[Disk, ...]


_SUPPORTED_SOURCES = frozenset({"file", "block"})
_RULES: tuple[tuple[Callable[[Disk], bool], Verdict, str], ...] = (
    (lambda d: d.kind is DiskKind.CDROM, Verdict.LEFT_OUT, "a CD/DVD drive"),
    (lambda d: d.kind is DiskKind.FLOPPY, Verdict.LEFT_OUT, "a floppy drive"),
    (
        lambda d: d.kind is DiskKind.LUN,
        Verdict.LEFT_OUT,
        "a SCSI device passed through; the host does not see its content",
    ),
    (lambda d: not d.source_type, Verdict.LEFT_OUT, "no image is inserted"),
    (lambda d: d.read_only, Verdict.LEFT_OUT, "read-only: the VM cannot change it"),
    (
        lambda d: d.transient,
        Verdict.LEFT_OUT,
        "transient: its changes are thrown away at power-off",
    ),
    (
        lambda d: d.source_type not in _SUPPORTED_SOURCES,
        Verdict.LEFT_OUT,
        "a source of type {source_type}, which cannot be read here",
    ),
    (
        lambda d: d.shareable,
        Verdict.LEFT_OUT,
        "shared with other VMs: no single moment of it could be kept",
    ),
    (lambda d: bool(d.unreadable), Verdict.REFUSED, "its image cannot be read: {unreadable}"),
    (
        lambda d: d.encrypted and d.real_format == "luks",
        Verdict.COMPARED,
        "an encrypted disk that cannot hold change tracking, is compared as a whole",
    ),
    (
        lambda d: d.real_format == "raw",
        Verdict.COMPARED,
        "raw: cannot hold change tracking, is compared as a whole",
    ),
    (
        lambda d: d.declared_format not in {"", d.real_format},
        Verdict.COMPARED,
        "the VM uses the {real_format} file as {declared_format}: compared as a whole",
    ),
    (
        lambda d: d.real_format == "qcow2" and d.compat == "0.10",
        Verdict.COMPARED,
        "an old qcow2 (version 2) that cannot hold change tracking, is compared as a whole",
    ),
    (
        lambda d: bool(d.data_file),
        Verdict.COMPARED,
        "a qcow2 whose content lies in another file ({data_file}), which can change without it: "
        "compared as a whole",
    ),
    (
        lambda d: d.real_format == "qcow2",
        Verdict.TRACKED,
        "qcow2: change tracking tells what to read",
    ),
    (
        lambda _: True,
        Verdict.COMPARED,
        "{real_format}: cannot hold change tracking, is compared as a whole",
    ),
)
"""The first rule that fits a disk decides."""


def judge_disk(disk: Disk) -> DiskVerdict:
    """Say how one disk is backed up."""
    verdict, words = next((v, words) for fits, v, words in _RULES if fits(disk))
    fields = {name: getattr(disk, name) for name in Disk.__slots__}
    return DiskVerdict(disk, verdict, words.format(**fields))


def worth_mentioning(verdict: DiskVerdict) -> bool:
    """Whether a user may miss this disk in the backup: it is left out and holds data."""
    disk = verdict.disk
    data = disk.kind in {DiskKind.DISK, DiskKind.LUN} and disk.source_type and not disk.read_only
    return verdict.verdict is Verdict.LEFT_OUT and bool(data)


def eligible_disks(vm: Vm) -> tuple[DiskVerdict, ...]:
    """Return the verdicts of the disks that a backup of this VM contains."""
    taken = {Verdict.TRACKED, Verdict.COMPARED}
    return tuple(v for v in map(judge_disk, vm.disks) if v.verdict in taken)
