"""What the next backup of a VM does, disk by disk, and why. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vm_babysitter.domain.chain import (
    MAX_POINTS,
    Chain,
    Checkpoint,
    Method,
    Point,
    PointDisk,
)
from vm_babysitter.domain.hardware import changed_disk, gone_disks, newly_encrypted
from vm_babysitter.domain.space import sees_errors
from vm_babysitter.domain.vm import (
    Access,
    Disk,
    DiskState,
    DiskVerdict,
    Layer,
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


@dataclass(frozen=True, slots=True)
class Distrust:
    """A bitmap that libvirt itself found unusable."""

    target: str
    bitmap: str


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
        tracked = _as_reachable(full, disks, access)
        return BackupPlan(True, None, reasons, tracked, tuple(filter(None, told)))
    lineage = chain.lineage(parent.seq)
    planned = [_plan_disk(d, states, lineage, distrusted, access) for d in disks]
    plans = _as_reachable(planned, disks, access)
    pairs = [(d.disk, plan) for d, plan in zip(disks, plans, strict=True)]
    lost, notes = gone_disks(parent, [plan.parent for plan in plans], disks, left_out)
    warnings = [*lost, *(newly_encrypted(disk, plan.parent) for disk, plan in pairs)]
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
        why = "; ".join(sorted(set(chain.broken.values()))) or "it has no restore point"
        return (f"nothing can build on the backup series {chain.directory}: {why}",), None
    if len(chain.lineage(parent.seq)) >= MAX_POINTS:
        return (f"the backup series has reached {MAX_POINTS} restore points",), None
    skipped = [seq for seq in chain.broken if seq > parent.seq]
    reasons = [f"builds on restore point {parent.seq:06d}"]
    reasons += [f"restore point {seq:06d} is passed over: {chain.broken[seq]}" for seq in skipped]
    return tuple(reasons), parent


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


def find_trusted(
    verdict: DiskVerdict,
    state: DiskState | None,
    lineage: Sequence[Point],
    distrusted: Collection[Distrust],
) -> tuple[Checkpoint | None, str]:
    """Find the youngest ancestor whose bitmap surely holds all changes since the parent.

    A bitmap records on until it is removed, so that of any ancestor will do, as long as the
    disk was the same image in every point from the ancestor on and never got smaller. Its path
    may have changed: a folder was renamed, or the definition names it by another mount.

    Returns the checkpoint, and the reason for it or for its absence.
    """
    disk = verdict.disk
    if state is None or not state.layers:
        return None, "QEMU does not tell the state of this disk"
    why = ""  # of the youngest: those before it are removed in time and tell nothing
    size = disk.virtual_size
    for point in lineage:
        past = point.disk(disk.target)
        changed = _image_changed(past, state.identity, size)
        if past is None or changed:
            return None, why or changed
        size = past.virtual_size
        checkpoint = point.checkpoint
        if checkpoint is None or disk.target not in checkpoint.disks:
            continue
        name = checkpoint.bitmap(disk.target)
        if checkpoint.ambiguous:
            problem = "the change tracking of an earlier version does not tell disks apart"
        else:
            distrust = Distrust(disk.target, name) in distrusted
            problem = _bitmap_problem(state.layers, name, distrust=distrust)
        if not problem:
            own = Checkpoint(name, checkpoint.created, (disk.target,))
            return own, f"changes were tracked since restore point {point.seq:06d}"
        why = why or problem
    return None, why or "there is no change tracking since an earlier restore point"


def _image_changed(past: PointDisk | None, identity: str, size: int) -> str:
    """Say why no bitmap may reach back over a point: ``size`` is what the disk had after it."""
    if past is None or not identity or past.identity != identity:
        return "the disk is another image than at the earlier restore point"
    if past.virtual_size > size:
        return "the disk has become smaller"
    return ""


def _bitmap_problem(layers: Sequence[Layer], name: str, *, distrust: bool) -> str:
    """Say why a bitmap is not to be trusted, empty if it is.

    It must be in the active layer and may go on in the layers below it without a gap, healthy
    in each: libvirt merges exactly those.
    """
    if distrust:
        return "libvirt found the change tracking unusable"
    gone_on = True
    for depth, layer in enumerate(layers):
        bitmap = layer.bitmap(name)
        if bitmap is None:
            if depth == 0:
                return "the change tracking since the earlier restore point is gone"
            gone_on = False
            continue
        if not gone_on:
            return "the change tracking has a gap between snapshot layers"
        if bitmap.inconsistent:
            return "the change tracking is damaged (QEMU or the host went down hard)"
        if not bitmap.recording and depth == 0:
            return "the change tracking was switched off"
    return ""
