"""Definitions of VMs, and the one change we make to them; implements ``ports.Definitions``."""

import libvirt

from vm_babysitter.adapters.libvirt import sources
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.errors import translated
from vm_babysitter.domain.errors import Busy
from vm_babysitter.ports import DiskSource, ImageUse

_PERSISTENT = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


class LibvirtDefinitions:
    """Implements ``ports.Definitions``; safe for threads as far as libvirt is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def image_uses(self) -> tuple[ImageUse, ...]:
        """See the port."""
        with translated("Looking at the disks of all VMs", uri=self._connection.uri):
            domains = self._connection.handle.listAllDomains()
            return tuple(use for domain in domains for use in _uses(domain))

    def snapshots(self, uuid: str) -> tuple[str, ...]:
        """See the port."""
        with translated("Asking for snapshots", uuid, self._connection.uri):
            return tuple(sorted(s.getName() for s in self._domain(uuid).listAllSnapshots()))

    def disk_source(self, uuid: str, target: str, *, running: bool = False) -> DiskSource | None:
        """See the port."""
        with translated("Reading the VM's definition", uuid, self._connection.uri):
            domain = self._domain(uuid)
            if running and not domain.isActive():
                return None
            return sources.source_of(domain.XMLDesc(0 if running else _PERSISTENT), target)

    def switch_disk(self, uuid: str, target: str, old: DiskSource, new: DiskSource) -> None:
        """See the port."""
        with translated("Changing the VM's definition", uuid, self._connection.uri):
            domain = self._domain(uuid)
            disk = sources.switched_disk(domain.XMLDesc(_PERSISTENT), target, old, new)
            if disk is None:
                what = f"The definition of VM {domain.name()!r}"
                raise Busy(what, f"somebody has changed its disk {target!r} meanwhile")
            # libvirt exchanges this disk only, so that what somebody changes elsewhere in the
            # definition at this moment is not lost, as it would be if all of it were defined.
            domain.updateDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _domain(self, uuid: str) -> libvirt.virDomain:
        return self._connection.handle.lookupByUUIDString(uuid)


def _uses(domain: libvirt.virDomain) -> tuple[ImageUse, ...]:
    """Return what both definitions of a VM name; nothing if it was removed since it was listed."""
    try:
        texts = {domain.XMLDesc(flags) for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE)}
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return ()
    named = sorted({image for text in texts for image in sources.named_images(text)})
    uuid, name = domain.UUIDString(), domain.name()
    return tuple(ImageUse(uuid, name, target, source) for target, source in named)
