"""What the next backup of a VM does, disk by disk, and why. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vm_babysitter.domain.chain import MAX_POINTS, Chain
from vm_babysitter.domain.hardware import changed_disk, gone_disks, newly_encrypted
from vm_babysitter.domain.point import Checkpoint, Method, Point, PointDisk
from vm_babysitter.domain.space import sees_errors
from vm_babysitter.domain.trust import Distrust, find_trusted
from vm_babysitter.domain.vm import (
    Access,
    Disk,
    DiskState,
    DiskVerdict,
    Verdict,
    worth_mentioning,
)

_SEVERAL_LAYERS = "the VM is off, and only its QEMU merges change tracking over snapshot layers"

_SNAPSHOTS = (
    "the image holds internal snapshots: change tracking would keep the VM from going back to them"
)


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How one disk comes into the next point."""

    target: str
    method: Method
    reason: str
    path: str
    identity: str
    source_format: str
    track: bool
    """Whether the disk gets a new bitmap."""
    encrypted: bool
    """Whether the host keeps it encrypted."""
    since: Checkpoint | None = None
    """This disk's checkpoint at an ancestor, as libvirt knows it (method ``bitmap``).

    Its bitmap, which has its name, says what to read.
    """
    parent: PointDisk | None = None
    """This disk in the parent point (methods ``bitmap`` and ``scan``).

    By its image: the target may have been another one.
    """


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """What the next backup of a VM does."""

    new_chain: bool
    parent: Point | None
    reasons: tuple[str, ...]
    disks: tuple[DiskPlan, ...]
    warnings: tuple[str, ...] = ()
    """What the user should see to, kept in the point."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of the VM and needs nobody's attention, kept in the point."""
    foreign: tuple[str, ...] = ()
    """What other programs have on this VM, see ``domain.foreign``; not kept."""

    @property
    def level(self) -> Literal["full", "inc"]:
        """``full`` or ``inc``, as the point's directory name has it."""
        return "full" if self.parent is None else "inc"


def plan_backup(  # noqa: PLR0913
    disks: Sequence[DiskVerdict],
    states: Mapping[str, DiskState],
    chain: Chain | None,
    *,
    access: Access = Access.LIVE,
    force_full: bool = False,
    distrusted: Collection[Distrust] = (),
    left_out: Sequence[DiskVerdict] = (),
    track_snapshots: bool = False,
) -> BackupPlan:
    """Decide what the next backup does.

    Args:
        disks: the disks that belong into a backup, with their verdicts.
        states: what QEMU or the images say of each disk, by target.
        chain: the live chain, if there is one.
        access: how the disks are going to be read.
        force_full: the user wants a new chain.
        distrusted: bitmaps that must not be used although they look well.
        left_out: the VM's other disks; a new chain's first point says so.
        track_snapshots: the user wants change tracking in images with internal snapshots, too.
    """
    disks = [_as_opened(d, states.get(d.disk.target)) for d in disks]
    if not track_snapshots:
        disks = [_untracked_with_snapshots(d, states.get(d.disk.target)) for d in disks]
    reasons, parent = _choose_parent(chain, force_full=force_full)
    if parent is None or chain is None:
        full = tuple(_full(d, states, "no earlier restore point to build on") for d in disks)
        missed = [d for d in left_out if worth_mentioning(d)]
        told = [f"disk {d.disk.target} is not backed up: {d.reason}" for d in missed]
        told += [_impatient(d) for d in disks if sees_errors(d.disk.error_policy)]
        told += [newly_encrypted(d.disk, None) for d in disks]
        told += _ended(chain, force_full=force_full)
        tracked = _as_reachable(full, disks, access)
        return BackupPlan(True, None, reasons, tracked, tuple(filter(None, told)))
    lineage = chain.lineage(parent.seq)
    planned = [_plan_disk(d, states, lineage, distrusted, access) for d in disks]
    plans = _as_reachable(planned, disks, access)
    pairs = [(d.disk, plan) for d, plan in zip(disks, plans, strict=True)]
    lost, notes = gone_disks(parent, [plan.parent for plan in plans], disks, left_out)
    warnings = [*lost, *(newly_encrypted(disk, plan.parent) for disk, plan in pairs)]
    warnings += _lost_points(chain, since=parent.seq)
    changed = [changed_disk(d, p.identity, p.source_format, p.parent) for d, p in pairs]
    return BackupPlan(
        False,
        parent,
        reasons,
        plans,
        tuple(filter(None, warnings)),
        tuple(filter(None, [*changed, *notes])),
    )


def _as_opened(verdict: DiskVerdict, state: DiskState | None) -> DiskVerdict:
    """Name a disk by the path that its QEMU has, where only QEMU knows the file itself."""
    if verdict.disk.direct or state is None or not state.layers:
        return verdict
    return replace(verdict, disk=replace(verdict.disk, path=state.layers[0].path))


def _as_reachable(
    plans: Sequence[DiskPlan], disks: Sequence[DiskVerdict], access: Access
) -> tuple[DiskPlan, ...]:
    """Plan no new bitmap in an image of a VM that is off which is not the file QEMU would open."""
    reachable = {d.disk.target: access is Access.LIVE or d.disk.direct for d in disks}
    return tuple(replace(p, track=p.track and reachable[p.target]) for p in plans)


def _untracked_with_snapshots(verdict: DiskVerdict, state: DiskState | None) -> DiskVerdict:
    """Let a disk that would be tracked be compared, if its image holds internal snapshots."""
    if verdict.verdict is not Verdict.TRACKED or state is None or not state.internal_snapshots:
        return verdict
    return DiskVerdict(verdict.disk, Verdict.COMPARED, _SNAPSHOTS)


def _impatient(disk: DiskVerdict) -> str:
    return (
        f"disk {disk.disk.target} has error_policy={disk.disk.error_policy!r}: should the working "
        "space of a backup ever run full, the VM sees a disk error instead of being paused; twice "
        "as much space is kept free"
    )


def _choose_parent(
    chain: Chain | None, *, force_full: bool
) -> tuple[tuple[str, ...], Point | None]:
    if chain is None:
        return ("there is no backup of this VM yet",), None
    if force_full:
        return ("a full backup was asked for",), None
    parent = chain.newest_intact
    if parent is None:
        why = "; ".join(sorted(set(chain.unfit.values()))) or "it has no restore point"
        return (f"nothing can build on the backup series {chain.directory}: {why}",), None
    if len(chain.lineage(parent.seq)) >= MAX_POINTS:
        return (f"the backup series has reached {MAX_POINTS} restore points",), None
    skipped = {seq: why for seq, why in sorted(chain.unfit.items()) if seq > parent.seq}
    reasons = [f"builds on restore point {parent.seq:06d}"]
    reasons += [f"restore point {seq:06d} is passed over: {why}" for seq, why in skipped.items()]
    return tuple(reasons), parent


def _ended(chain: Chain | None, *, force_full: bool) -> list[str]:
    """Say that a series ends because none of its points is whole any more."""
    if chain is None or force_full or chain.newest_intact is not None:
        return []
    return _lost_points(chain, since=0)


def _lost_points(chain: Chain, *, since: int) -> list[str]:
    """Name the points, from what the next one builds on, that do not restore as a whole.

    They are named once: by the next backup, which passes them over, or has anew what is damaged
    beside the disks of the one that it builds on.
    """
    found = {seq: why for seq, why in chain.broken.items() if seq >= since}
    found |= {u.seq: u.problem for u in chain.unreadable if u.seq >= since and not u.unfinished}
    away = {seq for seq in found if chain.out_of_reach(seq)}
    return [
        f"restore point {chain.directory}/{seq:06d} cannot be "
        f"{'read now' if seq in away else 'restored as a whole any more'}: {why}"
        for seq, why in sorted(found.items())
    ]


def _full(disk: DiskVerdict, states: Mapping[str, DiskState], reason: str) -> DiskPlan:
    return _disk_plan(disk, states, Method.FULL, reason)


def _disk_plan(
    verdict: DiskVerdict,
    states: Mapping[str, DiskState],
    method: Method,
    reason: str,
    since: Checkpoint | None = None,
    parent: PointDisk | None = None,
) -> DiskPlan:
    disk, state = verdict.disk, states.get(verdict.disk.target)
    return DiskPlan(
        target=disk.target,
        method=method,
        reason=reason,
        path=disk.path,
        identity="" if state is None else state.identity,
        source_format=disk.declared_format or disk.real_format,
        track=verdict.verdict is Verdict.TRACKED,
        encrypted=disk.encrypted,
        since=since,
        parent=parent,
    )


def _plan_disk(
    verdict: DiskVerdict,
    states: Mapping[str, DiskState],
    lineage: Sequence[Point],
    distrusted: Collection[Distrust],
    access: Access,
) -> DiskPlan:
    target = verdict.disk.target
    state = states.get(target)
    parent = _same_disk(verdict.disk, state, lineage[0])
    if parent is None:
        return _full(verdict, states, "this disk is new")
    if parent.target != target:
        reason = f"it was disk {parent.target} at the earlier restore point"
        return _disk_plan(verdict, states, Method.SCAN, reason, parent=parent)
    if verdict.verdict is not Verdict.TRACKED:
        return _disk_plan(verdict, states, Method.SCAN, verdict.reason, parent=parent)
    since, reason = find_trusted(verdict, state, lineage, distrusted)
    if since is None:
        return _disk_plan(verdict, states, Method.SCAN, reason, parent=parent)
    if access is Access.LIVE:
        return _disk_plan(verdict, states, Method.BITMAP, reason, since, parent)
    # The image of a VM that is off is not written to while one of its bitmaps still serves.
    if state is not None and len(state.layers) > 1:
        plan = _disk_plan(verdict, states, Method.SCAN, _SEVERAL_LAYERS, parent=parent)
    else:
        plan = _disk_plan(verdict, states, Method.BITMAP, reason, since, parent)
    return replace(plan, track=False)


def _same_disk(disk: Disk, state: DiskState | None, earlier: Point) -> PointDisk | None:
    """Find what a disk was in an earlier point: by its image, else by its target.

    A scan is right whatever it compares with; with the right one it stores little.
    """
    own = earlier.disk(disk.target)
    if state is None or not state.identity or (own is not None and own.path == disk.path):
        return own
    wanted = (disk.path, state.identity)
    found = (past for past in earlier.disks if (past.path, past.identity) == wanted)
    return next(found, own)
