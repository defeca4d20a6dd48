"""The part of the composition root that needs libvirt's Python module.

Imported only by commands that talk to libvirt: backups must be readable where there is none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.definitions import LibvirtDefinitions
from vm_babysitter.adapters.libvirt.describe import Probe
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.ports import Definitions, Hypervisor


@contextmanager
def connected(
    uri: str, probe: Probe, tpm_roots: tuple[Path, ...]
) -> Iterator[tuple[Hypervisor, Definitions]]:
    """Connect to libvirt. Raises HypervisorUnreachable, HypervisorError."""
    with Connection(uri) as connection:
        hypervisor = LibvirtHypervisor(connection, probe, tpm_roots)
        yield hypervisor, LibvirtDefinitions(connection)
