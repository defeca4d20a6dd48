"""Errors about VMs, and about libvirt, which runs them."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError, Exit


@dataclass(eq=False)
class VmNotFound(BabysitterError):
    """No persistent VM has this name or UUID."""

    code: ClassVar[str] = "vm-not-found"
    exit_code: ClassVar[Exit] = Exit.NOT_FOUND
    template: ClassVar[str] = "There is no persistent VM named {name!r}."
    hint_template: ClassVar[str] = "`vm-babysitter vms` lists the VMs there are."
    name: str


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
    hint_template: ClassVar[str] = (
        "Earlier restore points are unharmed; another backup can be made."
    )
    transient: ClassVar[bool] = True
    vm: str


@dataclass(eq=False)
class VmInUse(BabysitterError):
    """A VM that was off came into use while it was being backed up."""

    code: ClassVar[str] = "vm-in-use"
    exit_code: ClassVar[Exit] = Exit.BUSY
    template: ClassVar[str] = "VM {vm!r}, which was off, came into use during its backup: {reason}."
    hint_template: ClassVar[str] = (
        "Earlier restore points are unharmed; another backup can be made."
    )
    transient: ClassVar[bool] = True
    vm: str
    reason: str


@dataclass(eq=False)
class VmStuck(BabysitterError):
    """QEMU paused the VM in the middle of a backup."""

    code: ClassVar[str] = "vm-stuck"
    template: ClassVar[str] = "QEMU paused {vm!r} because of a disk error: the backup was given up."
    hint_template: ClassVar[str] = "Look at the disks that its images lie on, and their space."
    vm: str


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
    hint_template: ClassVar[str] = "Is the VM service on (Settings, VM Manager)?"
    transient: ClassVar[bool] = True
    uri: str
    reason: str


@dataclass(eq=False)
class HypervisorMissing(BabysitterError):
    """libvirt's Python module, or what it needs, is not installed."""

    code: ClassVar[str] = "hypervisor-missing"
    template: ClassVar[str] = "libvirt's module for Python cannot be used: {reason}."
    hint_template: ClassVar[str] = (
        "Install it (Debian: python3-libvirt and python3-lxml). `points`, `verify` and `restore` "
        "need none."
    )
    reason: str
