"""Restore points, chains and disk facts with sensible values, made in one line."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vm_babysitter.domain.chain import Attempt, Chain, ChainState, Flaw, StoredPoint
from vm_babysitter.domain.point import (
    Checkpoint,
    Method,
    Point,
    PointDisk,
    bitmap_name,
    checkpoint_name,
    point_directory,
)
from vm_babysitter.domain.vm import (
    Bitmap,
    Disk,
    DiskKind,
    DiskState,
    DiskVerdict,
    Layer,
    Verdict,
    judge_disk,
)

CHAIN_ID = "c0ffee00-1111-4222-8333-444455556666"
VM_UUID = "5eed5eed-1111-4222-8333-444455556666"
BEGAN = datetime(2026, 11, 22, 2, 15, tzinfo=UTC)
MIB = 1 << 20
PATH = "/vms/it's a VM/vda.qcow2"
IDENTITY = "inode:77"


def nonce_of(seq: int) -> str:
    """Return the nonce that points of this module have."""
    return f"{seq:06x}"


def bitmap_of(seq: int, chain_id: str = CHAIN_ID, target: str = "vda") -> str:
    """Return the name of the bitmap that a disk got at a point of this module."""
    return bitmap_name(checkpoint_name(chain_id, seq, nonce_of(seq)), target)


def point_disk(
    target: str = "vda",
    *,
    parent: str | None = None,
    size: int = MIB,
    path: str = PATH,
    identity: str = IDENTITY,
) -> PointDisk:
    """Return a disk of a point."""
    return PointDisk(
        target=target,
        method=Method.FULL if parent is None else Method.BITMAP,
        file=f"{target}.qcow2",
        index=f"{target}.index",
        virtual_size=size,
        file_size=size,
        digest="d" * 64,
        index_digest="e" * 64,
        index_entries=1,
        read_bytes=size,
        written_bytes=size,
        zeroed_bytes=0,
        path=path,
        identity=identity,
        source_format="qcow2",
        reason="for a test",
        parent=parent,
    )


def point(
    seq: int = 0,
    parent: int | None = None,
    *,
    disks: Sequence[PointDisk] | None = None,
    tracked: Sequence[str] | None = None,
    chain_id: str = CHAIN_ID,
) -> Point:
    """Return a point; without ``disks`` it has one, ``vda``, on top of that of its parent.

    ``tracked`` names the disks that got a bitmap: all by default, none for no checkpoint.
    """
    level = "full" if parent is None else "inc"
    below = None if parent is None else point_directory(parent, "full" if parent == 0 else "inc")
    if disks is None:
        disks = (point_disk(parent=below),)
    targets = tuple(d.target for d in disks) if tracked is None else tuple(tracked)
    taken = BEGAN + timedelta(hours=seq)
    name = checkpoint_name(chain_id, seq, nonce_of(seq))
    checkpoint = Checkpoint(name, int(taken.timestamp()), targets, per_disk=True)
    return Point(
        vm_uuid=VM_UUID,
        vm_name="it's a VM",
        chain_id=chain_id,
        seq=seq,
        nonce=nonce_of(seq),
        level="full" if level == "full" else "inc",
        parent=parent,
        started=taken - timedelta(seconds=1),
        taken=taken,
        finished=taken + timedelta(seconds=9),
        disks=tuple(disks),
        files=(),
        checkpoint=checkpoint if targets else None,
        quiesced=False,
        quiesce_note="the VM has no guest agent",
        warnings=(),
        versions={"vm-babysitter": "1"},
    )


def line(length: int) -> tuple[Point, ...]:
    """Return a full and the increments on top of it, the oldest first."""
    return tuple(point(seq, seq - 1 if seq else None) for seq in range(length))


def chain(
    *points: Point | StoredPoint,
    id: str = CHAIN_ID,
    directory: str = "20261122T021500Z",
    archived: str = "",
) -> Chain:
    """Return a chain of these points, begun when its directory says.

    ``archived`` says why it is closed.
    """
    stored = tuple(p if isinstance(p, StoredPoint) else StoredPoint(p) for p in points)
    state = ChainState.ARCHIVED if archived else ChainState.LIVE
    created = datetime.strptime(directory, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return Chain(id, directory, state, archived, created, stored)


def damaged(point: Point, file: str = "vda.qcow2", reason: str = "it is missing") -> StoredPoint:
    """Return a point as stored, one file of which is not whole."""
    return StoredPoint(point, (Flaw(file, reason),))


def attempt(seq: int = 0, *, chain_id: str = CHAIN_ID, nonce: str = "abcdef") -> Attempt:
    """Return an attempt at a point."""
    return Attempt(
        vm_uuid=VM_UUID,
        chain_id=chain_id,
        seq=seq,
        level="full" if seq == 0 else "inc",
        nonce=nonce,
        checkpoint=checkpoint_name(chain_id, seq, nonce),
        socket=f"/run/x/job-{nonce}.socket",
        scratch=(f"/vms/.vmb-{nonce}-vda.scratch",),
        started=BEGAN,
    )


def a_disk(target: str = "vda", *, size: int = MIB, path: str = PATH) -> Disk:
    """Return a qcow2 disk as the VM has it now."""
    return Disk(
        target=target,
        kind=DiskKind.DISK,
        source_type="file",
        source=path,
        path=path,
        declared_format="qcow2",
        real_format="qcow2",
        virtual_size=size,
        compat="1.1",
    )


def tracked_disk(target: str = "vda", *, size: int = MIB, path: str = PATH) -> DiskVerdict:
    """Return the verdict of a disk that is tracked."""
    verdict = judge_disk(a_disk(target, size=size, path=path))
    assert verdict.verdict is Verdict.TRACKED
    return verdict


def compared_disk(target: str = "vda", *, size: int = MIB, path: str = PATH) -> DiskVerdict:
    """Return the verdict of a raw disk."""
    raw = replace(
        a_disk(target, size=size, path=path), real_format="raw", declared_format="raw", compat=""
    )
    return judge_disk(raw)


def good(*names: str) -> tuple[Bitmap, ...]:
    """Return bitmaps that record and are healthy."""
    return tuple(Bitmap(name, recording=True, inconsistent=False) for name in names)


def disk_state(
    *layers: Sequence[Bitmap],
    target: str = "vda",
    identity: str = IDENTITY,
    snapshots: int = 0,
) -> DiskState:
    """Return a disk's state from the bitmaps of its layers, the active one first."""
    named = tuple(Layer(f"/vms/layer{i}", tuple(bitmaps)) for i, bitmaps in enumerate(layers))
    return DiskState(target, identity, named, snapshots)
