"""What is done about a diagnosis: steps, their order, cost, loss and consent."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.points import (
    BEGAN,
    attempt,
    bitmap_of,
    chain,
    damaged,
    disk_state,
    good,
    line,
    point,
    point_disk,
    tracked_disk,
)
from tests.unit.test_diagnosis import BOTH, LIVE, ON_BOTH, VM, facts
from vm_babysitter.domain.chain import Chain, Flaw, StoredPoint, UnreadablePoint
from vm_babysitter.domain.cost import estimate
from vm_babysitter.domain.diagnosis import diagnose
from vm_babysitter.domain.findings import Facts, Unlinked
from vm_babysitter.domain.oddity import Oddity, OddityKind
from vm_babysitter.domain.point import Point
from vm_babysitter.domain.presence import Since
from vm_babysitter.domain.repair_plan import By, RepairPlan, RepairPolicy, StepKind, plan_repair
from vm_babysitter.domain.vm import Bitmap, PowerState

AGREED = RepairPolicy(remove_lost=True)


def plan(known: Facts, policy: RepairPolicy | None = None) -> RepairPlan:
    found = diagnose(known)
    return plan_repair(found) if policy is None else plan_repair(found, policy)


def kinds(found: RepairPlan) -> list[StepKind]:
    return [step.kind for step in found.steps]


def words(found: RepairPlan, kind: StepKind) -> str:
    (step,) = (step for step in found.steps if step.kind is kind)
    return step.what


BACKUP = StepKind.BACKUP
STEPS: dict[str, tuple[Facts, list[StepKind]]] = {
    "nothing is wrong": (facts(chain(*line(3))), [BACKUP]),
    "no backup yet": (facts(), [BACKUP]),
    "nothing to do": (replace(facts(chain(*line(3))), next=None, current="x"), []),
    "an interrupted backup": (
        facts(replace(chain(*line(3)), attempts=(attempt(3),))),
        [StepKind.UNDO, BACKUP],
    ),
    "an unfinished one": (
        facts(replace(chain(*line(3)), attempts=(attempt(2, nonce=line(3)[2].nonce),))),
        [StepKind.FINISH, BACKUP],
    ),
    "a VM that is stuck in one": (
        replace(
            facts(replace(chain(*line(3)), attempts=(replace(attempt(3), ran=True),))),
            vm=replace(VM, state=PowerState.STUCK),
        ),
        [StepKind.UNDO, StepKind.RESUME, BACKUP],
    ),
    "checkpoints in libvirt": (
        replace(facts(chain(*line(3))), checkpoints=(bitmap_of(2),)),
        [StepKind.FORGET, BACKUP],
    ),
    "two chains that grow": (
        facts(chain(*line(3)), chain(*line(1), directory="20260101T000000Z", id="old")),
        [StepKind.ARCHIVE, BACKUP],
    ),
    "a renamed point": (
        replace(
            facts(chain(*line(3))),
            oddities=(Oddity(OddityKind.RENAMED_POINT, "a/b", "it is called b", chain=LIVE),),
        ),
        [StepKind.RENAME, BACKUP],
    ),
    "a header": (
        replace(
            facts(chain(*line(3))), unlinked=(Unlinked(LIVE, 1, "vda.qcow2", "it is torn", 9),)
        ),
        [StepKind.RELINK, BACKUP],
    ),
    "damaged tracking": (
        facts(
            chain(*line(3)),
            states=(disk_state((Bitmap(bitmap_of(2), recording=False, inconsistent=True),)),),
        ),
        [StepKind.COMPARE, StepKind.UNTRACK, BACKUP],
    ),
    "the host went down hard": (
        replace(facts(chain(*line(3))), since=Since.WENT_DOWN_HARD),
        [StepKind.REREAD, BACKUP],
    ),
    "the host was restarted": (
        replace(facts(chain(*line(3))), since=Since.HOST_RESTARTED),
        [BACKUP],
    ),
    "lost tracking": (
        facts(chain(*line(3)), states=(disk_state(()),)),
        [StepKind.COMPARE, BACKUP],
    ),
    "a damaged point": (
        facts(
            chain(*line(2), damaged(line(3)[2])),
            states=(disk_state(good(bitmap_of(1), bitmap_of(2))),),
        ),
        [StepKind.REMOVE_LOST, BACKUP],
    ),
    "somebody's files": (
        replace(facts(chain(*line(3))), oddities=(Oddity(OddityKind.FOREIGN, "a", "a file"),)),
        [BACKUP],
    ),
}


@pytest.mark.parametrize(("known", "expected"), STEPS.values(), ids=STEPS)
def test_the_steps_in_their_order(known: Facts, expected: list[StepKind]) -> None:
    assert kinds(plan(known)) == expected


@pytest.mark.parametrize("known", [known for known, _ in STEPS.values()], ids=STEPS)
def test_only_a_loss_needs_consent_and_only_what_needs_it_loses_anything(known: Facts) -> None:
    for step in plan(known).steps:
        assert step.needs_consent == bool(step.loss)
    assert not any(step.needs_consent for step in plan(known, AGREED).steps)


def test_removing_lost_points_waits_for_consent() -> None:
    full, first, second = line(3)
    known = facts(chain(full, damaged(first), second))
    asked, agreed = plan(known), plan(known, AGREED)
    assert StepKind.REMOVE_LOST not in [step.kind for step in asked.of(By.BOTH, By.REPAIR)]
    (step,) = agreed.of(By.REPAIR)
    assert (step.chain, step.seqs) == (LIVE, (1, 2))
    assert asked.lost == (f"{LIVE}/000001", f"{LIVE}/000002")


def test_what_still_has_a_whole_disk_or_no_manifest_is_never_to_be_removed() -> None:
    flawed = StoredPoint(point(0, disks=BOTH), (Flaw("vdb.qcow2", "it is missing"),))
    known = facts(chain(flawed, point(1, 0, disks=ON_BOTH)))
    assert StepKind.REMOVE_LOST not in kinds(plan(known, AGREED))


def removed(*chains: Chain, oddities: tuple[Oddity, ...] = ()) -> list[tuple[int, ...]]:
    """Return what would be removed if the user agreed."""
    known = Facts(VM.name, VM.uuid, chains, VM, oddities=oddities)
    steps = plan_repair(diagnose(known), AGREED).steps
    return [step.seqs for step in steps if step.kind is StepKind.REMOVE_LOST]


def flawed(of: Point, *flaws: Flaw) -> StoredPoint:
    return StoredPoint(of, flaws)


GONE = Flaw("vda.qcow2", "it is missing")
AWAY = Flaw("vda.qcow2", "it cannot be looked at", evidence=False)
NOTED = Flaw("vda.qcow2", "its content is not what was written", found=BEGAN)
WRONG = replace(NOTED, reason="the block at 0 is not what was backed up", content=True)
INDEX = Flaw("vda.index", "it is missing")
ON_ANOTHER = Flaw("", "it was made on another restore point 000000 than the one that is there")
FULL, FIRST, SECOND, THIRD = line(4)
UNREADABLE_FULL = UnreadablePoint(0, "000000-full", "its manifest is torn")


@pytest.mark.parametrize(
    ("found", "seqs"),
    [
        (chain(FULL, flawed(FIRST, GONE), SECOND), [(1, 2)]),
        (chain(FIRST, SECOND), [(1, 2)]),
        (replace(chain(FIRST, SECOND), unreadable=(UNREADABLE_FULL,)), []),
        (replace(chain(flawed(FIRST, GONE)), unreadable=(UNREADABLE_FULL,)), []),
        (chain(flawed(FULL, AWAY), FIRST), []),
        (chain(FULL, flawed(FIRST, GONE), flawed(SECOND, AWAY), THIRD), []),
        (chain(FULL, flawed(FIRST, Flaw("domain.xml", "it is missing")), SECOND), []),
        (chain(flawed(FULL, Flaw("", "its manifest names a file outside of its folder"))), []),
        (chain(FULL, flawed(FIRST, ON_ANOTHER), SECOND), []),
        (chain(flawed(FULL, INDEX), FIRST), []),
        (chain(flawed(FULL, INDEX, GONE), FIRST), [(0, 1)]),
        (chain(FULL, flawed(FIRST, NOTED)), []),
        (chain(FULL, flawed(FIRST, WRONG)), [(1,)]),
        (chain(FULL, flawed(FIRST, WRONG), SECOND), []),
        (chain(FULL, flawed(FIRST, GONE, NOTED), SECOND), []),
        (chain(FIRST, point(2, 1, disks=(point_disk("vda"),))), []),
    ],
    ids=[
        "an image is gone",
        "the full is gone",
        "a manifest may be put back",
        "the same, and an image is gone",
        "out of reach",
        "in between something is out of reach",
        "a file beside the disks",
        "a manifest that lies",
        "the point that it was made on may come back",
        "an index is gone",
        "an index and an image are gone",
        "a verify found a file that differs, maybe where nothing lies",
        "a verify found wrong data",
        "a verify found wrong data, others may not need it",
        "a verify found more",
        "a disk in full on top of it",
    ],
)
def test_only_what_is_surely_gone_and_needed_by_nothing_is_to_be_removed(
    found: Chain, seqs: list[tuple[int, ...]]
) -> None:
    assert removed(found) == seqs


def test_a_point_of_which_there_is_a_copy_is_not_to_be_removed_nor_what_builds_on_it() -> None:
    found = chain(FULL, flawed(FIRST, GONE), SECOND)
    copy = Oddity(OddityKind.COPIED_POINT, "a", "is a copy", chain=LIVE, seq=1)
    assert removed(found, oddities=(copy,)) == []
    for other in (replace(copy, chain="another"), replace(copy, seq=0)):
        assert removed(found, oddities=(other,)) == [(1, 2)]


@given(
    gone=st.sets(st.integers(0, 6)),
    away=st.sets(st.integers(0, 6)),
    there=st.sets(st.integers(0, 6)),
    parents=st.lists(st.integers(0, 5), min_size=6, max_size=6),
    full=st.sets(st.integers(1, 6)),
)
def test_what_is_to_be_removed_restores_nothing_and_nothing_builds_on_it(
    gone: set[int], away: set[int], there: set[int], parents: list[int], full: set[int]
) -> None:
    made = [FULL, *(point(i, min(p, i - 1)) for i, p in enumerate(parents, 1))]
    made = [replace(p, disks=(point_disk(),)) if p.seq in full else p for p in made]
    flaws = dict.fromkeys(away, AWAY) | dict.fromkeys(gone, GONE)
    stored = [flawed(p, *filter(None, [flaws.get(p.seq)])) for p in made if p.seq in there]
    found = chain(*stored)
    for seqs in removed(found):
        assert found.children(seqs) == ()
        for seq in seqs:
            assert found.disk_problem(seq, "vda")
            assert not found.out_of_reach(seq)


def test_the_next_backup_says_what_it_builds_on_and_what_it_reads() -> None:
    grown = chain(*line(3))
    states = {"vda": disk_state(())}
    disks = (tracked_disk(),)
    known = facts(grown, states=tuple(states.values()), disks=disks)
    assert known.next is not None
    known = replace(known, cost=estimate(known.next, disks, states, grown, 30))
    compare, backup = plan(known).steps
    assert "go on in the same series: builds on restore point 000002" in backup.what
    assert "compare disk vda as a whole" in compare.what
    for step in (compare, backup):
        assert step.read_bytes == disks[0].disk.virtual_size
        assert step.seconds > 0
        assert step.by is By.BACKUP


def test_a_new_series_says_that_the_old_one_is_kept() -> None:
    old = chain(*line(2), directory="20260101T000000Z", archived="x", id="old")
    known = facts(old, chain(damaged(line(1)[0])))
    assert "begin a new series with a full backup" in words(plan(known), BACKUP)
    assert "closed when that is complete, and kept" in words(plan(known), BACKUP)


def test_the_header_step_says_what_it_reads() -> None:
    known = replace(
        facts(chain(*line(3))),
        unlinked=(
            Unlinked(LIVE, 1, "vda.qcow2", "x", 150_000_000),
            Unlinked("other", 1, "vda.qcow2", "x", 5),
        ),
    )
    steps = [step for step in plan(known).steps if step.kind is StepKind.RELINK]
    assert [(s.read_bytes, s.seconds) for s in steps] == [(150_000_000, 1.0), (5, 5 / 15e7)]
    assert "vda.qcow2" in steps[0].what
