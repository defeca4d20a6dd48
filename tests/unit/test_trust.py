"""Which bitmap is trusted: every rule, and that no doubtful one is ever chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.points import (
    CHAIN_ID,
    IDENTITY,
    MIB,
    PATH,
    bitmap_of,
    chain,
    disk_state,
    good,
    line,
    nonce_of,
    point,
    point_disk,
    tracked_disk,
)
from vm_babysitter.domain.backup_plan import plan_backup
from vm_babysitter.domain.point import Checkpoint, Point, checkpoint_name
from vm_babysitter.domain.trust import Distrust, find_trusted
from vm_babysitter.domain.vm import Bitmap, DiskState, DiskVerdict

OLD, NEW = bitmap_of(0), bitmap_of(1)
BOTH = good(NEW, OLD)
BROKEN = Bitmap(NEW, recording=False, inconsistent=True)
STOPPED = Bitmap(NEW, recording=False, inconsistent=False)
ONLY_OLD = disk_state(good(OLD))


def behind_fuse(path: str = "/mnt/user/vda.qcow2") -> DiskVerdict:
    """Return a disk whose file itself only QEMU knows."""
    verdict = tracked_disk(path=path)
    return replace(verdict, disk=replace(verdict.disk, direct=False))


def opened(path: str) -> DiskState:
    """Return what a QEMU says that has this path open."""
    state = disk_state(BOTH)
    return replace(state, layers=(replace(state.layers[0], path=path),))


@dataclass
class Facts:
    """A disk whose two newest points have healthy bitmaps, unless told otherwise."""

    disk: DiskVerdict = field(default_factory=tracked_disk)
    state: DiskState | None = field(default_factory=lambda: disk_state(BOTH))
    points: Sequence[Point] = field(default_factory=lambda: line(2))
    distrusted: Sequence[Distrust] = ()

    def trusted(self) -> tuple[str | None, str]:
        lineage = tuple(reversed(self.points))
        found, reason = find_trusted(self.disk, self.state, lineage, self.distrusted)
        return (None if found is None else found.name), reason


def earlier_version(made: Point) -> Point:
    """Return a point as it was made when all disks of a point had bitmaps of one name."""
    if made.checkpoint is None:
        return made
    return replace(made, checkpoint=replace(made.checkpoint, per_disk=False))


def past(seq: int = 0, **disk: Any) -> Point:
    below = "000000-full" if seq else None
    return point(seq, seq - 1 if seq else None, disks=(point_disk(parent=below, **disk),))


def of_earlier_version(*tracked: str) -> Point:
    return earlier_version(point(0, tracked=tracked))


SHARED = checkpoint_name(CHAIN_ID, 0, nonce_of(0))
CHOSEN: dict[str, tuple[Facts, str]] = {
    "the youngest": (Facts(), NEW),
    "one of an earlier version whose point tracked this disk alone": (
        Facts(state=disk_state(good(SHARED)), points=(of_earlier_version("vda"),)),
        SHARED,
    ),
    "the older where the youngest is gone": (Facts(state=disk_state(good(OLD))), OLD),
    "the older where the youngest is damaged": (
        Facts(state=disk_state((BROKEN, *good(OLD)))),
        OLD,
    ),
    "the older where the youngest was switched off": (
        Facts(state=disk_state((STOPPED, *good(OLD)))),
        OLD,
    ),
    "the older where libvirt refused the youngest": (
        Facts(distrusted=[Distrust("vda", NEW)]),
        OLD,
    ),
    "the older where the youngest point was not tracked": (
        Facts(points=(line(2)[0], point(1, 0, tracked=()))),
        OLD,
    ),
    "one begun in the active layer": (Facts(state=disk_state(BOTH, ())), NEW),
    "one that goes on through the layers": (Facts(state=disk_state(good(NEW), BOTH)), NEW),
    "one that rests in a lower layer": (Facts(state=disk_state(good(NEW), (STOPPED,))), NEW),
    "one of a disk that has grown": (Facts(disk=tracked_disk(size=2 * MIB)), NEW),
    "one of an image whose folder was renamed": (
        Facts(disk=tracked_disk(path="/vms/other.qcow2")),
        NEW,
    ),
    "one of an image that lay elsewhere in between": (
        Facts(state=ONLY_OLD, points=(line(2)[0], past(1, path="/x"))),
        OLD,
    ),
    "one of a disk behind FUSE by the path that QEMU has": (
        Facts(disk=behind_fuse(), state=opened(PATH)),
        NEW,
    ),
    "one of a disk that QEMU names otherwise": (Facts(state=opened("/a/link")), NEW),
    "one where another disk is distrusted": (Facts(distrusted=[Distrust("vdb", NEW)]), NEW),
}


@pytest.mark.parametrize(("facts", "name"), CHOSEN.values(), ids=CHOSEN)
def test_a_bitmap_is_chosen(facts: Facts, name: str) -> None:
    found, reason = facts.trusted()
    assert found == name
    assert f"restore point {1 if name == NEW else 0:06d}" in reason


REFUSED: dict[str, tuple[Facts, str]] = {
    "QEMU says nothing": (Facts(state=None), "does not tell"),
    "no layers": (Facts(state=disk_state()), "does not tell"),
    "no bitmaps": (Facts(state=disk_state(())), "is gone"),
    "another disk's bitmap of the same moment": (
        Facts(state=disk_state(good(bitmap_of(1, target="vdb")))),
        "is gone",
    ),
    "bitmaps of one name on several disks": (
        Facts(state=disk_state(good(SHARED)), points=(of_earlier_version("vda", "vdb"),)),
        "does not tell disks apart",
    ),
    "foreign bitmaps only": (Facts(state=disk_state(good("someone's"))), "is gone"),
    "a new layer without the bitmap": (Facts(state=disk_state((), BOTH)), "is gone"),
    "a gap between layers": (
        Facts(state=disk_state(good(NEW), (), good(NEW))),
        "gap",
    ),
    "damaged": (Facts(state=disk_state((BROKEN,)), points=(past(1),)), "damaged"),
    "damaged in a lower layer": (
        Facts(state=disk_state(good(NEW), (BROKEN,)), points=(past(1),)),
        "damaged",
    ),
    "switched off": (Facts(state=disk_state((STOPPED,)), points=(past(1),)), "switched off"),
    "refused by libvirt": (
        Facts(distrusted=[Distrust("vda", NEW), Distrust("vda", OLD)]),
        "libvirt",
    ),
    "another image at the path": (Facts(state=disk_state(BOTH, identity="inode:78")), "another"),
    "no identity": (Facts(state=disk_state(BOTH, identity="")), "another image"),
    "neither has an identity": (
        Facts(state=disk_state(BOTH, identity=""), points=(past(identity=""),)),
        "another image",
    ),
    "smaller": (Facts(disk=tracked_disk(size=MIB - 512)), "smaller"),
    "never tracked": (
        Facts(points=(point(0, tracked=()), point(1, 0, tracked=("vdb",)))),
        "no change tracking",
    ),
}


@pytest.mark.parametrize(("facts", "word"), REFUSED.values(), ids=REFUSED)
def test_no_bitmap_is_chosen(facts: Facts, word: str) -> None:
    found, reason = facts.trusted()
    assert found is None
    assert word in reason


TWO_BACK: dict[str, tuple[Point, Point, str]] = {
    "was another image then": (past(0, identity="inode:5"), past(1), "another image"),
    "was missing in between": (past(0), point(1, 0, disks=(point_disk("vdb"),)), "another image"),
    "shrank in between": (past(0, size=2 * MIB), past(1), "smaller"),
    "was another image in between": (past(0), past(1, identity="inode:5"), "another image"),
}


@pytest.mark.parametrize(("old", "new", "word"), TWO_BACK.values(), ids=TWO_BACK)
def test_an_older_bitmap_does_not_reach_over_a_point_where_the_disk(
    old: Point, new: Point, word: str
) -> None:
    points = (old, replace(new, checkpoint=None))
    found, reason = Facts(state=ONLY_OLD, points=points).trusted()
    assert found is None
    assert word in reason


def test_a_disk_that_shrank_and_grew_again_is_not_trusted_though_its_size_is_the_old_one() -> None:
    points = (past(0, size=2 * MIB), past(1, size=MIB))
    facts = Facts(disk=tracked_disk(size=2 * MIB), state=ONLY_OLD, points=points)
    assert facts.trusted()[0] is None


def test_the_reason_is_that_of_the_youngest_bitmap_for_the_older_ones_are_long_gone() -> None:
    moved = (past(0, identity="inode:5"), point(1, 0), point(2, 1))
    broken = Bitmap(bitmap_of(2), recording=False, inconsistent=True)
    for points in (line(3), moved):
        assert "damaged" in Facts(state=disk_state((broken,)), points=points).trusted()[1]


def test_path_of_a_disk_behind_fuse_is_the_one_that_qemu_has() -> None:
    for disk, state, path in (
        (behind_fuse(), opened("/mnt/cache/x"), "/mnt/cache/x"),
        (behind_fuse(), None, "/mnt/user/vda.qcow2"),
        (behind_fuse(), disk_state(), "/mnt/user/vda.qcow2"),
        (tracked_disk(), opened("/a/link"), PATH),
    ):
        states = {} if state is None else {"vda": state}
        assert plan_backup([disk], states, None).disks[0].path == path


def test_path_of_a_disk_behind_fuse_is_noted_only_where_it_is_another() -> None:
    for path, notes in ((PATH, 0), ("/mnt/disk1/x", 1)):
        states = {"vda": opened(path)}
        assert len(plan_backup([behind_fuse()], states, chain(*line(2))).notes) == notes


def test_the_chosen_checkpoint_is_for_this_disk_alone() -> None:
    shared = point(disks=(point_disk("vda"), point_disk("vdb")))
    assert shared.checkpoint is not None
    found, _ = find_trusted(tracked_disk(), ONLY_OLD, (shared,), ())
    assert found == Checkpoint(OLD, shared.checkpoint.created, ("vda",))


def sound(state: DiskState, name: str) -> bool:
    """Decision 7 for the layers, by another way than the code: a healthy run from the top."""
    having = [layer.bitmap(name) for layer in state.layers]
    while having and having[-1] is None:
        having.pop()
    healthy = [b is not None and not b.inconsistent for b in having]
    return bool(having) and all(healthy) and having[0] is not None and having[0].recording


def trustworthy(facts: Facts, chosen: str) -> bool:
    """Whether decision 7 holds for the bitmap that was chosen."""
    state, disk = facts.state, facts.disk.disk
    if state is None or not sound(state, chosen):
        return False
    if Distrust(disk.target, chosen) in facts.distrusted or not state.identity:
        return False
    since = next(
        i
        for i, p in enumerate(facts.points)
        if p.checkpoint and p.checkpoint.bitmap("vda") == chosen
    )
    held = [p.disk(disk.target) for p in facts.points[since:]]
    checkpoint = facts.points[since].checkpoint
    if any(d is None for d in held) or checkpoint is None or disk.target not in checkpoint.disks:
        return False
    if not checkpoint.per_disk and checkpoint.disks != (disk.target,):
        return False
    same = all(d and d.identity == state.identity for d in held)
    sizes = [*(d.virtual_size for d in held if d), disk.virtual_size]
    return same and sizes == sorted(sizes)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Draw the usual value most of the time, so that not every case is a refusal."""
    return st.integers(0, 7).map(lambda n: others[n % len(others)] if n == 7 else usual)


@st.composite
def facts_of_any_kind(draw: st.DrawFn) -> Facts:
    length = draw(st.integers(1, 4))
    points = []
    for seq in range(length):
        disks = (
            point_disk(
                size=draw(mostly(MIB, MIB // 2, 2 * MIB)),
                path=draw(mostly(PATH, "/other")),
                identity=draw(mostly(IDENTITY, "", "inode:5")),
            ),
        )
        tracked = draw(mostly(("vda",), ("vda", "vdb"), (), ("vdb",)))
        disks = draw(mostly(disks, (point_disk("vdb"),)))
        made = point(seq, seq - 1 if seq else None, disks=disks, tracked=tracked)
        points.append(draw(mostly(made, earlier_version(made))))
    names = [p.checkpoint.bitmap("vda") for p in points if p.checkpoint]
    names += [bitmap_of(0, target="vdb")]
    layers = [
        [
            Bitmap(name, draw(mostly(True, False)), draw(mostly(False, True)))
            for name in [*names, "foreign"]
            if draw(mostly(True, False))
        ]
        for _ in range(draw(mostly(1, 2, 3, 0)))
    ]
    state = disk_state(
        *layers,
        identity=draw(mostly(IDENTITY, "", "inode:5")),
    )
    return Facts(
        disk=tracked_disk(size=draw(mostly(MIB, MIB // 2, 2 * MIB)), path=draw(mostly(PATH, "/o"))),
        state=draw(mostly(state, None)),
        points=points,
        distrusted=[Distrust("vda", n) for n in names if draw(mostly(False, True))],
    )


@given(facts_of_any_kind())
def test_whatever_the_facts_a_chosen_bitmap_meets_all_rules_of_trust(facts: Facts) -> None:
    chosen, reason = facts.trusted()
    event("chosen" if chosen else "refused")
    assert reason
    assert chosen is None or trustworthy(facts, chosen)


@given(facts_of_any_kind())
def test_a_bitmap_that_meets_all_rules_of_trust_is_not_passed_over(facts: Facts) -> None:
    names = [p.checkpoint.bitmap("vda") for p in facts.points if p.checkpoint]
    worthy = [name for name in names if trustworthy(facts, name)]
    assert facts.trusted()[0] == (worthy[-1] if worthy else None)
