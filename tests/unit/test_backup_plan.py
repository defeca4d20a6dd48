"""What the next backup does and why, by every rule; which bitmaps may go."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.points import (
    CHAIN_ID,
    IDENTITY,
    MIB,
    PATH,
    a_disk,
    attempt,
    bitmap_of,
    chain,
    compared_disk,
    damaged,
    disk_state,
    good,
    line,
    point,
    point_disk,
    tracked_disk,
)
from vm_babysitter.domain.backup_plan import BackupPlan, plan_backup
from vm_babysitter.domain.bitmaps import removable_bitmaps
from vm_babysitter.domain.chain import MAX_POINTS, Chain, Flaw, UnreadablePoint, live_chain
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.trust import Distrust
from vm_babysitter.domain.vm import Access, Bitmap, DiskKind, DiskState, DiskVerdict, judge_disk

OLD, NEW = bitmap_of(0), bitmap_of(1)
BOTH = good(NEW, OLD)
OTHER_CHAIN = "beefbeef-1111-4222-8333-444455556666"
ONLY_OLD = disk_state(good(OLD))


def test_a_vm_without_a_backup_gets_a_full_of_each_disk() -> None:
    plan = plan_backup([tracked_disk(), compared_disk("vdb")], {"vda": disk_state(())}, None)
    assert (plan.new_chain, plan.parent, plan.level) == (True, None, "full")
    assert plan.reasons == ("there is no backup of this VM yet",)
    assert [(d.method, d.since, d.parent) for d in plan.disks] == [(Method.FULL, None, None)] * 2
    assert [d.track for d in plan.disks] == [True, False]


def full_points(count: int) -> Chain:
    return chain(*line(count))


NEW_CHAINS: dict[str, tuple[Chain, bool, str]] = {
    "a full was asked for": (full_points(2), True, "asked for"),
    "every point is broken": (
        chain(damaged(point())),
        False,
        "missing",
    ),
    "the chain has no readable point": (
        replace(chain(), unreadable=(UnreadablePoint(0, "000000-full", "x"),)),
        False,
        "no restore point",
    ),
    "the chain is long enough": (full_points(MAX_POINTS), False, str(MAX_POINTS)),
}


@pytest.mark.parametrize(("found", "force", "word"), NEW_CHAINS.values(), ids=NEW_CHAINS)
def test_a_new_chain_begins_where(found: Chain, force: bool, word: str) -> None:
    plan = plan_backup([tracked_disk()], {"vda": disk_state(BOTH)}, found, force_full=force)
    assert (plan.new_chain, plan.parent, plan.level) == (True, None, "full")
    assert word in plan.reasons[0]
    assert [d.method for d in plan.disks] == [Method.FULL]


def test_a_chain_one_short_of_the_limit_goes_on() -> None:
    plan = plan_backup([tracked_disk()], {}, full_points(MAX_POINTS - 1))
    assert not plan.new_chain


def test_the_limit_counts_what_a_point_builds_on_not_what_lies_in_the_folder() -> None:
    leaves = [point(seq, 0) for seq in range(1, MAX_POINTS + 5)]
    assert not plan_backup([tracked_disk()], {}, chain(point(), *leaves)).new_chain


def test_an_increment_reads_what_the_bitmap_says() -> None:
    found = full_points(2)
    plan = plan_backup([tracked_disk()], {"vda": disk_state(BOTH)}, found)
    (disk,) = plan.disks
    newest = found.points[-1].point
    assert (plan.new_chain, plan.parent, plan.level) == (False, newest, "inc")
    assert (disk.method, disk.parent, disk.track) == (Method.BITMAP, newest.disk("vda"), True)
    assert disk.since is not None
    assert disk.since.name == NEW
    assert (disk.path, disk.identity, disk.source_format) == (PATH, IDENTITY, "qcow2")
    assert plan.reasons == ("builds on restore point 000001",)
    assert (plan.warnings, plan.notes) == ((), ())


def test_a_broken_point_is_passed_over_and_an_older_bitmap_goes_on() -> None:
    found = full_points(3).with_flaws(2, Flaw("vda.qcow2", "it is missing"))
    found = found.with_flaws(1, Flaw("", "x"))
    plan = plan_backup([tracked_disk()], {"vda": disk_state(BOTH)}, found)
    assert plan.parent == found.points[0].point
    assert plan.disks[0].since is not None
    assert plan.disks[0].since.name == OLD
    assert [r[:21] for r in plan.reasons] == [
        "builds on restore poi",
        "restore point 000001 ",
        "restore point 000002 ",
    ]


def test_without_a_trusted_bitmap_the_disk_is_compared_with_the_parent() -> None:
    plan = plan_backup([tracked_disk()], {"vda": disk_state(())}, full_points(2))
    (disk,) = plan.disks
    assert (disk.method, disk.since, disk.track) == (Method.SCAN, None, True)
    assert disk.parent is not None
    assert "gone" in disk.reason


def test_a_distrusted_bitmap_is_planned_around() -> None:
    every = [Distrust("vda", OLD), Distrust("vda", NEW)]
    states = {"vda": disk_state(BOTH)}
    plan = plan_backup([tracked_disk()], states, full_points(2), distrusted=every)
    assert [d.method for d in plan.disks] == [Method.SCAN]


def test_a_raw_disk_is_compared_and_gets_no_bitmap() -> None:
    plan = plan_backup([compared_disk()], {"vda": disk_state(BOTH)}, full_points(2))
    (disk,) = plan.disks
    assert (disk.method, disk.since, disk.track) == (Method.SCAN, None, False)
    assert disk.parent is not None


@pytest.mark.parametrize("wanted", [False, True])
def test_an_image_with_internal_snapshots_is_tracked_only_where_the_user_wants_it(
    wanted: bool,
) -> None:
    states = {"vda": disk_state(BOTH, snapshots=1), "vdb": disk_state((), target="vdb")}
    disks = [tracked_disk(), tracked_disk("vdb", path="/vms/b")]
    for found in (None, full_points(2)):
        plan = plan_backup(disks, states, found, track_snapshots=wanted)
        assert [d.track for d in plan.disks] == [wanted, True]
    assert plan.disks[0].method is (Method.BITMAP if wanted else Method.SCAN)
    assert ("internal snapshots" in plan.disks[0].reason) is not wanted


def test_what_cannot_be_tracked_anyway_is_compared_for_that_reason() -> None:
    states = {"vda": disk_state((), snapshots=1)}
    (disk,) = plan_backup([compared_disk()], states, full_points(1), track_snapshots=True).disks
    assert (disk.track, "raw" in disk.reason) == (False, True)


def test_a_new_disk_is_a_full_of_its_own_within_an_increment() -> None:
    disks = [tracked_disk(), tracked_disk("vdb", path="/vms/b")]
    states = {"vda": disk_state(BOTH), "vdb": disk_state((), target="vdb")}
    plan = plan_backup(disks, states, full_points(2))
    assert plan.level == "inc"
    assert [(d.method, d.parent is None) for d in plan.disks] == [
        (Method.BITMAP, False),
        (Method.FULL, True),
    ]


def test_a_disk_that_is_gone_is_noted_and_one_that_the_vm_still_has_warned_of() -> None:
    both = point(disks=(point_disk("vda"), point_disk("vdb", path="/vms/b", identity="inode:8")))
    plan = plan_backup([tracked_disk()], {"vda": ONLY_OLD}, chain(both))
    gone = "disk vdb is no longer part of the VM; earlier restore points keep it"
    assert (plan.warnings, plan.notes) == ((), (gone,))
    assert [d.target for d in plan.disks] == ["vda"]
    drive = [judge_disk(replace(a_disk("vdb"), kind=DiskKind.CDROM))]
    plan = plan_backup([tracked_disk()], {"vda": ONLY_OLD}, chain(both), left_out=drive)
    assert (plan.warnings, plan.notes) == ((), (gone,))
    shared = [judge_disk(replace(a_disk("vdb"), shareable=True))]
    plan = plan_backup([tracked_disk()], {"vda": ONLY_OLD}, chain(both), left_out=shared)
    told = f"disk vdb is no longer backed up: {shared[0].reason}"
    assert (plan.warnings, plan.notes) == ((told,), ())


def test_the_first_point_says_which_disks_with_data_are_left_out() -> None:
    changes: list[dict[str, Any]] = [
        {"shareable": True},
        {"source_type": "network"},
        {"kind": DiskKind.LUN},
        {"read_only": True},
        {"kind": DiskKind.CDROM},
        {"source_type": ""},
    ]
    disks = [replace(a_disk(f"vd{i}"), **change) for i, change in enumerate(changes)]
    left_out = [judge_disk(disk) for disk in disks]
    plan = plan_backup([tracked_disk()], {}, None, left_out=left_out)
    expected = [f"disk {v.disk.target} is not backed up: {v.reason}" for v in left_out[:3]]
    assert list(plan.warnings) == expected
    assert plan_backup([tracked_disk()], {}, full_points(1), left_out=left_out).warnings == ()


def test_an_encrypted_disk_is_warned_of_once() -> None:
    verdict = judge_disk(replace(a_disk(), encrypted=True))
    states = {"vda": disk_state(BOTH)}
    plans = [plan_backup([verdict], states, found) for found in (None, full_points(2))]
    assert [len(plan.warnings) for plan in plans] == [1, 1]
    assert "not in the backup" in plans[0].warnings[0]
    assert all(disk.encrypted for plan in plans for disk in plan.disks)
    known = point(disks=(replace(point_disk(), encrypted=True),))
    assert plan_backup([verdict], states, chain(known)).warnings == ()


# --- which disk is which


def disks_of(**images: str) -> tuple[list[DiskVerdict], dict[str, DiskState]]:
    """Return disks by their targets; the image ``a`` lies at /vms/a and is inode:a."""
    disks = [tracked_disk(target, path=f"/vms/{image}") for target, image in images.items()]
    states = {t: disk_state((), target=t, identity=f"inode:{i}") for t, i in images.items()}
    return disks, states


def then(**images: str) -> Chain:
    disks = [point_disk(t, path=f"/vms/{i}", identity=f"inode:{i}") for t, i in images.items()]
    return chain(point(disks=disks))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"vda": "a"}, {"hdc": "a"}, {"hdc": "vda"}),
        ({"vda": "a"}, {"vda": "x", "hdc": "a"}, {"vda": "vda", "hdc": "vda"}),
        ({"vda": "a", "vdb": "b"}, {"vda": "b", "vdb": "a"}, {"vda": "vdb", "vdb": "vda"}),
        ({"vda": "a", "vdb": "b"}, {"vda": "b"}, {"vda": "vdb"}),
        ({"vda": "a"}, {"vda": "x"}, {"vda": "vda"}),
        ({"vda": "a"}, {"vda": "a", "vdb": "x"}, {"vda": "vda", "vdb": None}),
        ({"vda": "a", "vdb": "a"}, {"vda": "a", "vdb": "a"}, {"vda": "vda", "vdb": "vdb"}),
    ],
)
def test_a_disk_goes_on_with_what_its_image_was(
    before: dict[str, str], now: dict[str, str], expected: dict[str, str | None]
) -> None:
    plan = plan_backup(*disks_of(**now), then(**before))
    found = {d.target: None if d.parent is None else d.parent.target for d in plan.disks}
    assert found == expected
    for disk in plan.disks:
        wanted = Method.FULL if disk.parent is None else Method.SCAN
        assert (disk.method, disk.since) == (wanted, None)
        if expected[disk.target] not in {None, disk.target}:
            assert (
                disk.reason == f"it was disk {expected[disk.target]} at the earlier restore point"
            )


@pytest.mark.parametrize("identity", ["", "inode:other"])
def test_another_file_at_the_place_of_an_image_is_not_taken_for_it(identity: str) -> None:
    disks, _ = disks_of(hdc="a")
    states = {"hdc": disk_state((), target="hdc", identity=identity)}
    assert plan_backup(disks, states, then(vda="a")).disks[0].parent is None


def test_the_format_of_a_disk_is_what_the_vm_uses_it_as() -> None:
    as_raw = judge_disk(replace(a_disk(), declared_format="raw"))
    unsaid = judge_disk(replace(a_disk(), declared_format=""))
    for found in (None, full_points(1)):
        plan = plan_backup([as_raw, unsaid], {}, found)
        assert [d.source_format for d in plan.disks] == ["raw", "qcow2"]


def test_a_disk_that_became_smaller_is_compared() -> None:
    plan = plan_backup([tracked_disk(size=MIB // 2)], {"vda": ONLY_OLD}, full_points(1))
    assert [(d.method, "smaller" in d.reason) for d in plan.disks] == [(Method.SCAN, True)]


# --- live_chain


def test_the_youngest_live_chain_grows() -> None:
    older = chain(point(), directory="20260101T000000Z")
    newer = chain(point(), id=OTHER_CHAIN, directory="20260202T000000Z")
    archived = chain(point(), directory="20260303T000000Z", archived="closed")
    assert live_chain([newer, archived, older]) == newer
    assert live_chain([archived]) is None
    assert live_chain([]) is None


def test_the_youngest_is_the_one_that_was_begun_last_whatever_its_folder_is_called() -> None:
    older = chain(point(), directory="20260101T000000Z")
    newer = chain(point(), id=OTHER_CHAIN, directory="20260202T000000Z")
    renamed = replace(newer, directory="1 before the upgrade")
    assert live_chain([renamed, older]) == renamed
    same = replace(older, directory="z")
    assert live_chain([same, older]) == same


def test_a_chain_that_never_got_a_point_does_not_count() -> None:
    begun = replace(chain(directory="20260505T000000Z"), attempts=(attempt(),))
    assert live_chain([begun]) is None
    older = chain(point(), directory="20260101T000000Z")
    assert live_chain([older, begun]) == older


def test_a_chain_whose_points_cannot_be_read_still_counts() -> None:
    unreadable = replace(chain(), unreadable=(UnreadablePoint(0, "000000-full", "x"),))
    assert live_chain([unreadable]) == unreadable


# --- removable_bitmaps


def removable(state: DiskState, *chains: Chain) -> list[str]:
    return [name for name, _ in removable_bitmaps([state], chains)]


def test_the_bitmaps_of_the_two_newest_points_are_kept() -> None:
    names = [bitmap_of(seq) for seq in range(4)]
    assert removable(disk_state(good(*names)), full_points(4)) == names[:2]


def test_a_point_without_a_bitmap_does_not_take_the_place_of_one_that_has() -> None:
    found = chain(*line(3), point(3, 2, tracked=()))
    names = [bitmap_of(seq) for seq in range(3)]
    assert removable(disk_state(good(*names)), found) == names[:1]


def test_the_two_newest_bitmaps_are_counted_for_each_disk() -> None:
    tracked = [("vda", "vdb"), ("vda", "vdb"), ("vda",), ("vda",), ("vdb",)]
    points = [point(seq, seq - 1 if seq else None, tracked=t) for seq, t in enumerate(tracked)]
    names = {t: [bitmap_of(seq, target=t) for seq in range(5)] for t in ("vda", "vdb")}
    states = [disk_state(good(*names[t]), target=t) for t in names]
    assert removable_bitmaps(states, [chain(*points)]) == (
        (names["vda"][0], ("vda",)),
        (names["vdb"][0], ("vdb",)),
        (names["vda"][1], ("vda",)),
        (names["vdb"][2], ("vdb",)),
        (names["vdb"][3], ("vdb",)),
        (names["vda"][4], ("vda",)),
    )


def test_a_bitmap_of_another_disk_goes_from_the_image_that_has_it() -> None:
    state = disk_state(good(bitmap_of(0), bitmap_of(1)), target="hdc")
    assert removable(state, full_points(2)) == [bitmap_of(0), bitmap_of(1)]


def test_bitmaps_of_earlier_versions_are_kept_like_others() -> None:
    points = []
    for seq in range(3):
        made = point(seq, seq - 1 if seq else None, tracked=("vda", "vdb"))
        assert made.checkpoint is not None
        points.append(replace(made, checkpoint=replace(made.checkpoint, per_disk=False)))
    names = [p.checkpoint.name for p in points if p.checkpoint]
    states = [disk_state(good(*names), target=t) for t in ("vda", "vdb")]
    assert removable_bitmaps(states, [chain(*points)]) == ((names[0], ("vda", "vdb")),)


@pytest.mark.parametrize(
    "name",
    [
        "vmb-12345678-000000-abcdef",
        "someone's",
        "virtnbdbackup.0",
        f"x{bitmap_of(0)}",
        "vmb-c0ffee0-000000-abcdef",
        "vmb-",
        "",
    ],
)
def test_a_bitmap_that_is_not_provably_ours_is_never_removed(name: str) -> None:
    assert removable(disk_state(good(name)), full_points(4)) == []
    assert removable(disk_state(good(name))) == []
    assert removable(disk_state(good(name)), chain(point(), archived="closed")) == []


@pytest.mark.parametrize("below", [False, True])
def test_a_damaged_bitmap_is_of_no_use_and_goes_however_new_it_is(below: bool) -> None:
    names = [bitmap_of(seq) for seq in range(4)]
    broken = [Bitmap(names[3], recording=False, inconsistent=True)]
    layers = (good(*names), broken) if below else (broken, good(names[2]))
    state = disk_state(*layers)
    assert names[3] in removable(state, full_points(4))
    assert names[2] not in removable(state, full_points(4))
    foreign = [Bitmap("virtnbdbackup.0", recording=False, inconsistent=True)]
    assert removable(disk_state(foreign), full_points(4)) == []


def test_no_bitmap_of_ours_keeps_a_vm_from_going_back_to_an_internal_snapshot() -> None:
    newest = [bitmap_of(seq) for seq in (2, 3)]
    on_vdb = [bitmap_of(seq, target="vdb") for seq in (2, 3)]
    points = [point(seq, seq - 1 if seq else None, tracked=("vda", "vdb")) for seq in range(4)]
    states = [
        disk_state(good(*newest, "foreign"), snapshots=1),
        disk_state(good(*on_vdb), target="vdb"),
    ]
    found = removable_bitmaps(states, [chain(*points)])
    assert found == tuple((name, ("vda",)) for name in newest)
    assert removable_bitmaps(states, [chain(*points)], track_snapshots=True) == ()


def test_bitmaps_of_archived_chains_and_of_attempts_without_a_point_go() -> None:
    archived = chain(*line(2), id=OTHER_CHAIN, directory="20260101T000000Z", archived="closed")
    old = bitmap_of(1, OTHER_CHAIN)
    orphan = f"vmb-{CHAIN_ID[:8]}-000009-abcdef"
    state = disk_state(good(old, orphan, bitmap_of(1)))
    assert removable(state, archived, full_points(2)) == sorted([old, orphan])


def test_bitmaps_of_all_layers_and_disks_are_found_each_with_its_targets() -> None:
    first, second = bitmap_of(0), bitmap_of(1)
    states = [
        disk_state(good("foreign"), good(first)),
        disk_state(good(first, second), target="vdb"),
        disk_state(good("foreign"), target="vdc"),
    ]
    found = removable_bitmaps(states, [full_points(4)])
    assert found == ((first, ("vda", "vdb")), (second, ("vdb",)))


@pytest.mark.parametrize("found", [None, chain(*line(1))])
def test_an_image_that_is_not_the_file_itself_gets_no_bitmap_while_the_vm_is_off(
    found: Chain | None,
) -> None:
    verdict = tracked_disk()
    behind = replace(verdict, disk=replace(verdict.disk, direct=False))
    for access, track in ((Access.LIVE, True), (Access.OFF, False)):
        plan = plan_backup([behind], {"vda": disk_state(())}, found, access=access)
        assert [d.track for d in plan.disks] == [track]
    plan = plan_backup([verdict], {"vda": disk_state(())}, found, access=Access.OFF)
    assert [d.track for d in plan.disks] == [True]


def test_points_that_no_longer_restore_are_warned_of_once() -> None:
    full, first, second, third = line(4)
    found = replace(
        chain(full, damaged(first), second), unreadable=(UnreadablePoint(3, "000003-inc", "torn"),)
    )
    warnings = planned(found).warnings
    assert [words.split(" cannot")[0] for words in warnings] == [
        f"restore point 20261122T021500Z/{seq:06d}" for seq in (1, 2, 3)
    ]
    assert "vda.qcow2: it is missing" in warnings[0]
    gone_on = chain(full, damaged(first), second, third, point(4, 0))
    assert planned(gone_on).warnings == ()


def test_a_series_that_ends_for_damage_is_warned_of_and_no_other() -> None:
    lost = chain(damaged(point()))
    (warning,) = planned(lost).warnings
    assert "000000 cannot be restored as a whole any more: vda.qcow2: it is missing" in warning
    assert planned(lost, force_full=True).warnings == ()
    assert planned(full_points(MAX_POINTS)).warnings == ()


def planned(found: Chain, *, force_full: bool = False) -> BackupPlan:
    return plan_backup([tracked_disk()], {"vda": disk_state(())}, found, force_full=force_full)
