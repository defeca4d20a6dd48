"""libvirt's errors as ours."""

import libvirt
import pytest

from vm_babysitter.adapters.libvirt.errors import translate, translated
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    HypervisorError,
    HypervisorUnreachable,
    VmNotFound,
)

QEMU, RPC = libvirt.VIR_FROM_QEMU, libvirt.VIR_FROM_RPC


def libvirt_error(number: int, domain: int, message: str | None = "why") -> libvirt.libvirtError:
    """Make an error as the bindings do."""
    error = libvirt.libvirtError("call failed")
    error.err = (number, domain, message, 2, message, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("number", "domain", "expected"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, QEMU, VmNotFound),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, QEMU, Busy),
        (libvirt.VIR_ERR_RPC, RPC, HypervisorUnreachable),
        (libvirt.VIR_ERR_NO_CONNECT, QEMU, HypervisorUnreachable),
        (libvirt.VIR_ERR_INVALID_CONN, QEMU, HypervisorUnreachable),
        (libvirt.VIR_ERR_SYSTEM_ERROR, RPC, HypervisorUnreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, RPC, HypervisorUnreachable),
        (libvirt.VIR_ERR_SYSTEM_ERROR, QEMU, HypervisorError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, QEMU, HypervisorError),
        (libvirt.VIR_ERR_OPERATION_INVALID, QEMU, HypervisorError),
        (libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, QEMU, HypervisorError),
        (libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, QEMU, HypervisorError),
    ],
)
def test_errors_are_told_apart_by_number_and_origin(
    number: int, domain: int, expected: type[BabysitterError]
) -> None:
    assert type(translate(libvirt_error(number, domain), "Doing it", "vm")) is expected


def test_error_says_what_was_tried_and_why_it_failed() -> None:
    error = libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, QEMU, "domain is not running")
    with pytest.raises(HypervisorError) as caught, translated("Starting the backup job", "vm"):
        raise error
    assert caught.value.message == (
        "Starting the backup job failed: domain is not running (libvirt error 55)."
    )
    assert caught.value.__cause__ is error


def test_busy_vm_is_named() -> None:
    busy = translate(libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, QEMU), "Doing it", "vm")
    assert str(busy).startswith("VM 'vm' is busy: why.")


def test_error_without_a_message_has_the_words_of_the_call() -> None:
    libvirt.virResetLastError()  # of another test in this thread, whose words it would take
    error = translate(libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, QEMU, None), "Doing it")
    assert "call failed" in error.message


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated("Doing it"):
        raise KeyError
