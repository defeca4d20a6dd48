"""The turn in which unchanged blocks are read again."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain.blocks import Action, BlockRun
from vm_babysitter.domain.reread import Reread, after, left_of, mark, share, this_turn

BLOCKS = 60
Actions = list[Action]
actions = st.lists(
    st.sampled_from([Action.CLEAN, Action.CLEAN, Action.READ, Action.CLEAN_ZERO, Action.ZERO]),
    min_size=BLOCKS,
    max_size=BLOCKS,
)


def runs_of(blocks: Actions) -> list[BlockRun]:
    edges = [0, *(i for i in range(1, len(blocks)) if blocks[i] != blocks[i - 1]), len(blocks)]
    return [BlockRun(a, b, blocks[a]) for a, b in pairwise(edges)]


def blocks_of(runs: list[BlockRun]) -> Actions:
    found: Actions = []
    for first, end, action in runs:
        assert first == len(found)
        assert end > first
        found += [action] * (end - first)
    return found


def one_backup(before: Reread | None, runs: int, blocks: Actions) -> tuple[set[int], Reread | None]:
    """Return which blocks are read again, and how far the turn has come."""
    turn = this_turn(before, runs)
    count = share(turn, sum(left_of(turn, run) for run in runs_of(blocks)))
    marked = list(mark(turn, count, runs_of(blocks)))
    again = {i for i, action in enumerate(blocks_of(marked)) if action is Action.REREAD}
    assert len(again) == count
    for i, (was, now) in enumerate(zip(blocks, blocks_of(marked), strict=True)):
        assert now is (Action.REREAD if i in again else was)
        assert i not in again or was is Action.CLEAN
    return again, after(turn, max(again, default=-1) + 1)


@given(st.integers(1, 7), st.data())
def test_a_turn_reads_every_block_that_stays_clean_exactly_once(
    runs: int, data: st.DataObject
) -> None:
    state: Reread | None = None
    seen: list[int] = []
    always_clean = set(range(BLOCKS))
    for number in range(runs):
        blocks = data.draw(actions)
        always_clean &= {i for i, a in enumerate(blocks) if a is Action.CLEAN}
        again, state = one_backup(state, runs, blocks)
        seen += again
        assert (state is None) == (number == runs - 1)
    assert len(seen) == len(set(seen)), "a block was read twice in one turn"
    assert always_clean <= set(seen)


@given(st.integers(1, BLOCKS))
def test_the_parts_of_a_turn_are_even(runs: int) -> None:
    state: Reread | None = None
    parts = []
    for _ in range(runs):
        again, state = one_backup(state, runs, [Action.CLEAN] * BLOCKS)
        parts.append(len(again))
    assert sum(parts) == BLOCKS
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(
    ("before", "runs", "turn"),
    [
        (None, 30, Reread(0, 30)),
        (Reread(7, 12), 30, Reread(7, 12)),
        (Reread(7, 12), 5, Reread(7, 5)),
        (Reread(7, 0), 30, Reread(0, 30)),
    ],
    ids=["a new turn", "goes on", "a shorter turn is asked for", "no sense: begins anew"],
)
def test_where_a_backup_goes_on(before: Reread | None, runs: int, turn: Reread) -> None:
    assert this_turn(before, runs) == turn


def test_in_one_run_everything_is_read() -> None:
    again, state = one_backup(None, 1, [Action.CLEAN] * BLOCKS)
    assert (len(again), state) == (BLOCKS, None)


def test_a_disk_that_became_smaller_than_the_turn_has_come_ends_the_turn_in_time() -> None:
    state: Reread | None = Reread(1000, 3)
    for _ in range(3):
        again, state = one_backup(state, 30, [Action.CLEAN] * BLOCKS)
        assert not again
    assert state is None
