"""How much the next backup of a VM reads, and how long that lasts. Pure.

Estimates, made before the backup job begins: what the images say, and what earlier backups took.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vm_babysitter.domain.backup_plan import BackupPlan, DiskPlan
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import Method, Point
from vm_babysitter.domain.reread import this_turn
from vm_babysitter.domain.vm import Disk, DiskState, DiskVerdict, Verdict

ASSUMED_SPEED = 150_000_000
"""Bytes a second where no backup has shown how fast the disks are: a hard disk's."""
_TELLING = 64 << 20
"""Bytes that a backup must have read for its speed to tell anything."""


@dataclass(frozen=True, slots=True)
class DiskCost:
    """What one disk costs."""

    target: str
    read_bytes: int | None
    """None where it is not known before the backup job begins."""
    convertible: bool
    """Whether a converter could see to it that only changes are read."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a backup costs."""

    disks: tuple[DiskCost, ...]
    bytes_per_second: float
    measured: bool
    """Whether an earlier backup read at that speed; else it is ``ASSUMED_SPEED``."""

    @property
    def read_bytes(self) -> int:
        """Bytes of all disks of which it is known."""
        return sum(disk.read_bytes or 0 for disk in self.disks)

    @property
    def complete(self) -> bool:
        """Whether it is known of each disk."""
        return all(disk.read_bytes is not None for disk in self.disks)

    @property
    def seconds(self) -> float:
        """How long reading lasts."""
        return self.read_bytes / self.bytes_per_second


def estimate(
    plan: BackupPlan,
    disks: Sequence[DiskVerdict],
    states: Mapping[str, DiskState],
    chain: Chain | None,
    reread_runs: int,
) -> Cost:
    """Estimate what a planned backup costs.

    Args:
        plan: what it does.
        disks: the verdicts it was planned from.
        states: what QEMU says of each disk, by target.
        chain: the live chain, whose points tell how fast reading was.
        reread_runs: backups in the course of which unchanged blocks are read again; 0: never.
    """
    verdicts = {verdict.disk.target: verdict for verdict in disks}
    found = []
    for each in plan.disks:
        verdict = verdicts[each.target]
        if each.method is Method.BITMAP:
            amount = _tracked(each, verdict.disk, states.get(each.target), reread_runs)
        else:
            amount = _content(verdict.disk)
        found.append(DiskCost(each.target, amount, _convertible(verdict)))
    speed = _speed_of([] if chain is None else [stored.point for stored in chain.points])
    return Cost(tuple(found), speed or ASSUMED_SPEED, speed is not None)


def _content(disk: Disk) -> int:
    """Return what reading all of a disk comes to; what is not allocated is not read."""
    size = disk.virtual_size
    return size if disk.allocated is None else min(disk.allocated, size)


def _tracked(plan: DiskPlan, disk: Disk, state: DiskState | None, runs: int) -> int | None:
    """Return what changed by now, and the share of the rest that is read again."""
    if plan.since is None or state is None:
        return None
    name = plan.since.name
    counts = [b.dirty for layer in state.layers for b in layer.bitmaps if b.name == name]
    known = [count for count in counts if count is not None]
    if not counts or len(known) < len(counts):
        return None
    content = _content(disk)
    changed = min(sum(known), disk.virtual_size)
    if not runs:
        return changed
    turn = this_turn(None if plan.parent is None else plan.parent.reread, runs)
    left = max(0, disk.virtual_size - turn.next * BLOCK_SIZE) / max(1, disk.virtual_size)
    return changed + int(max(0, content - changed) * left / turn.runs_left)


def _convertible(verdict: DiskVerdict) -> bool:
    disk = verdict.disk
    raw = disk.real_format == "raw" and disk.source_type == "file"
    return verdict.verdict is Verdict.COMPARED and raw


def _speed_of(points: Iterable[Point]) -> float | None:
    """Return the bytes a second of the newest point that read enough to tell, if there is one."""
    for point in sorted(points, key=lambda p: p.seq, reverse=True):
        amount = sum(disk.read_bytes for disk in point.disks)
        seconds = (point.finished - point.taken).total_seconds()
        if amount >= _TELLING and seconds > 0:
            return amount / seconds
    return None
