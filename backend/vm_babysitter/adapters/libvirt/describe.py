"""What libvirt and the images say of a VM, as our values."""

import stat
from collections.abc import Callable
from pathlib import Path

import libvirt

from vm_babysitter.adapters.libvirt import xml
from vm_babysitter.adapters.real_path import RealPath
from vm_babysitter.domain.errors import ImageUnreadable
from vm_babysitter.domain.vm import Disk, DiskKind, PowerState, Vm
from vm_babysitter.ports import ImageInfo

Probe = Callable[[Path], ImageInfo]
"""Describes an image file by its content. Raises ImageUnreadable."""
Resolve = Callable[[str], RealPath]
"""Says which file a path of a definition stands for."""
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.SUSPENDED,
}


def describe_if_there(
    domain: libvirt.virDomain, resolve: Resolve, probe: Probe | None
) -> Vm | None:
    """Describe a VM that may have been removed since it was listed."""
    try:
        return describe(domain, resolve, probe)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def describe(domain: libvirt.virDomain, resolve: Resolve, probe: Probe | None) -> Vm:
    """Describe a VM; without ``probe`` its images are not looked at."""
    disks = xml.parse_disks(domain.XMLDesc(0))
    return Vm(
        uuid=domain.UUIDString(),
        name=domain.name(),
        state=power_of(domain),
        disks=tuple(_look_at(disk, resolve, probe) for disk in disks),
    )


def _look_at(definition: xml.DiskDefinition, resolve: Resolve, probe: Probe | None) -> Disk:
    info, unreadable, place = None, "", RealPath("", direct=True)
    if definition.source_type in {"file", "block"}:
        place = resolve(definition.source)
        if definition.kind is DiskKind.DISK and probe is not None:
            try:
                info = probe(Path(place.path))
            except ImageUnreadable as error:
                unreadable = error.reason
    return Disk(
        target=definition.target,
        kind=definition.kind,
        source_type=definition.source_type,
        source=definition.source,
        path=place.path,
        read_only=definition.read_only,
        shareable=definition.shareable,
        transient=definition.transient,
        declared_format=definition.driver_format,
        real_format="" if info is None else info.format,
        virtual_size=0 if info is None else info.virtual_size,
        allocated=None if info is None else info.allocated,
        compat="" if info is None else info.compat,
        data_file="" if info is None else info.data_file,
        encrypted=definition.encrypted,
        file_id=_file_id(place.path),
        unreadable=unreadable,
        error_policy=definition.error_policy,
        alias=definition.alias,
        direct=place.direct,
        beneath=definition.beneath,
        partial=definition.partial,
    )


def power_of(domain: libvirt.virDomain) -> PowerState:
    """Return what a VM is doing."""
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        return PowerState.STUCK
    return _STATES.get(state, PowerState.UNKNOWN)


def _file_id(path: str) -> str:
    """Return what is equal for two paths that name one file, or one device, at the same time."""
    try:
        found = Path(path).stat() if path else None
    except OSError:
        found = None
    if found is None:
        return ""
    if stat.S_ISBLK(found.st_mode):
        return f"device:{found.st_rdev}"
    return f"file:{found.st_dev}:{found.st_ino}"
