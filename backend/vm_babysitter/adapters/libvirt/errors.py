"""libvirt's errors, told apart by number, as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from vm_babysitter.domain.errors import Busy, HypervisorError, HypervisorUnreachable, VmNotFound

_LOST = frozenset(
    {
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
    }
)


@contextmanager
def translated(action: str, vm: str = "", uri: str = "") -> Iterator[None]:
    """Turn a libvirt error of the enclosed calls into one of ours.

    ``action`` says in a user's words what was tried: "Starting the backup job".
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, action, vm, uri) from error


def translate(
    error: libvirt.libvirtError, action: str, vm: str = "", uri: str = ""
) -> VmNotFound | Busy | HypervisorUnreachable | HypervisorError:
    """Return our error for one of libvirt's."""
    number = error.get_error_code()
    reason = error.get_error_message() or str(error)
    if number == libvirt.VIR_ERR_NO_DOMAIN:
        return VmNotFound(vm)
    if number == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return Busy(f"VM {vm!r}" if vm else "libvirt", reason)
    # "client socket is closed" comes as an internal error, "Failed to connect socket" as a system
    # error like "failed to create image file": told apart by where they are from.
    if number in _LOST or error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return HypervisorUnreachable(uri, reason)
    return HypervisorError(action, number, reason)
