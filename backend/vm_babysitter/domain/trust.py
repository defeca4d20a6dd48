"""Which dirty bitmap surely holds all changes of a disk since a restore point. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vm_babysitter.domain.point import Checkpoint, Point, PointDisk
from vm_babysitter.domain.vm import DiskState, DiskVerdict, Layer


@dataclass(frozen=True, slots=True)
class Distrust:
    """A bitmap that libvirt itself found unusable."""

    target: str
    bitmap: str


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
