"""Everything that can go wrong, as types.

Each error has a stable ``code``, typed fields, a message made from them, and a hint that
says the way out. They become exit codes, problem documents and notifications at the edges.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from vm_babysitter.lib.units import format_bytes


class Exit(IntEnum):
    """Exit codes of the command line. They are promises."""

    OK = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    NOT_FOUND = 10
    BUSY = 11
    INTEGRITY = 12
    UNREACHABLE = 20
    CANCELLED = 130


class BabysitterError(Exception):
    """Base of all errors that we raise on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[Exit] = Exit.FAILED
    template: ClassVar[str] = ""
    hint_template: ClassVar[str] = ""
    transient: ClassVar[bool] = False
    """Whether the same call may well succeed later."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields of this error by name."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    @property
    def message(self) -> str:
        """One sentence: what is wrong."""
        return self.template.format(**self.fields)

    @property
    def hint(self) -> str:
        """One sentence: what to do about it; empty where nothing is to be said."""
        return self.hint_template.format(**self.fields)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(eq=False)
class InvalidInput(BabysitterError):
    """A value given by the user breaks a rule."""

    code: ClassVar[str] = "invalid-input"
    exit_code: ClassVar[Exit] = Exit.USAGE
    template: ClassVar[str] = "{field}: {value!r} {rule}."
    hint_template: ClassVar[str] = "{way_out}"
    field: str
    value: str
    rule: str
    way_out: str = ""


@dataclass(eq=False)
class VmNotFound(BabysitterError):
    """No persistent VM has this name or UUID."""

    code: ClassVar[str] = "vm-not-found"
    exit_code: ClassVar[Exit] = Exit.NOT_FOUND
    template: ClassVar[str] = "There is no persistent VM named {name!r}."
    hint_template: ClassVar[str] = "`vm-babysitter vms` lists the VMs there are."
    name: str


@dataclass(eq=False)
class PointNotFound(BabysitterError):
    """The store has no such restore point."""

    code: ClassVar[str] = "point-not-found"
    exit_code: ClassVar[Exit] = Exit.NOT_FOUND
    template: ClassVar[str] = "There is no restore point {point!r} of VM {vm!r}."
    hint_template: ClassVar[str] = "`vm-babysitter points` lists the restore points there are."
    vm: str
    point: str


@dataclass(eq=False)
class VmNotEligible(BabysitterError):
    """This VM cannot be backed up as it is."""

    code: ClassVar[str] = "vm-not-eligible"
    template: ClassVar[str] = "VM {vm!r} cannot be backed up: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    vm: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class VmStopped(BabysitterError):
    """The VM went off while it was being backed up."""

    code: ClassVar[str] = "vm-stopped"
    template: ClassVar[str] = "VM {vm!r} was switched off or crashed during its backup."
    hint_template: ClassVar[str] = "Earlier restore points are unharmed; back it up again."
    transient: ClassVar[bool] = True
    vm: str


@dataclass(eq=False)
class VmInUse(BabysitterError):
    """A VM that was off came into use while it was being backed up."""

    code: ClassVar[str] = "vm-in-use"
    exit_code: ClassVar[Exit] = Exit.BUSY
    template: ClassVar[str] = "VM {vm!r}, which was off, came into use during its backup: {reason}."
    hint_template: ClassVar[str] = "Earlier restore points are unharmed; back it up again."
    transient: ClassVar[bool] = True
    vm: str
    reason: str


@dataclass(eq=False)
class Busy(BabysitterError):
    """Somebody else is working on the same thing."""

    code: ClassVar[str] = "busy"
    exit_code: ClassVar[Exit] = Exit.BUSY
    template: ClassVar[str] = "{what} is busy: {reason}."
    hint_template: ClassVar[str] = "Try again when it is finished."
    transient: ClassVar[bool] = True
    what: str
    reason: str


@dataclass(eq=False)
class StoreRefused(BabysitterError):
    """The backup folder is not fit for use."""

    code: ClassVar[str] = "store-refused"
    template: ClassVar[str] = "The backup folder {path!r} cannot be used: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class StoreFailed(BabysitterError):
    """The backup folder failed while it was used (disk full, read-only, gone)."""

    code: ClassVar[str] = "store-failed"
    template: ClassVar[str] = "Using {path!r} failed: {reason}."
    hint_template: ClassVar[str] = "Earlier restore points are unharmed; the next backup goes on."
    path: str
    reason: str


@dataclass(eq=False)
class NotEnoughSpace(BabysitterError):
    """Less free space than is needed."""

    code: ClassVar[str] = "not-enough-space"
    template: ClassVar[str] = "{path!r} has {free_words} free, {needed_words} are needed."
    hint_template: ClassVar[str] = "Free some space there or choose another place."
    path: str
    free: int
    """Bytes."""
    needed: int
    """Bytes."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields, and their amounts in words."""
        words = {
            "free_words": format_bytes(self.free),
            "needed_words": format_bytes(self.needed),
        }
        return {"path": self.path, "free": self.free, "needed": self.needed, **words}


@dataclass(eq=False)
class SpaceRunningOut(BabysitterError):
    """A backup was given up before a file system ran full."""

    code: ClassVar[str] = "space-running-out"
    template: ClassVar[str] = (
        "{what} at {path!r} is running out, {free_words} are left: the backup was given up."
    )
    hint_template: ClassVar[str] = "Free some space there, or back up when the VM writes less."
    what: str
    path: str
    free: int
    """Bytes."""

    @property
    def fields(self) -> dict[str, object]:
        """The typed fields, and the amount in words."""
        words = {"free_words": format_bytes(self.free)}
        return {"what": self.what, "path": self.path, "free": self.free, **words}


@dataclass(eq=False)
class VmStuck(BabysitterError):
    """QEMU paused the VM in the middle of a backup."""

    code: ClassVar[str] = "vm-stuck"
    template: ClassVar[str] = "QEMU paused {vm!r} because of a disk error: the backup was given up."
    hint_template: ClassVar[str] = "Look at the disks that its images lie on, and their space."
    vm: str


@dataclass(eq=False)
class UnsupportedFormat(BabysitterError):
    """Written by a newer version of this program."""

    code: ClassVar[str] = "unsupported-format"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "{path!r} has format {found}; this version reads up to {known}."
    hint_template: ClassVar[str] = "Install a newer version of VM Babysitter. Nothing was changed."
    path: str
    found: int
    known: int


@dataclass(eq=False)
class Damaged(BabysitterError):
    """Something stored is not what was written."""

    code: ClassVar[str] = "damaged"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "{path!r} is damaged: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class ImageUnreadable(BabysitterError):
    """A disk image cannot be opened or understood."""

    code: ClassVar[str] = "image-unreadable"
    template: ClassVar[str] = "The disk image {path!r} cannot be read: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = "Check that the file exists and is a disk image."


@dataclass(eq=False)
class ImageRefused(BabysitterError):
    """A disk image is not written to, because that would not be safe or not work."""

    code: ClassVar[str] = "image-refused"
    template: ClassVar[str] = "The disk image {path!r} is not written to: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class CommandFailed(BabysitterError):
    """A program that we started failed."""

    code: ClassVar[str] = "command-failed"
    template: ClassVar[str] = "{program} failed with exit status {status}: {output}"
    program: str
    status: int
    output: str


@dataclass(eq=False)
class ProgramMissing(BabysitterError):
    """A program that we need is not installed."""

    code: ClassVar[str] = "program-missing"
    template: ClassVar[str] = "The program {program!r} is not installed."
    hint_template: ClassVar[str] = "Install it, or put it on the PATH."
    program: str


@dataclass(eq=False)
class HypervisorError(BabysitterError):
    """libvirt refused or failed."""

    code: ClassVar[str] = "hypervisor-error"
    template: ClassVar[str] = "{action} failed: {reason} (libvirt error {number})."
    action: str
    number: int
    reason: str


@dataclass(eq=False)
class HypervisorUnreachable(BabysitterError):
    """There is no connection to libvirt."""

    code: ClassVar[str] = "hypervisor-unreachable"
    template: ClassVar[str] = "libvirt cannot be reached at {uri!r}: {reason}."
    hint_template: ClassVar[str] = "Is the VM service running?"
    transient: ClassVar[bool] = True
    uri: str
    reason: str


@dataclass(eq=False)
class TransferFailed(BabysitterError):
    """Reading from or writing to an NBD export failed."""

    code: ClassVar[str] = "transfer-failed"
    template: ClassVar[str] = "{action} at offset {offset} failed: {reason}."
    transient: ClassVar[bool] = True
    action: str
    offset: int
    reason: str


@dataclass(eq=False)
class ProtocolViolation(BabysitterError):
    """The other side of an NBD connection broke the protocol."""

    code: ClassVar[str] = "protocol-violation"
    template: ClassVar[str] = "The NBD server broke the protocol: {reason}."
    reason: str


@dataclass(eq=False)
class ConnectionLost(BabysitterError):
    """The other side of a connection went away or fell silent."""

    code: ClassVar[str] = "connection-lost"
    template: ClassVar[str] = "The connection to {address!r} was lost: {reason}."
    transient: ClassVar[bool] = True
    address: str
    reason: str


@dataclass(eq=False)
class Cancelled(BabysitterError):
    """The user said stop."""

    code: ClassVar[str] = "cancelled"
    exit_code: ClassVar[Exit] = Exit.CANCELLED
    template: ClassVar[str] = "Stopped on request."
    hint_template: ClassVar[str] = "Nothing that was there before is lost."


@dataclass(eq=False)
class PointDamaged(BabysitterError):
    """A file of one restore point is not what was written."""

    code: ClassVar[str] = "point-damaged"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "Restore point {point} of VM {vm!r} is damaged: {reason}."
    hint_template: ClassVar[str] = "Other restore points may be whole: `verify` tells which."
    vm: str
    point: str
    seq: int
    reason: str


@dataclass(eq=False)
class ScratchUnfit(BabysitterError):
    """There is no place for the working space of a running backup."""

    code: ClassVar[str] = "scratch-unfit"
    template: ClassVar[str] = "The working space of the backup cannot be at {path!r}: {reason}."
    hint_template: ClassVar[str] = "It lies beside the VM's disk: check that folder."
    path: str
    reason: str


@dataclass(eq=False)
class NotConverted(BabysitterError):
    """A disk is not converted, or not converted back."""

    code: ClassVar[str] = "not-converted"
    template: ClassVar[str] = "Disk {disk!r} of VM {vm!r} stays as it is: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    vm: str
    disk: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class ConversionFailed(BabysitterError):
    """A file system failed while a disk was being converted."""

    code: ClassVar[str] = "conversion-failed"
    template: ClassVar[str] = "Converting failed at {path!r}: {reason}."
    hint_template: ClassVar[str] = "The VM's data is unharmed; run the same command again."
    path: str
    reason: str
