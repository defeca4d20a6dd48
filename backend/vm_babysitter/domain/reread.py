"""The turn in which blocks that change tracking calls unchanged are read again. Pure.

Change tracking is trusted, and yet every block is read again within a number of backups: each
backup re-reads a share of the unchanged blocks, in ascending order, until the end of the disk
is reached and the next turn begins. Blocks that have changed are read anyway.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vm_babysitter.domain.blocks import Action, BlockRun

DEFAULT_RUNS = 30
"""Backups that a turn takes."""


@dataclass(frozen=True, slots=True)
class Reread:
    """How far the turn has come on one disk."""

    next: int
    """The first block that was not reached yet."""
    runs_left: int
    """Backups in which the rest is read."""


def this_turn(before: Reread | None, runs: int) -> Reread:
    """Return where a backup goes on.

    Args:
        before: what the parent point says; None if everything was read for it.
        runs: backups that a turn takes, at least 1; may be another number than before.
    """
    if before is None or before.runs_left < 1:
        return Reread(0, runs)
    return Reread(before.next, min(before.runs_left, runs))


def left_of(turn: Reread, run: BlockRun) -> int:
    """Return how many blocks of a run the turn has to read again, in this backup or later."""
    return max(0, run.end - max(run.first, turn.next)) if run.action is Action.CLEAN else 0


def share(turn: Reread, left: int) -> int:
    """Return how many blocks this backup reads again: an even part of what the turn has left."""
    return -(-left // turn.runs_left)


def mark(turn: Reread, count: int, runs: Iterable[BlockRun]) -> Iterator[BlockRun]:
    """Have the first ``count`` unchanged blocks that the turn has not reached read again."""
    for run in runs:
        first, end, action = run
        start = max(first, turn.next)
        if action is not Action.CLEAN or not count or start >= end:
            yield run
            continue
        stop = min(end, start + count)
        count -= stop - start
        if first < start:
            yield BlockRun(first, start, action)
        yield BlockRun(start, stop, Action.REREAD)
        if stop < end:
            yield BlockRun(stop, end, action)


def after(turn: Reread, until: int) -> Reread | None:
    """Return how far the turn has come after a backup; None: it is complete.

    ``until`` is the end of the last block read again, 0 if there was none.
    """
    if turn.runs_left == 1:
        return None
    return Reread(max(turn.next, until), turn.runs_left - 1)
