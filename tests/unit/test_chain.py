"""Chains: what builds on what, what is broken, what comes next."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.points import (
    BEGAN,
    CHAIN_ID,
    attempt,
    bitmap_of,
    chain,
    line,
    point,
    point_disk,
)
from vm_babysitter.domain.chain import (
    Chain,
    ChainState,
    Flaw,
    StoredPoint,
    UnreadablePoint,
    disk_layers,
    layers_after,
    live_chain,
)
from vm_babysitter.domain.offline import Current, Evidence
from vm_babysitter.domain.point import (
    Point,
    PointDisk,
    checkpoint_name,
    checkpoint_prefix,
    point_directory,
)

FULL, FIRST, SECOND = line(3)


def flaws(words: str) -> tuple[Flaw, ...]:
    return (Flaw("", words),) if words else ()


def damaged(damage: dict[int, str]) -> Chain:
    return chain(*(StoredPoint(p, flaws(damage.get(p.seq, ""))) for p in line(4)))


def test_names_are_the_documented_ones() -> None:
    assert point_directory(0, "full") == "000000-full"
    assert (FULL.directory, SECOND.directory) == ("000000-full", "000002-inc")
    assert checkpoint_prefix(CHAIN_ID) == "vmb-c0ffee00-"
    assert checkpoint_name(CHAIN_ID, 12, "0a1b2c") == "vmb-c0ffee00-000012-0a1b2c"


def test_a_point_finds_its_disk_by_target() -> None:
    vda, vdb = point_disk("vda"), point_disk("vdb")
    both = point(disks=(vda, vdb))
    assert (both.disk("vdb"), both.disk("vd")) == (vdb, None)


def test_a_whole_chain_has_nothing_broken() -> None:
    assert chain(*line(4)).broken == {}


@pytest.mark.parametrize(
    ("damage", "broken", "newest"),
    [
        ({}, set(), 3),
        ({3: "x"}, {3}, 2),
        ({1: "x"}, {1, 2, 3}, 0),
        ({0: "x"}, {0, 1, 2, 3}, None),
        ({0: "x", 2: "y"}, {0, 1, 2, 3}, None),
    ],
)
def test_damage_spreads_to_all_that_builds_on_it(
    damage: dict[int, str], broken: set[int], newest: int | None
) -> None:
    found = damaged(damage)
    assert set(found.broken) == broken
    assert (found.newest_intact.seq if found.newest_intact else None) == newest
    assert all(reason in found.broken[seq] for seq, reason in damage.items())


def test_the_reason_says_what_the_point_builds_on() -> None:
    assert damaged({1: "vda.qcow2 is missing"}).broken[3] == (
        "it builds on 000001: vda.qcow2 is missing"
    )


def test_a_point_whose_parent_is_gone_is_broken_with_all_that_follows() -> None:
    rest = chain(FULL, SECOND, point(3, 2), point(4, 0))
    assert set(rest.broken) == {2, 3}
    assert "000001" in rest.broken[2]
    assert rest.newest_intact == point(4, 0)


def test_an_empty_chain_has_no_newest_point_and_begins_at_zero() -> None:
    assert chain().newest_intact is None
    assert chain().next_seq == 0


@pytest.mark.parametrize(
    ("attempts", "unreadable", "expected"),
    [((), (), 3), ((3,), (), 4), ((7, 5), (), 8), ((), (9,), 10), ((), (1,), 3)],
)
def test_the_next_number_is_one_that_nothing_has_had(
    attempts: tuple[int, ...], unreadable: tuple[int, ...], expected: int
) -> None:
    found = replace(
        chain(*line(3)),
        attempts=tuple(attempt(seq) for seq in attempts),
        unreadable=tuple(UnreadablePoint(seq, f"{seq:06d}-inc", "x") for seq in unreadable),
    )
    assert found.next_seq == expected


def test_a_problem_found_later_is_noted_and_does_not_hide_an_earlier_one() -> None:
    found = damaged({2: "first"}).with_flaws(2, Flaw("", "second"))
    found = found.with_flaws(1, Flaw("", "index"))
    assert [stored.problem for stored in found.points] == ["", "index", "first", ""]


def test_a_flaw_says_which_file_it_is_of() -> None:
    assert str(Flaw("vda.qcow2", "it is missing")) == "vda.qcow2: it is missing"
    assert str(Flaw("", "its manifest lies")) == "its manifest lies"


BOTH = (point_disk("vda"), point_disk("vdb"))
ON_BOTH = tuple(point_disk(t, parent="000000-full") for t in ("vda", "vdb"))


@pytest.mark.parametrize(
    ("seq", "flaw", "vda", "vdb"),
    [
        (0, Flaw("vda.qcow2", "bad"), "it builds on 000000: vda.qcow2: bad", ""),
        (1, Flaw("vda.index", "bad"), "vda.index: bad", ""),
        (1, Flaw("vdb.qcow2", "bad"), "", "vdb.qcow2: bad"),
        (0, Flaw("nvram.fd", "bad"), "", ""),
        (1, Flaw("domain.xml", "bad"), "", ""),
        (0, Flaw("", "bad"), "it builds on 000000: bad", "it builds on 000000: bad"),
    ],
)
def test_a_disk_has_a_problem_only_where_its_own_layers_have_one(
    seq: int, flaw: Flaw, vda: str, vdb: str
) -> None:
    points = [StoredPoint(point(0, disks=BOTH)), StoredPoint(point(1, 0, disks=ON_BOTH))]
    points[seq] = replace(points[seq], flaws=(Flaw("tpm-x", "bad"), flaw))
    found = chain(*points)
    assert (found.disk_problem(1, "vda"), found.disk_problem(1, "vdb")) == (vda, vdb)
    assert (1 in found.broken) == bool(seq == 1 or vda or vdb)
    assert (1 in found.unfit) == bool(vda or vdb)


def test_a_disk_of_which_a_manifest_is_missing_has_a_problem() -> None:
    assert "000000 it builds on is missing" in chain(FIRST).disk_problem(1, "vda")
    for seq, target in ((7, "vda"), (1, "vdz")):
        with pytest.raises(KeyError):
            chain(*line(3)).disk_problem(seq, target)


def late_disk() -> tuple[Point, Point]:
    """A point in which a disk is new, and one on top of it; there is no full."""
    vda = point_disk("vda", parent="000000-full")
    first = point(1, 0, disks=(vda, point_disk("vdb")))
    on_first = tuple(point_disk(t, parent="000001-inc") for t in ("vda", "vdb"))
    return first, point(2, 1, disks=on_first)


def test_a_disk_that_is_stored_in_full_needs_nothing_older() -> None:
    first, second = late_disk()
    found = chain(first, second)
    for stored in (first, second):
        assert found.disk_problem(stored.seq, "vdb") == ""
        assert "000000 it builds on is missing" in found.disk_problem(stored.seq, "vda")
    assert names(found.layers(2, "vdb")) == [2, 1]
    with pytest.raises(KeyError):
        found.layers(2, "vda")
    assert set(found.broken) == set(found.unfit) == {1, 2}


def test_a_point_all_disks_of_which_are_in_full_restores_but_nothing_builds_on_it() -> None:
    found = chain(point(1, 0, disks=(point_disk("vda"),)))
    assert found.broken == {}
    assert "000000" in found.unfit[1]
    assert found.newest_intact is None


def test_images_are_found_by_their_own_links() -> None:
    back = point(2, 1, disks=(point_disk("vda", parent="000000-full"),))
    found = chain(FULL, back)  # the point in between never had this disk
    assert found.disk_problem(2, "vda") == ""
    assert names(found.layers(2, "vda")) == [2, 0]
    assert set(found.unfit) == {2}


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (point_disk("vda", parent="000002-inc"), "000002 it builds on has no such disk"),
        (point_disk("vda", parent="elsewhere"), "it builds on is missing"),
        (
            replace(point_disk("vda", parent="000000-full"), parent_file="vdz.qcow2"),
            "000000 it builds on has no such disk",
        ),
    ],
    ids=["a circle", "no name of a point", "another disk"],
)
def test_a_link_that_leads_nowhere_is_a_problem_and_no_endless_walk(
    disk: PointDisk, words: str
) -> None:
    found = chain(FULL, FIRST, point(2, 1, disks=(disk,)))
    assert words in found.disk_problem(2, "vda")


def test_what_builds_on_a_point_by_an_image_alone_is_its_child() -> None:
    skips = point(2, 1, disks=(point_disk("vda", parent="000000-full"),))
    assert chain(FULL, skips).children({0}) == (2,)


def test_a_point_is_out_of_reach_only_if_nothing_is_known_to_be_damaged() -> None:
    away, lost = Flaw("vda.qcow2", "denied", evidence=False), Flaw("vda.index", "it is missing")
    found = chain(FULL, StoredPoint(FIRST, (away,)), SECOND)
    assert [found.out_of_reach(seq) for seq in range(3)] == [False, True, True]
    found = chain(StoredPoint(FULL, (lost,)), StoredPoint(FIRST, (away,)), SECOND)
    assert [found.out_of_reach(seq) for seq in range(3)] == [False, False, False]
    beside = Flaw("domain.xml", "it is missing")
    found = chain(StoredPoint(FULL, (beside, away)), StoredPoint(FIRST, (beside,)))
    assert [found.out_of_reach(seq) for seq in range(2)] == [True, True]
    found = chain(StoredPoint(FULL, (beside,)))
    assert not found.out_of_reach(0)


def test_the_newest_point_is_not_current_if_a_file_beside_its_disks_is_damaged() -> None:
    noted = Current(2, SECOND.nonce, BEGAN, Evidence({}, ""))
    found = replace(chain(FULL, FIRST, SECOND), noted=noted)
    assert found.current == noted
    hurt = found.with_flaws(2, Flaw("domain.xml", "it is missing"))
    assert hurt.newest_intact == SECOND
    assert hurt.current is None


def test_the_lineage_goes_from_a_point_to_its_full() -> None:
    other = point(3, 0)
    found = chain(*line(3), other)
    assert found.lineage(2) == (SECOND, FIRST, FULL)
    assert found.lineage(3) == (other, FULL)
    assert found.lineage(0) == (FULL,)


@pytest.mark.parametrize(
    "found",
    [
        chain(FULL, SECOND),
        chain(FULL, FIRST),
        chain(FULL, FIRST, point(2, 2)),
        chain(FULL, point(1, 2), point(2, 1)),
    ],
    ids=["a gap", "no such point", "its own parent", "a circle"],
)
def test_a_lineage_with_a_missing_or_wrong_link_is_refused(found: Chain) -> None:
    with pytest.raises(KeyError):
        found.lineage(2)


def names(layers: tuple[tuple[Point, object], ...]) -> list[int]:
    return [p.seq for p, _ in layers]


def test_the_layers_of_a_disk_follow_its_own_parents() -> None:
    late = point_disk("vdb")
    on_late = point_disk("vdb", parent="000001-inc")
    on_full = point_disk("vda", parent="000000-full")
    first = point(1, 0, disks=(on_full, late))
    second = point(2, 1, disks=(point_disk("vda", parent="000001-inc"), on_late))
    lineage = (second, first, FULL)
    assert disk_layers(lineage, "vda") == tuple((p, p.disk("vda")) for p in lineage)
    assert disk_layers(lineage, "vdb") == ((second, on_late), (first, late))


def test_layers_may_pass_over_points_without_the_disk() -> None:
    away = point(1, 0, disks=(point_disk("vdb"),))
    back = point(2, 1, disks=(point_disk("vda", parent="000000-full"),))
    assert names(disk_layers((back, away, FULL), "vda")) == [2, 0]


def test_layers_follow_a_disk_whose_target_changed() -> None:
    full = point(disks=(point_disk("vda"), point_disk("vdb")))
    moved = replace(point_disk("hdc", parent="000000-full"), parent_file="vda.qcow2")
    swapped = replace(point_disk("vda", parent="000000-full"), parent_file="vdb.qcow2")
    first = point(1, 0, disks=(swapped, moved))
    after = point_disk("hdc", parent="000001-inc")
    second = point(2, 1, disks=(after, point_disk("vda", parent="000001-inc")))
    lineage = (second, first, full)
    assert disk_layers(lineage, "hdc") == ((second, after), (first, moved), (full, full.disks[0]))
    assert disk_layers(lineage, "vda")[1:] == ((first, swapped), (full, full.disks[1]))
    assert (after.backing, moved.backing) == ("../000001-inc/hdc.qcow2", "../000000-full/vda.qcow2")
    assert full.disks[0].backing is None
    bitmap = bitmap_of(1, target="hdc")
    assert names(layers_after(lineage, "hdc", bitmap)) == [2]
    # What was another disk at that moment has no bitmap of this one's: everything counts.
    assert names(layers_after(lineage[1:], "vda", bitmap_of(0, target="vda"))) == [1, 0]


@pytest.mark.parametrize(
    ("lineage", "target"),
    [
        ((FULL,), "vdb"),
        ((), "vda"),
        ((SECOND, FIRST), "vda"),
        ((FIRST, point(0, disks=(point_disk("vdb"),))), "vda"),
    ],
    ids=["no such disk", "no point", "the full is missing", "the parent lacks the disk"],
)
def test_layers_that_are_not_complete_are_refused(lineage: tuple[Point, ...], target: str) -> None:
    with pytest.raises(KeyError):
        disk_layers(lineage, target)


@pytest.mark.parametrize(("since", "newer"), [(2, []), (1, [2]), (0, [2, 1]), (7, [2, 1, 0])])
def test_layers_after_a_checkpoint_are_those_of_younger_points(
    since: int, newer: list[int]
) -> None:
    assert names(layers_after((SECOND, FIRST, FULL), "vda", bitmap_of(since))) == newer


@given(st.lists(st.integers(0, 5), max_size=8), st.sets(st.integers(0, 8)))
def test_the_newest_intact_point_always_has_a_whole_lineage(
    parents: list[int], damage: set[int]
) -> None:
    points = [point(0), *(point(i, min(p, i - 1)) for i, p in enumerate(parents, 1))]
    found = chain(*(StoredPoint(p, flaws("x" if p.seq in damage else "")) for p in points))
    intact = [p.seq for p in points if not damage & {q.seq for q in found.lineage(p.seq)}]
    assert set(found.broken) == {p.seq for p in points} - set(intact)
    newest = found.newest_intact
    assert (None if newest is None else newest.seq) == max(intact, default=None)


def test_a_chain_in_which_nothing_can_be_read_grows_only_where_there_is_no_other() -> None:
    """It may be a full backup that was interrupted, and whose mark is damaged."""
    older = chain(*line(2))
    torn = UnreadablePoint(0, "000000-full", "it has no manifest")
    younger = replace(
        chain(directory="20270101T000000Z", id="new"),
        created=older.created + timedelta(days=1),
        unreadable=(torn,),
    )
    assert live_chain([older, younger]) == older
    assert live_chain([replace(older, state=ChainState.ARCHIVED), younger]) == younger
    whole = replace(younger, points=older.points)
    assert live_chain([older, whole]) == whole
