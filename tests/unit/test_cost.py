"""What a backup reads, and how long that lasts, said before it begins."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support import points as make
from vm_babysitter.domain.backup_plan import plan_backup
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.cost import ASSUMED_SPEED, Cost, estimate
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.reread import Reread
from vm_babysitter.domain.vm import Bitmap, DiskState, DiskVerdict, judge_disk

GIB, MIB = 1 << 30, 1 << 20
SIZE = 30 * GIB
CONTENT = 15 * GIB
NEVER = 0


def verdict(
    allocated: int | None = CONTENT,
    *,
    raw: bool = False,
    source_type: str = "file",
    declared_format: str = "",
    compat: str = "1.1",
) -> DiskVerdict:
    """A disk of SIZE of which so much is allocated."""
    disk = (make.compared_disk if raw else make.tracked_disk)(size=SIZE).disk
    changed = replace(
        disk,
        allocated=allocated,
        source_type=source_type,
        declared_format=declared_format or disk.declared_format,
        compat=compat,
    )
    return judge_disk(changed)


def cost(
    disk: DiskVerdict,
    chain: Chain | None = None,
    state: DiskState | None = None,
    *,
    force_full: bool = False,
    runs: int = NEVER,
) -> Cost:
    states = {} if state is None else {"vda": state}
    plan = plan_backup([disk], states, chain, force_full=force_full)
    return estimate(plan, [disk], states, chain, runs)


def full(*, reread: Reread | None = None, read: int = 0, seconds: float = 9, seq: int = 0) -> Point:
    """A point that read so many bytes in so many seconds."""
    point = make.point(seq, seq - 1 if seq else None)
    disks = tuple(
        replace(disk, virtual_size=SIZE, read_bytes=read, reread=reread) for disk in point.disks
    )
    return replace(point, disks=disks, finished=point.taken + timedelta(seconds=seconds))


def marked(*dirty: int | None) -> DiskState:
    """A disk whose layers have the bitmap of point 0, with so many bytes marked in each."""
    checkpoint = make.point(0).checkpoint
    assert checkpoint is not None
    name = checkpoint.bitmap("vda")
    layers = [[Bitmap(name, recording=True, inconsistent=False, dirty=d)] for d in dirty]
    return make.disk_state(*layers)


@pytest.mark.parametrize(
    ("allocated", "read"),
    [(CONTENT, CONTENT), (0, 0), (SIZE + MIB, SIZE), (None, SIZE)],
    ids=["partly", "nothing", "with its tables more than the disk", "unknown"],
)
@pytest.mark.parametrize("method", ["full", "scan"])
def test_a_whole_disk_is_read_as_far_as_it_is_allocated(
    method: str, allocated: int | None, read: int
) -> None:
    chain = None if method == "full" else make.chain(full())
    found = cost(verdict(allocated, raw=True), chain)
    assert (found.read_bytes, found.complete) == (read, True)


@pytest.mark.parametrize(
    ("state", "read"),
    [
        (marked(5 * MIB), 5 * MIB),
        (marked(0), 0),
        (marked(5 * MIB, 7 * MIB), 12 * MIB),
        (marked(SIZE, SIZE), SIZE),
        (marked(None), None),
        (marked(5 * MIB, None), None),
    ],
    ids=["one layer", "nothing", "two layers", "twice the disk", "untold", "one layer untold"],
)
def test_with_change_tracking_what_is_marked_is_read(state: DiskState, read: int | None) -> None:
    found = cost(verdict(), make.chain(full()), state)
    assert [disk.read_bytes for disk in found.disks] == [read]
    assert (found.read_bytes, found.complete) == (read or 0, read is not None)


@pytest.mark.parametrize(
    ("reread", "runs", "again"),
    [
        (None, 30, CONTENT // 30),
        (None, 10, CONTENT // 10),
        (Reread(0, 15), 30, CONTENT // 15),
        (Reread(SIZE // BLOCK_SIZE // 2, 15), 30, CONTENT // 2 // 15),
        (Reread(SIZE // BLOCK_SIZE, 1), 30, 0),
        (None, NEVER, 0),
    ],
)
def test_the_share_of_the_rest_that_is_read_again_counts(
    reread: Reread | None, runs: int, again: int
) -> None:
    chain = make.chain(full(reread=reread))
    assert cost(verdict(), chain, marked(0), runs=runs).read_bytes == again


def test_what_has_changed_is_not_read_again() -> None:
    chain = make.chain(full())
    changed = CONTENT // 3
    found = cost(verdict(), chain, marked(changed), runs=10)
    assert found.read_bytes == changed + (CONTENT - changed) // 10
    everything = cost(verdict(), chain, marked(CONTENT + MIB), runs=10)
    assert everything.read_bytes == CONTENT + MIB


@pytest.mark.parametrize(
    ("points", "speed"),
    [
        ([], None),
        ([(64 * MIB, 2.0)], 32 * MIB),
        ([(64 * MIB - 1, 2.0)], None),
        ([(GIB, 0.0)], None),
        ([(GIB, -1.0)], None),
        ([(GIB, 4.0), (2 * GIB, 4.0)], GIB / 2),
        ([(GIB, 4.0), (MIB, 4.0)], GIB / 4),
    ],
    ids=["none", "just enough", "too little", "no time", "clock set back", "newest", "older"],
)
def test_it_lasts_as_long_as_at_the_speed_of_the_newest_backup_that_tells(
    points: list[tuple[int, float]], speed: float | None
) -> None:
    made = [full(read=read, seconds=s, seq=seq) for seq, (read, s) in enumerate(points)]
    found = cost(verdict(), make.chain(*made), force_full=True)
    assert (found.bytes_per_second, found.measured) == (speed or ASSUMED_SPEED, bool(speed))
    assert found.seconds == pytest.approx(CONTENT / (speed or ASSUMED_SPEED))


@pytest.mark.parametrize(
    ("disk", "convertible"),
    [
        (verdict(raw=True), True),
        (verdict(raw=True, source_type="block"), False),
        (verdict(), False),
        (verdict(compat="0.10"), False),
        (verdict(declared_format="raw"), False),
    ],
    ids=["raw", "block device", "qcow2", "old qcow2", "qcow2 used as raw"],
)
def test_raw_files_can_be_converted(disk: DiskVerdict, convertible: bool) -> None:
    for chain in (None, make.chain(full())):
        assert [d.convertible for d in cost(disk, chain, marked(0)).disks] == [convertible]
