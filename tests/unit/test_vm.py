"""Which disks are backed up, and how."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.points import a_disk
from vm_babysitter.domain.vm import (
    QEMU_RUNS,
    Access,
    Bitmap,
    Disk,
    DiskKind,
    Layer,
    PowerState,
    Verdict,
    Vm,
    access_of,
    eligible_disks,
    judge_disk,
)

ROWS: tuple[tuple[dict[str, Any], Verdict, str], ...] = (
    ({}, Verdict.TRACKED, "qcow2"),
    ({"source_type": "block"}, Verdict.TRACKED, "qcow2"),
    ({"declared_format": ""}, Verdict.TRACKED, "qcow2"),
    ({"kind": DiskKind.CDROM}, Verdict.LEFT_OUT, "CD/DVD"),
    ({"kind": DiskKind.FLOPPY}, Verdict.LEFT_OUT, "floppy"),
    ({"kind": DiskKind.LUN}, Verdict.LEFT_OUT, "passed through"),
    ({"source_type": ""}, Verdict.LEFT_OUT, "no image"),
    ({"read_only": True}, Verdict.LEFT_OUT, "read-only"),
    ({"transient": True}, Verdict.LEFT_OUT, "transient"),
    ({"source_type": "network"}, Verdict.LEFT_OUT, "type network"),
    ({"source_type": "volume"}, Verdict.LEFT_OUT, "type volume"),
    ({"shareable": True}, Verdict.LEFT_OUT, "shared"),
    ({"unreadable": "No such {file}"}, Verdict.REFUSED, "No such {file}"),
    ({"real_format": "raw"}, Verdict.COMPARED, "raw"),
    ({"real_format": "raw", "declared_format": "raw"}, Verdict.COMPARED, "raw"),
    ({"declared_format": "raw"}, Verdict.COMPARED, "the qcow2 file as raw"),
    ({"compat": "0.10"}, Verdict.COMPARED, "version 2"),
    ({"data_file": "/x/{y}.raw"}, Verdict.COMPARED, "another file (/x/{y}.raw)"),
    ({"encrypted": True}, Verdict.TRACKED, "qcow2"),
    (
        {"encrypted": True, "real_format": "luks", "declared_format": "raw"},
        Verdict.COMPARED,
        "encrypted",
    ),
    ({"real_format": "luks", "declared_format": "raw"}, Verdict.COMPARED, "luks file as raw"),
    ({"real_format": "vmdk", "declared_format": "vmdk"}, Verdict.COMPARED, "vmdk"),
)


@pytest.mark.parametrize(("change", "verdict", "word"), ROWS, ids=[str(r[0]) for r in ROWS])
def test_each_rule_decides_as_the_table_says(
    change: dict[str, Any], verdict: Verdict, word: str
) -> None:
    found = judge_disk(replace(a_disk(), **change))
    assert (found.verdict, found.disk) == (verdict, replace(a_disk(), **change))
    assert word in found.reason


EARLIER_WINS: tuple[tuple[dict[str, Any], Verdict], ...] = (
    ({"kind": DiskKind.CDROM, "unreadable": "x"}, Verdict.LEFT_OUT),
    ({"read_only": True, "unreadable": "x"}, Verdict.LEFT_OUT),
    ({"source_type": "network", "unreadable": "x", "real_format": ""}, Verdict.LEFT_OUT),
    ({"unreadable": "x", "real_format": ""}, Verdict.REFUSED),
    ({"declared_format": "raw", "compat": "0.10"}, Verdict.COMPARED),
)


@pytest.mark.parametrize(("change", "verdict"), EARLIER_WINS)
def test_what_a_disk_is_by_nature_comes_before_what_its_image_is(
    change: dict[str, Any], verdict: Verdict
) -> None:
    assert judge_disk(replace(a_disk(), **change)).verdict is verdict


def every_disk() -> list[Disk]:
    flags = product(DiskKind, ["", "file", "network"], ["", "qcow2", "raw"], ["", "qcow2", "raw"])
    return [
        replace(
            a_disk(),
            kind=kind,
            source_type=source,
            declared_format=declared,
            real_format=real,
            unreadable="" if real else "gone",
        )
        for kind, source, declared, real in flags
    ]


def test_only_a_readable_qcow2_used_as_such_is_ever_tracked() -> None:
    tracked = [d for d in every_disk() if judge_disk(d).verdict is Verdict.TRACKED]
    assert tracked
    for disk in tracked:
        assert (disk.kind, disk.source_type, disk.real_format) == (DiskKind.DISK, "file", "qcow2")
        assert disk.declared_format in {"", "qcow2"}


@given(st.text())
def test_any_text_of_a_definition_can_stand_in_a_reason(text: str) -> None:
    refused = replace(a_disk(), unreadable=text or "x")
    assert (text or "x") in judge_disk(refused).reason
    assert judge_disk(replace(a_disk(), declared_format=text)).reason
    assert judge_disk(replace(a_disk(), source_type=text)).reason


def test_a_backup_contains_the_disks_that_are_tracked_or_compared() -> None:
    disks = tuple(replace(a_disk(f"vd{i}"), **change) for i, (change, _, _) in enumerate(ROWS))
    found = eligible_disks(Vm("uuid", "VM", PowerState.RUNNING, disks))
    taken = {Verdict.TRACKED, Verdict.COMPARED}
    expected = [f"vd{i}" for i, (_, verdict, _) in enumerate(ROWS) if verdict in taken]
    assert [v.disk.target for v in found] == expected


def test_a_layer_finds_its_bitmap_by_name() -> None:
    bitmap = Bitmap("b", recording=True, inconsistent=False)
    assert Layer("/x", (bitmap,)).bitmap("b") is bitmap
    assert Layer("/x", (bitmap,)).bitmap("c") is None


ACCESS: dict[PowerState, Access] = {
    PowerState.RUNNING: Access.LIVE,
    PowerState.PAUSED: Access.LIVE,
    PowerState.STUCK: Access.LIVE,
    PowerState.SUSPENDED: Access.LIVE,
    PowerState.CRASHED: Access.LIVE,
    PowerState.OFF: Access.OFF,
    PowerState.SHUTTING_DOWN: Access.WAIT,
    PowerState.UNKNOWN: Access.WAIT,
}


@pytest.mark.parametrize("state", PowerState)
def test_each_state_of_a_vm_says_how_its_disks_are_read(state: PowerState) -> None:
    assert access_of(state) is ACCESS[state]
    assert (state in QEMU_RUNS) is (ACCESS[state] is Access.LIVE)
