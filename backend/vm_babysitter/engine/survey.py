"""A first look at a disk before it is copied: how much there is to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vm_babysitter.domain.blocks import BLOCK_SIZE, BlockRun
from vm_babysitter.domain.reread import Reread, left_of, mark, share
from vm_babysitter.engine.copying import bytes_to_read

MOST_KEPT = 20_000
"""Runs of a disk that are kept in memory, some MiB; of more the maps are read once again."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first look told."""

    amount: int
    """Bytes that will be read, at most."""
    kept: tuple[BlockRun, ...] | None
    """What to do with the disk; None where it is too much to be kept."""
    turn: Reread | None
    """How far re-reading had come before; None where nothing is read again."""
    again: int
    """Blocks that are read again although they are called unchanged."""

    def marked(self, runs: Iterable[BlockRun]) -> Iterator[BlockRun]:
        """Have the blocks that are to be read again read."""
        return iter(runs) if self.turn is None else mark(self.turn, self.again, runs)


def survey(runs: Iterable[BlockRun], size: int, turn: Reread | None) -> Survey:
    """Look at all runs of a disk of ``size`` bytes; ``turn`` says what is to be read again."""
    kept: list[BlockRun] = []
    left = 0

    def seen() -> Iterator[BlockRun]:
        nonlocal left
        for run in runs:
            if len(kept) <= MOST_KEPT:
                kept.append(run)
            if turn is not None:
                left += left_of(turn, run)
            yield run

    amount = bytes_to_read(seen(), size)
    again = 0 if turn is None else share(turn, left)
    known = tuple(kept) if len(kept) <= MOST_KEPT else None
    return Survey(amount + again * BLOCK_SIZE, known, turn, again)
