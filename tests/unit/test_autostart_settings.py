"""The autostart list in the settings: what is refused, and what is noted."""

from typing import Any

import pytest

from vm_babysitter.config.check import check
from vm_babysitter.config.context import Context, VmRef

ROUTER = VmRef("4c0d0d5e-8f0f-4b0e-9d37-0c2f5be0a001", "router")
MAIL = VmRef("0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10", "mail")
KNOWN = Context((ROUTER, MAIL))


def checked(*vms: Any) -> Any:
    return check({"version": 1, "autostart": {"vms": list(vms)}}, KNOWN)


def notes(*vms: Any) -> dict[str, str]:
    found = checked(*vms)
    assert found.errors == ()
    return {note.path: note.text for note in found.notes if note.path.startswith("autostart")}


def test_a_wrong_wait_is_told_with_its_place_value_rule_and_way_out() -> None:
    (error,) = checked({"vm": "mail", "wait_for": ["vm:router", "tcp:nas"]}).errors
    assert str(error) == (
        'autostart.vms[0].wait_for[1]: "tcp:nas" must name a host and a port: tcp:HOST:PORT. '
        'For example "tcp:192.168.1.1:53", "vm:router", "agent:router" or "path:/mnt/disks/usb".'
    )


@pytest.mark.parametrize(
    ("key", "value"), [("delay", -1), ("delay", 3601), ("tries", 0), ("otherwise", "wait")]
)
def test_a_value_out_of_bounds_is_refused(key: str, value: object) -> None:
    (error,) = checked({"vm": "mail", key: value}).errors
    assert error.path == f"autostart.vms[0].{key}"


def test_a_vm_is_in_the_list_once() -> None:
    (error,) = checked({"vm": "mail"}, {"vm": "mail"}).errors
    assert (error.path, error.rule) == ("autostart.vms[1].vm", "is in the list already")
    assert notes({"vm": "mail"}, {"vm": MAIL.uuid.upper()}) == {
        "autostart.vms[1].vm": "This VM is in the list before: it counts once."
    }


def test_waits_in_order_need_no_note() -> None:
    assert notes({"vm": "router"}, {"vm": MAIL.uuid, "wait_for": ["agent:router"]}) == {}


def test_what_can_only_run_out_of_time_is_noted() -> None:
    assert notes({"vm": "gone"}, {"vm": "mail", "wait_for": ["vm:gone"]}) == {
        "autostart.vms[0].vm": 'There is no VM "gone" now.',
        "autostart.vms[1].wait_for[0]": 'There is no VM "gone" now.',
    }
    later = notes({"vm": "mail", "wait_for": ["vm:router"]}, {"vm": "router"})
    assert later == {
        "autostart.vms[0].wait_for[0]": 'The VM "router" is not started before this one: the '
        "wait may only run out."
    }
    itself = notes({"vm": "mail", "wait_for": ["agent:mail"]})
    assert list(itself) == ["autostart.vms[0].wait_for[0]"]
