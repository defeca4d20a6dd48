"""Results as text for people and as plain data for programs."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from vm_babysitter.domain.chain import Chain, Method, Point
from vm_babysitter.domain.cost import Cost, estimate
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.domain.vm import Vm, judge_disk
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.conversion import Converted
from vm_babysitter.engine.planning import Planned
from vm_babysitter.engine.restore import Restored
from vm_babysitter.engine.verify import Verified
from vm_babysitter.lib.units import format_bytes, format_duration
from vm_babysitter.ports import StoredVm

METHOD_WORDS = {
    Method.FULL: "read and stored as a whole",
    Method.BITMAP: "only what changed is read",
    Method.SCAN: "compared with the whole disk",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns of equal width, the last one left ragged."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header) - 1)]
    lines = []
    for row in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def vms_text(vms: Sequence[Vm]) -> str:
    """Say which VMs there are and what of each would be backed up."""
    if not vms:
        return "There is no persistent VM."
    rows = []
    for vm in vms:
        name, state = vm.name, str(vm.state)
        for verdict in map(judge_disk, vm.disks):
            size = format_bytes(verdict.disk.virtual_size) if verdict.disk.virtual_size else "-"
            words = f"{verdict.verdict}: {verdict.reason}"
            rows.append((name, state, verdict.disk.target, size, words))
            name = state = ""
        if not vm.disks:
            rows.append((name, state, "-", "-", "has no disk"))
    return table(("VM", "STATE", "DISK", "SIZE", "BACKUP"), rows)


def vms_data(vms: Sequence[Vm]) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "name": vm.name,
            "uuid": vm.uuid,
            "state": vm.state,
            "disks": [
                {
                    **msgspec.to_builtins(verdict.disk),
                    "verdict": verdict.verdict,
                    "reason": verdict.reason,
                }
                for verdict in map(judge_disk, vm.disks)
            ],
        }
        for vm in vms
    ]


def plan_text(vm: Vm, planned: Planned) -> str:
    """Say what the next backup would do and why."""
    plan, cost = planned.plan, _cost(planned)
    kind = "a full backup, in a new backup series" if plan.new_chain else "an increment"
    lines = [f"The next backup of {vm.name!r} is {kind}:"]
    lines += [f"  {reason}" for reason in plan.reasons]
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    lines += [f"  note: {note}" for note in plan.notes]
    lines += [f"  foreign: {thing}" for thing in plan.foreign]
    rows = [
        (d.target, _amount(c.read_bytes), METHOD_WORDS[d.method], d.reason)
        for d, c in zip(plan.disks, cost.disks, strict=True)
    ]
    lines += [table(("DISK", "READS ABOUT", "HOW", "WHY"), rows), _cost_text(cost)]
    lines += [
        f"Disk {c.target} can be converted so that only its changes are read, while the VM is off: "
        + _convert_command(vm.name, c.target)
        for c in cost.disks
        if c.convertible
    ]
    return "\n".join(lines)


def _amount(amount: int | None) -> str:
    return "not known yet" if amount is None else format_bytes(amount)


def _convert_command(vm: str, target: str, *options: str) -> str:
    options_end = ["--"] if vm.startswith("-") else []
    words = ["vm-babysitter", "--standalone", "convert", *options, *options_end, vm, target]
    return shlex.join(words)


def _cost(planned: Planned) -> Cost:
    return estimate(
        planned.plan, planned.disks, planned.states, planned.chain, reread_runs=DEFAULT_RUNS
    )


def _cost_text(cost: Cost) -> str:
    least = "" if cost.complete else "at least "
    assumed = f"assuming {cost.bytes_per_second / 1e6:.0f} MB/s"
    speed = "at the speed of the last backup" if cost.measured else assumed
    amount, time = format_bytes(cost.read_bytes), f"about {format_duration(cost.seconds)}"
    if cost.seconds < 1:
        time = "less than a second"
    return f"It reads {least}about {amount}, which takes {time} ({speed})."


def plan_data(vm: Vm, planned: Planned) -> dict[str, Any]:
    """Return the same as plain data."""
    plan, cost = planned.plan, _cost(planned)
    return {
        "vm": vm.name,
        "uuid": vm.uuid,
        "level": plan.level,
        "new_chain": plan.new_chain,
        "parent": None if plan.parent is None else plan.parent.seq,
        "reasons": list(plan.reasons),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
        "read_bytes": cost.read_bytes,
        "read_bytes_complete": cost.complete,
        "seconds": round(cost.seconds, 1),
        "bytes_per_second": round(cost.bytes_per_second),
        "speed_measured": cost.measured,
        "foreign": list(plan.foreign),
        "disks": [
            {
                "target": d.target,
                "method": d.method,
                "reason": d.reason,
                "since": None if d.since is None else d.since.name,
                "tracked": d.track,
                "read_bytes": c.read_bytes,
                "convertible": c.convertible,
            }
            for d, c in zip(plan.disks, cost.disks, strict=True)
        ],
    }


def unchanged_text(chain: Chain, point: Point) -> str:
    """Say that the next backup would have nothing to do."""
    return (
        f"The next backup of {point.vm_name!r} has nothing to do: it is off and has not changed "
        f"since restore point {point_name(chain, point.seq)}."
    )


def unchanged_data(chain: Chain, point: Point) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "vm": point.vm_name,
        "uuid": point.vm_uuid,
        "level": None,
        "unchanged_since": point_name(chain, point.seq),
    }


def backup_text(result: BackedUp) -> str:
    """Say what a backup came to."""
    point = result.point
    if result.unchanged:
        lines = [
            f"{point.vm_name!r} is off and has not changed: restore point "
            f"{result.chain}/{point.seq:06d} is current, no new one was needed."
        ]
        return "\n".join([*lines, *_backup_warnings(result)])
    read = sum(d.read_bytes for d in point.disks)
    zeroed = sum(d.zeroed_bytes for d in point.disks)
    emptied = f"{format_bytes(zeroed)} have become zero, " if zeroed else ""
    kind = "full backup" if point.level == "full" else "increment"
    state = " (off)" if point.off else ""
    lines = [
        f"Restore point {result.chain}/{point.seq:06d} of {point.vm_name!r}{state} is complete: "
        f"{kind}, "
        f"{format_bytes(read)} read, {_stored_text(point)}, {emptied}"
        f"{format_duration(result.seconds)}."
    ]
    if not point.quiesced:
        lines.append(f"Not paused cleanly for the backup: {point.quiesce_note}.")
    lines += [f"Note: {note}." for note in point.notes]
    lines += [f"Warning: {warning}." for warning in point.warnings]
    return "\n".join([*lines, *_backup_warnings(result)])


def _backup_warnings(result: BackedUp) -> list[str]:
    lines = []
    if result.vm_resumed:
        lines.append(
            "Warning: QEMU had paused the VM for a while: a disk error, or too little space."
        )
    if result.left:
        lines.append(f"Warning: cleaning up is left to the next backup. {result.left}")
    return lines


def backup_data(result: BackedUp) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "point": f"{result.chain}/{result.point.seq:06d}",
        "seconds": result.seconds,
        "stored_bytes": _stored_bytes(result.point),
        "left": result.left,
        "vm_resumed": result.vm_resumed,
        "unchanged": result.unchanged,
        "manifest": msgspec.to_builtins(result.point),
    }


def points_text(vms: Sequence[tuple[StoredVm, Sequence[Chain]]]) -> str:
    """List the restore points of VMs."""
    rows = []
    for vm, chains in vms:
        for chain in chains:
            broken = chain.broken
            for stored in chain.points:
                point = stored.point
                state = broken.get(point.seq) or _chain_words(chain, point)
                rows.append((*_point_columns(vm, chain, point), state))
            rows += [
                (_name(vm), point_name(chain, u.seq), "-", "-", "-", f"damaged: {u.problem}")
                for u in chain.unreadable
            ]
    if not rows:
        return "There is no restore point."
    rows.sort(key=lambda row: (row[0], row[1]))
    return table(("VM", "POINT", "TAKEN (UTC)", "KIND", "STORED", "STATE"), rows)


def points_data(vms: Sequence[tuple[StoredVm, Sequence[Chain]]]) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "vm": vm.names[-1],
            "uuid": vm.uuid,
            "point": point_name(chain, stored.point.seq),
            "chain_state": chain.state,
            "problem": chain.broken.get(stored.point.seq, ""),
            "current_as_of": _current_as_of(chain, stored.point),
            "manifest": msgspec.to_builtins(stored.point),
        }
        for vm, chains in vms
        for chain in chains
        for stored in chain.points
    ] + [
        {
            "vm": vm.names[-1],
            "uuid": vm.uuid,
            "point": point_name(chain, unreadable.seq),
            "chain_state": chain.state,
            "problem": unreadable.problem,
            "current_as_of": None,
            "manifest": None,
        }
        for vm, chains in vms
        for chain in chains
        for unreadable in chain.unreadable
    ]


def _current_as_of(chain: Chain, point: Point) -> datetime | None:
    current = chain.current
    return None if current is None or current.seq != point.seq else current.as_of


def _chain_words(chain: Chain, point: Point) -> str:
    if chain.why:
        return "archived"
    until = _current_as_of(chain, point)
    return "" if until is None else f"unchanged until {until:%Y-%m-%d %H:%M:%S}"


def _name(vm: StoredVm) -> str:
    return vm.names[-1]


def _point_columns(vm: StoredVm, chain: Chain, point: Point) -> tuple[str, str, str, str, str]:
    taken = f"{point.taken:%Y-%m-%d %H:%M:%S}"
    kind = "full" if point.level == "full" else "increment"
    return _name(vm), point_name(chain, point.seq), taken, kind, format_bytes(_stored_bytes(point))


def _stored_bytes(point: Point) -> int:
    """Return what the content takes in the backup folder, tables left aside where they can be."""
    return sum(
        min(d.file_size, d.written_bytes) if d.compression else d.written_bytes for d in point.disks
    )


def _stored_text(point: Point) -> str:
    ways = sorted({d.compression for d in point.disks} - {""})
    stored = f"{format_bytes(_stored_bytes(point))} stored"
    if not ways:
        return stored
    content = sum(d.written_bytes for d in point.disks)
    return f"{stored} ({format_bytes(content)} compressed with {' and '.join(ways)})"


def verify_text(results: Sequence[Verified]) -> str:
    """Say what was found of each point."""
    lines = []
    for result in results:
        if result.good:
            words = "data correct" if result.content else "files complete"
            lines.append(f"{result.point}  good: {words}")
        else:
            lines += [f"{result.point}  BAD: {problem}" for problem in result.problems]
    return "\n".join(lines)


def restore_text(result: Restored) -> str:
    """Say what was restored."""
    lines = [f"Restored {result.point}: {format_bytes(result.content_bytes)} of content, checked."]
    lines += [f"  {click.format_filename(path)}" for path in result.files]
    lines += [f"Note: {note}." for note in result.notes]
    return "\n".join(lines)


def convert_text(result: Converted) -> str:
    """Say what image a disk has now, where the other one is, and how to go back."""
    image, kept = click.format_filename(result.image), click.format_filename(result.kept)
    if result.undone:
        return (
            f"Disk {result.disk!r} of VM {result.vm!r} has its raw image {image} again.\n"
            f"The qcow2 image {kept} is kept. Delete it, and the note "
            f"{click.format_filename(result.note)}, when you no longer need it."
        )
    amount = f": {format_bytes(result.content_bytes)} of content" if result.content_bytes else ""
    return (
        f"Disk {result.disk!r} of VM {result.vm!r} is now qcow2{amount}, compared with the raw "
        f"image.\n  {image}\n"
        f"The raw image is kept until you delete it, best when the VM has run well for a while:\n"
        f"  {kept}\n"
        f"To go back: {_convert_command(result.vm, result.disk, '--undo')}"
    )
