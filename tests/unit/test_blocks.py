"""Extents become runs of blocks: compared with models that are too simple to be wrong."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory import peak_memory
from vm_babysitter.domain.blocks import (
    BLOCK_SIZE,
    Action,
    BlockRun,
    Extent,
    Flagged,
    Piece,
    all_dirty,
    block_count,
    block_length,
    block_runs,
    merge_maps,
    pieces,
)

BLOCKS = 6


def cut(size: int, points: set[int]) -> list[tuple[int, int]]:
    """Cut 0 to ``size`` at ``points``."""
    borders = sorted({0, size} | {p for p in points if 0 < p < size})
    return list(itertools.pairwise(borders))


@st.composite
def maps(draw: st.DrawFn, size: int) -> list[Flagged]:
    points = draw(st.sets(st.integers(0, max(size, 1))))
    return [Flagged(a, b, draw(st.booleans())) for a, b in cut(size, points)]


@st.composite
def two_maps(draw: st.DrawFn) -> tuple[list[Flagged], list[Flagged]]:
    size = draw(st.integers(0, 40))
    return draw(maps(size)), draw(maps(size))


# Borders as they come: on blocks, on 4 KiB, on sectors, and anywhere around them.
borders = st.one_of(
    st.integers(0, BLOCKS).map(lambda n: n * BLOCK_SIZE),
    st.integers(0, BLOCKS * 16).map(lambda n: n * 4096),
    st.integers(0, BLOCKS * 128).map(lambda n: n * 512),
    st.builds(lambda n, d: max(0, n * BLOCK_SIZE + d), st.integers(0, BLOCKS), st.integers(-2, 2)),
)


@st.composite
def disks(draw: st.DrawFn) -> tuple[list[Extent], int, frozenset[int]]:
    """Extents of a small disk, its size, and blocks to force."""
    size = draw(borders)
    points = draw(st.sets(borders, max_size=14))
    extents = [Extent(a, b, draw(st.booleans()), draw(st.booleans())) for a, b in cut(size, points)]
    forced = draw(st.frozensets(st.integers(0, BLOCKS), max_size=2))
    return (extents if size else []), size, forced


def model_action(extents: list[Extent], block: int, forced: frozenset[int]) -> Action:
    start, end = block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE
    touching = [e for e in extents if e.start < end and e.end > start]
    zero = all(e.zero for e in touching)
    dirty = block in forced or any(e.dirty for e in touching)
    return {
        (False, True): Action.READ,
        (True, True): Action.ZERO,
        (True, False): Action.CLEAN_ZERO,
        (False, False): Action.CLEAN,
    }[zero, dirty]


@given(two_maps())
def test_merged_maps_say_of_each_byte_what_both_maps_say(
    both: tuple[list[Flagged], list[Flagged]],
) -> None:
    zeros, dirty = (drop_empty(m) for m in both)
    zero_of = [f.flag for f in zeros for _ in range(f.start, f.end)]
    dirty_of = [f.flag for f in dirty for _ in range(f.start, f.end)]
    merged = list(merge_maps(zeros, dirty))
    flags = [(e.zero, e.dirty) for e in merged for _ in range(e.start, e.end)]
    assert flags == list(zip(zero_of, dirty_of, strict=True))
    assert all(e.end > e.start for e in merged)
    assert all(a.end == b.start for a, b in itertools.pairwise(merged))


def drop_empty(ranges: list[Flagged]) -> list[Flagged]:
    return [r for r in ranges if r.end > r.start]


@pytest.mark.parametrize(
    ("zeros", "dirty"),
    [
        ([(0, 8)], [(0, 9)]),
        ([(0, 9)], [(0, 8)]),
        ([(0, 8)], []),
        ([], [(0, 8)]),
        ([(0, 2), (4, 8)], [(0, 8)]),
        ([(0, 8)], [(0, 4), (3, 8)]),
        ([(2, 8)], [(0, 8)]),
        ([(0, 8), (8, 8)], [(0, 8)]),
    ],
)
def test_maps_that_do_not_cover_the_same_bytes_without_gaps_are_refused(
    zeros: list[tuple[int, int]], dirty: list[tuple[int, int]]
) -> None:
    with pytest.raises(ValueError, match=r"follow|sizes"):
        list(merge_maps((Flagged(*r, True) for r in zeros), (Flagged(*r, False) for r in dirty)))


@given(disks())
def test_every_block_gets_the_action_that_its_extents_call_for(
    disk: tuple[list[Extent], int, frozenset[int]],
) -> None:
    extents, size, forced = disk
    runs = list(block_runs(extents, size, forced))
    found = [run.action for run in runs for _ in range(run.first, run.end)]
    assert found == [model_action(extents, b, forced) for b in range(block_count(size))]


@given(disks())
def test_runs_cover_the_disk_in_order_and_neighbours_differ(
    disk: tuple[list[Extent], int, frozenset[int]],
) -> None:
    extents, size, forced = disk
    runs = list(block_runs(extents, size, forced))
    borders = [0, *(run.end for run in runs)]
    assert [run.first for run in runs] == borders[:-1]
    assert borders[-1] == block_count(size)
    assert all(run.end > run.first for run in runs)
    assert all(a.action is not b.action for a, b in itertools.pairwise(runs))


@given(disks(), st.integers(1, 4))
def test_pieces_cover_a_run_and_none_is_too_long(
    disk: tuple[list[Extent], int, frozenset[int]], longest: int
) -> None:
    extents, size, forced = disk
    for run in block_runs(extents, size, forced):
        cuts = list(pieces(run, size, longest * BLOCK_SIZE))
        ends = [p.offset + p.length for p in cuts]
        assert [p.offset for p in cuts] == [run.first * BLOCK_SIZE, *ends[:-1]]
        assert ends[-1] == min(run.end * BLOCK_SIZE, size)
        assert all(0 < p.length <= longest * BLOCK_SIZE for p in cuts)
        assert sum(block_length(b, size) for b in range(run.first, run.end)) == sum(
            p.length for p in cuts
        )


def test_an_empty_disk_has_no_blocks() -> None:
    assert list(block_runs([], 0)) == []
    assert list(merge_maps([], [])) == []


def test_a_short_last_block_is_read_to_the_end_of_the_disk() -> None:
    size = 2 * BLOCK_SIZE + 512
    runs = list(block_runs(all_dirty([Flagged(0, size, False)]), size))
    assert runs == [BlockRun(0, 3, Action.READ)]
    assert list(pieces(runs[0], size, 1 << 20)) == [Piece(0, size)]


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 10, True, True), Extent(11, 512, True, True)],
        [Extent(0, 10, True, True), Extent(9, 512, True, True)],
        [Extent(0, 511, True, True)],
        [Extent(0, 513, True, True)],
        [Extent(0, 512, True, True), Extent(512, 512, True, True)],
        [],
    ],
)
def test_extents_that_do_not_cover_the_disk_are_refused(extents: list[Extent]) -> None:
    with pytest.raises(ValueError, match=r"follow|end at"):
        list(block_runs(extents, 512))


def test_a_forced_block_is_read_though_it_is_clean() -> None:
    size = 5 * BLOCK_SIZE
    clean = [Extent(0, size, False, False)]
    assert list(block_runs(clean, size, frozenset({2, 4, 9}))) == [
        BlockRun(0, 2, Action.CLEAN),
        BlockRun(2, 3, Action.READ),
        BlockRun(3, 4, Action.CLEAN),
        BlockRun(4, 5, Action.READ),
    ]


def test_a_fragmented_disk_takes_no_memory_for_its_fragments() -> None:
    count = 10_000

    def fragments() -> Iterator[Extent]:
        for n in range(count):
            yield Extent(n * BLOCK_SIZE, (n + 1) * BLOCK_SIZE, bool(n % 2), bool(n % 3))

    def work() -> int:
        return sum(r.end - r.first for r in block_runs(fragments(), count * BLOCK_SIZE))

    peak, blocks = peak_memory(work)
    assert blocks == count
    assert peak < 64 * 1024


def test_very_many_fragments_are_worked_through() -> None:
    count, step = 200_000, 20480  # three or four extents share each block
    size = count * step

    def flags(period: int) -> Iterator[Flagged]:
        for n in range(count):
            yield Flagged(n * step, (n + 1) * step, n % period == 0)

    runs = block_runs(merge_maps(flags(2), flags(64)), size, frozenset({1}))
    covered = 0
    for run in runs:
        assert run.first == covered
        covered = run.end
    assert covered == block_count(size)
