"""What settings mean: which VMs, and what holds for each."""

from datetime import timedelta
from typing import Any

import pytest

from vm_babysitter.config.check import check
from vm_babysitter.config.context import VmRef
from vm_babysitter.config.effective import effective
from vm_babysitter.config.forms import space_in_bytes
from vm_babysitter.config.sections.hooks import Hook
from vm_babysitter.config.selection import (
    IGNORED,
    NEW,
    NOT_CHOSEN,
    due,
    seen_to_note,
    selected,
)
from vm_babysitter.config.settings import Settings

A = VmRef("aaaaaaaa-6f0d-4a5f-9a36-6a3a3f1b9f10", "a")
B = VmRef("bbbbbbbb-6f0d-4a5f-9a36-6a3a3f1b9f10", "b")
C = VmRef("cccccccc-6f0d-4a5f-9a36-6a3a3f1b9f10", "a b.c")
ALL = (A, B, C)


def of(**sections: Any) -> Settings:
    checked = check({"version": 1, **sections})
    assert checked.settings is not None, checked.errors
    return checked.settings


@pytest.mark.parametrize(
    ("vms", "reasons"),
    [
        ({}, (None, None, None)),
        ({"ignored": ["a"]}, (IGNORED, None, None)),
        ({"ignored": [B.uuid.upper()]}, (None, IGNORED, None)),
        ({"ignored": ["A"]}, (None, None, None)),
        ({"ignored": ["g"], "groups": {"g": ["a", C.uuid]}}, (IGNORED, None, IGNORED)),
        ({"mode": "chosen"}, (NOT_CHOSEN,) * 3),
        ({"mode": "chosen", "chosen": ["a b.c"]}, (NOT_CHOSEN, NOT_CHOSEN, None)),
        (
            {"mode": "chosen", "chosen": ["g"], "groups": {"g": ["a", "b"]}, "ignored": ["b"]},
            (None, IGNORED, NOT_CHOSEN),
        ),
        (
            {"mode": "chosen", "chosen": ["a"], "groups": {"a": ["b"]}},
            (NOT_CHOSEN, None, NOT_CHOSEN),
        ),
        ({"include_new": False}, (None, None, None)),
        ({"include_new": False, "seen": []}, (NEW, NEW, NEW)),
        ({"include_new": False, "seen": [A.uuid]}, (None, NEW, NEW)),
        ({"include_new": False, "seen": [A.uuid], "chosen": ["b"]}, (None, None, NEW)),
        ({"include_new": True, "seen": [A.uuid]}, (None, None, None)),
        ({"include_new": False, "seen": [A.uuid], "ignored": ["a"]}, (IGNORED, NEW, NEW)),
    ],
)
def test_which_vms_are_backed_up(vms: dict[str, Any], reasons: tuple[str | None, ...]) -> None:
    expected = dict(zip((vm.uuid for vm in ALL), reasons, strict=True))
    assert selected(of(vms=vms), ALL) == expected


@pytest.mark.parametrize(
    ("entries", "ignored", "meant"),
    [
        ([], [], ALL),
        ([], ["b"], (A, C)),
        (["a b.c", A.uuid], [], (A, C)),
        (["g"], ["b"], (C,)),
        (["nobody"], [], ()),
    ],
)
def test_which_vms_a_schedule_is_for(
    entries: list[str], ignored: list[str], meant: tuple[VmRef, ...]
) -> None:
    settings = of(
        vms={"ignored": ignored, "groups": {"g": ["b", "a b.c"]}},
        schedules=[{"name": "x", "when": "@daily", "vms": entries}],
    )
    assert due(settings, settings.schedules[0], ALL) == meant


@pytest.mark.parametrize(
    ("vms", "noted"),
    [
        ({}, None),
        ({"seen": ["x"]}, None),
        ({"include_new": False}, (A.uuid, B.uuid, C.uuid)),
        ({"include_new": False, "seen": ["x"]}, ("x",)),
        ({"include_new": False, "seen": []}, ()),
    ],
)
def test_what_is_noted_as_seen(vms: dict[str, Any], noted: tuple[str, ...] | None) -> None:
    assert seen_to_note(of(vms=vms), ALL) == noted


def test_without_more_a_vm_is_backed_up_as_all_are() -> None:
    options = effective(Settings(), A.uuid, A.name)
    assert options.limit is None
    assert options.low_priority
    assert not options.compress
    assert not options.track_snapshots
    assert options.reread_runs == 30
    assert options.longest == timedelta(hours=12)
    assert options.before is None
    assert options.after is None


ALL_SET = {
    "backup": {"compress": True, "limit": "1 MiB", "longest": 4, "low_priority": False},
    "hooks": {
        "before": {"argv": ["/bin/a"], "timeout": 5, "on_failure": "stop"},
        "after": {"argv": ["/bin/z"]},
    },
}


def test_what_is_said_of_one_vm_counts_for_it_alone() -> None:
    own = {
        "backup": {"compress": False, "limit": 0, "longest": 0, "reread_runs": 0},
        "hooks": {"before": {"argv": ["/bin/b"]}, "after": {}},
    }
    settings = of(**ALL_SET, per_vm={"a b.c": own})
    c, a = (effective(settings, vm.uuid, vm.name) for vm in (C, A))
    assert (c.compress, c.limit, c.longest, c.reread_runs) == (False, None, None, 0)
    assert not c.low_priority
    assert c.before == Hook(("/bin/b",), 60, "warn")
    assert c.after is None
    assert (a.compress, a.limit, a.longest) == (True, 1 << 20, timedelta(hours=4))
    assert a.before == Hook(("/bin/a",), 5, "stop")
    assert a.after == Hook(("/bin/z",))


def test_a_command_that_is_not_named_stays_that_of_all() -> None:
    settings = of(**ALL_SET, per_vm={"a": {"hooks": {"after": {"argv": ["/bin/y"]}}}})
    options = effective(settings, A.uuid, A.name)
    assert options.before == Hook(("/bin/a",), 5, "stop")
    assert options.after == Hook(("/bin/y",))


@pytest.mark.parametrize("name_first", [True, False])
def test_of_name_and_uuid_the_uuid_counts(name_first: bool) -> None:
    by_name = {"backup": {"limit": "1 MiB", "compress": True}}
    by_uuid = {"backup": {"limit": "2 MiB"}}
    own = {"a": by_name, A.uuid.upper(): by_uuid}
    settings = of(per_vm=own if name_first else dict(reversed(own.items())))
    options = effective(settings, A.uuid, A.name)
    assert (options.limit, options.compress) == (2 << 20, True)


@pytest.mark.parametrize(
    ("value", "total", "amount"),
    [("10 %", 1000, 100), ("2.5 %", 1000, 25), ("0 %", 1000, 0), (7, 1000, 7), (0, 1000, 0)],
)
def test_free_space_as_a_part_or_an_amount(value: int | str, total: int, amount: int) -> None:
    assert space_in_bytes(value, total) == amount
