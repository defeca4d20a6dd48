"""What is found of a VM's backups, by tables: facts in, findings and verdict out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.points import (
    BEGAN,
    VM_UUID,
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
from vm_babysitter.domain.backup_plan import plan_backup
from vm_babysitter.domain.chain import Chain, Flaw, StoredPoint, UnreadablePoint
from vm_babysitter.domain.diagnosis import Diagnosis, Health, diagnose
from vm_babysitter.domain.findings import Code, Facts, Unlinked, Weight
from vm_babysitter.domain.oddity import Oddity, OddityKind
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Since
from vm_babysitter.domain.repair_plan import StepKind, plan_repair
from vm_babysitter.domain.vm import Bitmap, DiskState, DiskVerdict, PowerState, Vm

LIVE = "20261122T021500Z"
VM = Vm(VM_UUID, "it's a VM", PowerState.RUNNING, (a_disk(),))
BOTH = (point_disk("vda"), point_disk("vdb"))
ON_BOTH = tuple(point_disk(target, parent="000000-full") for target in ("vda", "vdb"))


def facts(
    *chains: Chain,
    states: Sequence[DiskState] = (disk_state(good(bitmap_of(2))),),
    disks: Sequence[DiskVerdict] = (tracked_disk(),),
) -> Facts:
    """Return facts of a VM that runs, with the plan that follows from them."""
    growing = next((c for c in chains if not c.why), None)
    planned = plan_backup(disks, {s.target: s for s in states}, growing)
    return Facts(VM.name, VM.uuid, chains, VM, tuple(states), next=planned)


def codes(diagnosis: Diagnosis) -> set[Code]:
    return {finding.code for finding in diagnosis.findings}


def only(diagnosis: Diagnosis, code: Code) -> str:
    """Return the only finding of this kind, in words, its evidence included."""
    (found,) = (finding for finding in diagnosis.findings if finding.code is code)
    return " | ".join((found.what, *found.evidence))


def torn(seq: int) -> UnreadablePoint:
    return UnreadablePoint(seq, f"{seq:06d}-inc", "its manifest is torn")


def out_of_reach(of: Point, file: str = "vda.qcow2") -> StoredPoint:
    reason = "it cannot be looked at (Stale file handle)"
    return StoredPoint(of, (Flaw(file, reason, evidence=False),))


# -- the verdict ----------------------------------------------------------------------------


HEALTH: dict[str, tuple[Facts, Health]] = {
    "nothing is wrong": (facts(chain(*line(3))), Health.GOOD),
    "no backup yet": (facts(), Health.NONE),
    "only an interrupted first backup": (
        facts(replace(chain(), attempts=(attempt(),))),
        Health.NONE,
    ),
    "an interrupted backup": (
        facts(replace(chain(*line(3)), attempts=(attempt(3),))),
        Health.REPAIRABLE,
    ),
    "the newest is damaged": (
        facts(chain(*line(2), damaged(line(3)[2]))),
        Health.REPAIRABLE,
    ),
    "the newest cannot be read": (
        facts(replace(chain(*line(3)), unreadable=(torn(3),))),
        Health.REPAIRABLE,
    ),
    "a damaged one was passed over already": (
        facts(chain(line(1)[0], damaged(line(2)[1]), point(2, 0))),
        Health.GOOD,
    ),
    "the full is damaged": (facts(chain(damaged(line(1)[0]), *line(3)[1:])), Health.LOST),
    "the full is damaged, an older chain is whole": (
        facts(
            chain(*line(2), directory="20260101T000000Z", archived="x", id="old"),
            chain(damaged(line(1)[0]), *line(3)[1:]),
        ),
        Health.RESTORE_ONLY,
    ),
    "all chains are closed": (facts(chain(*line(2), archived="x")), Health.RESTORE_ONLY),
    "change tracking is gone": (
        facts(chain(*line(3)), states=(disk_state(()),)),
        Health.REPAIRABLE,
    ),
    "a raw disk has no change tracking anyway": (
        facts(chain(*line(3)), states=(disk_state(()),), disks=(compared_disk(),)),
        Health.GOOD,
    ),
    "the VM is gone, its backups are not": (
        replace(facts(chain(*line(3))), vm=None, next=None, states=()),
        Health.GOOD,
    ),
    "a file beside the disks of the newest is damaged": (
        facts(chain(*line(2), damaged(line(3)[2], "domain.xml"))),
        Health.REPAIRABLE,
    ),
    "the same of an older one, which others build on": (
        facts(chain(damaged(line(1)[0], "nvram.fd"), *line(3)[1:])),
        Health.GOOD,
    ),
    "the same of the only one": (
        facts(chain(damaged(line(1)[0], "domain.xml"))),
        Health.REPAIRABLE,
    ),
    "the same of the only one, in a closed chain": (
        facts(chain(damaged(line(1)[0], "domain.xml"), archived="x")),
        Health.RESTORE_ONLY,
    ),
    "the full is out of reach": (
        facts(chain(out_of_reach(line(1)[0]), *line(3)[1:])),
        Health.UNKNOWN,
    ),
    "the newest is out of reach": (
        facts(chain(*line(2), out_of_reach(line(3)[2]))),
        Health.REPAIRABLE,
    ),
    "all is out of reach": (
        Facts(VM.name, VM.uuid, vm=VM, unread="it says no"),
        Health.UNKNOWN,
    ),
    "only an unfinished backup": (
        facts(replace(chain(), unreadable=(replace(torn(0), unfinished=True),))),
        Health.NONE,
    ),
    "an unfinished backup": (
        facts(replace(chain(*line(3)), unreadable=(replace(torn(3), unfinished=True),))),
        Health.GOOD,
    ),
    "an image is away": (
        replace(facts(chain(*line(3))), next=None, hindrance="vda cannot be read"),
        Health.GOOD,
    ),
}


@pytest.mark.parametrize(("known", "health"), HEALTH.values(), ids=HEALTH)
def test_the_verdict(known: Facts, health: Health) -> None:
    assert diagnose(known).health is health


@given(
    damage=st.sets(st.integers(0, 5)),
    parents=st.lists(st.integers(0, 4), min_size=5, max_size=5),
    archived=st.booleans(),
)
def test_a_point_that_is_called_good_is_whole_with_all_it_builds_on(
    damage: set[int], parents: list[int], archived: bool
) -> None:
    made = [point(0), *(point(i, min(p, i - 1)) for i, p in enumerate(parents, 1))]
    stored = [damaged(p) if p.seq in damage else StoredPoint(p) for p in made]
    found_chain = chain(*stored, archived="x" if archived else "")
    found = diagnose(Facts(VM.name, VM.uuid, (found_chain,)))
    for each in found.points:
        whole = not damage & {p.seq for p in found_chain.lineage(each.seq)}
        assert (not each.problem) == whole
        assert (each.disks == ("vda",)) == whole
    if found.health in {Health.GOOD, Health.REPAIRABLE}:
        assert found.newest is not None
        assert not archived
    assert (found.health is Health.LOST) == (0 in damage)
    named = {seq for finding in found.findings for seq in finding.seqs}
    assert {p.seq for p in found.lost} <= named  # none is lost without a word


# -- the findings ---------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert diagnose(facts(chain(*line(3)))).findings == ()


def test_an_interrupted_backup_is_told_with_what_it_left() -> None:
    left = attempt(3)
    bitmap = Bitmap(f"{left.checkpoint}-vda", recording=True, inconsistent=False)
    state = disk_state((*good(bitmap_of(2)), bitmap))
    known = facts(replace(chain(*line(3)), attempts=(left,)), states=(state,))
    words = only(diagnose(replace(known, job_socket=left.socket)), Code.INTERRUPTED)
    assert f"a backup, {LIVE}/000003, was interrupted" in words
    assert "begun 2026-11-22 02:15:00 UTC" in words
    assert "its job is still running in QEMU" in words
    assert "its change tracking is still on disk vda" in words
    other = only(diagnose(replace(known, job_socket="/another")), Code.INTERRUPTED)
    assert "its job" not in other


def test_a_committed_point_with_a_mark_is_not_called_interrupted() -> None:
    done = attempt(2, nonce=line(3)[2].nonce)
    found = diagnose(facts(replace(chain(*line(3)), attempts=(done,))))
    assert codes(found) == {Code.UNFINISHED}
    assert found.health is Health.REPAIRABLE
    assert not found.lost


def test_a_vm_that_is_stuck_goes_on_only_if_it_ran_when_the_backup_began() -> None:
    stuck = replace(VM, state=PowerState.STUCK)
    for ran in (True, False):
        left = replace(attempt(3), ran=ran)
        known = facts(replace(chain(*line(3)), attempts=(left,)))
        (found,) = (f for f in diagnose(replace(known, vm=stuck)).findings if f.code is Code.STUCK)
        assert found.weight is (Weight.MENDED if ran else Weight.PERSON)
        assert ("virsh resume" in found.what) is not ran


def test_a_vm_that_is_stuck_needs_a_person_where_no_mark_tells_that_it_ran() -> None:
    """The mark of the attempt is damaged: without a word it would stay paused for ever."""
    known = facts(replace(chain(*line(3)), unreadable=(torn(3),)))
    found = diagnose(replace(known, vm=replace(VM, state=PowerState.STUCK)))
    assert "virsh resume" in only(found, Code.STUCK)
    assert StepKind.RESUME not in [step.kind for step in plan_repair(found).steps]


def test_a_backup_that_somebody_is_at_is_a_note_and_nothing_is_done_about_it() -> None:
    running = replace(chain(*line(3)), attempts=(attempt(3),))
    known = replace(
        facts(running), under_way={"abcdef": "process 4711"}, checkpoints=(bitmap_of(2),)
    )
    found = diagnose(known)
    assert [(f.code, f.weight) for f in found.findings] == [(Code.UNDER_WAY, Weight.NOTE)]
    assert "process 4711" in only(found, Code.UNDER_WAY)
    assert found.health is Health.GOOD
    assert [step.kind for step in plan_repair(found).steps] == [StepKind.BACKUP]


def test_a_vm_that_another_libvirt_has_needs_a_person() -> None:
    left = replace(chain(*line(3)), attempts=(attempt(3),))
    known = replace(facts(left), vm=None, next=None, out_of_sight="this libvirt has none")
    (gone,) = (f for f in diagnose(known).findings if f.code is Code.VM_GONE)
    assert gone.weight is Weight.PERSON
    assert gone.what.startswith("this libvirt has none; ")


def test_checkpoints_are_left_over_only_if_they_are_ours() -> None:
    ours, theirs = bitmap_of(2), "virtnbdbackup.0"
    known = replace(facts(chain(*line(3))), checkpoints=(ours, theirs))
    words = only(diagnose(known), Code.METADATA_LEFT)
    assert ours in words
    assert theirs not in words
    assert diagnose(replace(known, checkpoints=(theirs,))).findings == ()
    assert diagnose(replace(known, chains=())).findings == ()


def test_an_older_chain_that_still_grows_is_told() -> None:
    older = chain(*line(1), directory="20260101T000000Z", id="old")
    found = diagnose(facts(chain(*line(3)), older))
    assert codes(found) == {Code.SEVERAL_LIVE}
    assert "20260101T000000Z" in only(found, Code.SEVERAL_LIVE)


def test_a_damaged_point_is_told_with_all_that_it_takes_along() -> None:
    full, first, second, third = line(4)
    found = diagnose(facts(chain(full, damaged(first), second, third)))
    words = only(found, Code.DAMAGED)
    assert f"restore point {LIVE}/000001 is damaged; 000002, 000003 build on it" in words
    assert "vda.qcow2: it is missing" in words
    assert [p.name for p in found.lost] == [f"{LIVE}/00000{n}" for n in (1, 2, 3)]
    assert found.newest is not None
    assert found.newest.name == f"{LIVE}/000000"
    assert found.findings[0].weight is Weight.LOSS


def test_a_disk_that_can_still_be_had_is_named() -> None:
    flawed = StoredPoint(point(0, disks=BOTH), (Flaw("vdb.qcow2", "it is missing"),))
    found = diagnose(facts(chain(flawed, point(1, 0, disks=ON_BOTH))))
    words = only(found, Code.DAMAGED)
    assert "Single disks can still be restored: vda of 000000, 000001" in words
    assert found.health is Health.LOST
    assert [p.disks for p in found.points] == [("vda",), ("vda",)]


def test_a_missing_point_is_told_once_with_all_that_builds_on_it() -> None:
    full, _, second, third = line(4)
    words = only(diagnose(facts(chain(full, second, third))), Code.MISSING)
    assert f"restore point {LIVE}/000001 is missing; 000002, 000003 build on it" in words


def test_a_point_that_cannot_be_read_is_not_called_missing_as_well() -> None:
    full, _, second = line(3)
    found = diagnose(facts(replace(chain(full, second), unreadable=(torn(1),))))
    assert codes(found) == {Code.UNREADABLE, Code.TRACKING_LOST}
    words = only(found, Code.UNREADABLE)
    assert f"restore point {LIVE}/000001 cannot be read; 000002 builds on it" in words
    assert "000001-inc: its manifest is torn" in words


def test_two_damaged_points_take_along_what_builds_on_each() -> None:
    full, first, second, third = line(4)
    found = diagnose(facts(chain(full, damaged(first), damaged(second), third)))
    what = [finding.what for finding in found.findings if finding.code is Code.DAMAGED]
    assert what == [
        f"restore point {LIVE}/000001 is damaged",
        f"restore point {LIVE}/000002 is damaged; 000003 builds on it",
    ]


def test_a_damaged_file_beside_the_disks_takes_nothing_along() -> None:
    full, first, second = line(3)
    found = diagnose(facts(chain(full, damaged(first, "domain.xml"), second)))
    words = only(found, Code.DAMAGED)
    assert f"{LIVE}/000001 is damaged, but all its disks are whole | domain.xml: it is" in words
    assert found.lost == ()
    assert [p.problem for p in found.points] == ["", "domain.xml: it is missing", ""]
    assert found.facts.next is not None
    assert found.facts.next.parent == second
    assert found.facts.next.warnings == ()


def test_the_next_backup_tells_once_of_a_damaged_file_beside_the_disks() -> None:
    full, first, second = line(3)
    (warning,) = plan_warnings(chain(full, damaged(first, "domain.xml")))
    assert "000001 cannot be restored as a whole any more: domain.xml" in warning
    assert plan_warnings(chain(full, damaged(first, "domain.xml"), second)) == ()


def plan_warnings(found: Chain) -> tuple[str, ...]:
    planned = facts(found).next
    assert planned is not None
    return planned.warnings


def test_what_is_out_of_reach_is_not_called_lost_and_asks_for_a_person() -> None:
    full, first, second = line(3)
    found = diagnose(facts(chain(full, out_of_reach(first), second)))
    words = only(found, Code.OUT_OF_REACH)
    assert f"{LIVE}/000001 cannot be read now; 000002 builds on it" in words
    assert "vda.qcow2: it cannot be looked at (Stale file handle)" in words
    assert Code.DAMAGED not in codes(found)
    assert found.lost == ()
    assert [p.out_of_reach for p in found.points] == [False, True, True]
    (finding,) = (f for f in found.findings if f.code is Code.OUT_OF_REACH)
    assert (finding.weight, finding.seqs) == (Weight.PERSON, (1, 2))
    assert found.facts.next is not None
    assert all("cannot be read now" in warning for warning in found.facts.next.warnings)
    assert len(found.facts.next.warnings) == 2


def test_a_folder_that_cannot_be_read_is_a_finding_with_its_way_out() -> None:
    found = diagnose(Facts(VM.name, VM.uuid, vm=VM, unread="it says no. Do this."))
    assert "it says no. Do this." in only(found, Code.OUT_OF_REACH)
    assert found.findings[0].weight is Weight.PERSON


def test_an_unfinished_backup_is_not_called_a_lost_point() -> None:
    unfinished = replace(torn(3), unfinished=True)
    found = diagnose(facts(replace(chain(*line(3)), unreadable=(unfinished,))))
    assert f"an unfinished backup, {LIVE}/000003, is left" in only(found, Code.ODD)
    assert codes(found) == {Code.ODD}
    assert found.lost == ()
    assert [p.seq for p in found.points] == [0, 1, 2]
    assert found.facts.next is not None
    assert found.facts.next.warnings == ()


def test_a_missing_point_is_told_though_what_builds_on_it_needs_nothing_of_it() -> None:
    found = diagnose(facts(chain(point(1, 0, disks=(point_disk("vda"),)))))
    assert f"restore point {LIVE}/000000 is missing" in only(found, Code.MISSING)
    assert found.lost == ()
    assert found.newest is not None
    assert found.newest.seq == 1
    assert found.health is Health.RESTORE_ONLY


def test_a_point_that_lacks_an_image_others_build_on_is_told() -> None:
    full = point(0, disks=(point_disk("vdb"),))
    found = diagnose(facts(chain(full, point(1, 0))))
    assert "000000 lacks what others build on; 000001 builds" in only(found, Code.MISSING)
    assert [p.seq for p in found.lost] == [1]


def test_damaged_tracking_is_told_by_disk_if_it_is_ours() -> None:
    ours = Bitmap(bitmap_of(2), recording=False, inconsistent=True)
    theirs = Bitmap("virtnbdbackup.0", recording=False, inconsistent=True)
    found = diagnose(facts(chain(*line(3)), states=(disk_state((ours, theirs)),)))
    assert codes(found) == {Code.TRACKING_DAMAGED}  # that it is compared as a whole is no news
    words = only(found, Code.TRACKING_DAMAGED)
    assert "disk vda is damaged: QEMU or the host went down hard" in words
    assert ours.name in words
    assert theirs.name not in words
    foreign = diagnose(facts(chain(*line(3)), states=(disk_state((*good(bitmap_of(2)), theirs)),)))
    assert foreign.findings == ()


def test_lost_tracking_says_why() -> None:
    words = only(
        diagnose(facts(chain(*line(3)), states=(disk_state((), identity="inode:1"),))),
        Code.TRACKING_LOST,
    )
    assert "disk vda is not known" in words
    assert "another image" in words


def test_an_image_whose_header_is_wrong_may_be_put_back() -> None:
    link = Unlinked(LIVE, 1, "vda.qcow2", "it builds on 'x'", 1000)
    found = diagnose(replace(facts(chain(*line(3))), unlinked=(link,)))
    assert found.health is Health.REPAIRABLE
    assert "it builds on 'x'" in only(found, Code.RELINK)
    assert [(p.problem, p.waits) for p in found.points] == [("", False), ("", True), ("", True)]


@pytest.mark.parametrize(
    ("kind", "code", "weight"),
    [
        (OddityKind.RENAMED_POINT, Code.RENAMED, Weight.MENDED),
        (OddityKind.FOREIGN, Code.ODD, Weight.NOTE),
        (OddityKind.UNREADABLE_CHAIN, Code.UNREADABLE, Weight.LOSS),
        (OddityKind.COPIED_CHAIN, Code.ODD, Weight.NOTE),
    ],
)
def test_what_lies_oddly_in_the_folder_is_told(
    kind: OddityKind, code: Code, weight: Weight
) -> None:
    oddity = Oddity(kind, "a/b", "somebody's file")
    found = diagnose(replace(facts(chain(*line(3))), oddities=(oddity,)))
    (finding,) = found.findings
    assert (finding.code, finding.weight) == (code, weight)
    assert (finding.what, finding.evidence) == ("somebody's file", ("a/b",))


@pytest.mark.parametrize(("transient", "weight"), [(True, Weight.NOTE), (False, Weight.PERSON)])
def test_what_hinders_a_backup_is_told(transient: bool, weight: Weight) -> None:
    known = replace(facts(chain(*line(3))), next=None, hindrance="vda is away", transient=transient)
    (finding,) = diagnose(known).findings
    assert (finding.code, finding.weight) == (Code.NO_BACKUP, weight)


@pytest.mark.parametrize(
    ("since", "told"),
    [
        (Since.SAME_RUN, None),
        (Since.VM_RESTARTED, None),
        (Since.UNKNOWN, None),
        (Since.HOST_RESTARTED, Weight.NOTE),
        (Since.ANOTHER_HOST, Weight.NOTE),
        (Since.WENT_DOWN_HARD, Weight.MENDED),
    ],
)
def test_what_became_of_the_host_is_told_if_it_matters(since: Since, told: Weight | None) -> None:
    found = diagnose(replace(facts(chain(*line(3))), since=since))
    assert [finding.weight for finding in found.findings] == ([told] if told else [])
    assert (found.health is Health.GOOD) == (told is not Weight.MENDED)


def test_a_vm_that_is_gone_is_a_note() -> None:
    known = Facts(VM.name, VM.uuid, (chain(*line(3)),))
    (finding,) = diagnose(known).findings
    assert (finding.code, finding.weight) == (Code.VM_GONE, Weight.NOTE)


def test_points_are_in_order_of_their_chains_and_numbers() -> None:
    early = chain(*line(2), directory="20260101T000000Z", archived="x", id="old")
    late = replace(chain(*line(2)), unreadable=(torn(2),))
    found = diagnose(Facts(VM.name, VM.uuid, (late, early)))
    assert [p.name for p in found.points] == [
        *(f"20260101T000000Z/{n:06d}" for n in range(2)),
        *(f"{LIVE}/{n:06d}" for n in range(3)),
    ]
    assert late.created == BEGAN
