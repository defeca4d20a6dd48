"""A first look at a disk tells how much there is to do, and remembers what fits into memory."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine_world import exact, lived_in
from tests.unit.test_reread import actions, runs_of
from vm_babysitter.domain.blocks import BLOCK_SIZE, Action
from vm_babysitter.domain.reread import Reread
from vm_babysitter.engine import survey as survey_module
from vm_babysitter.engine.copying import bytes_to_read
from vm_babysitter.engine.survey import MOST_KEPT, survey

SIZE = 60 * BLOCK_SIZE
turns = st.none() | st.builds(Reread, st.integers(0, 70), st.integers(1, 30))


@given(actions, turns)
def test_what_is_read_is_what_was_announced(blocks: list[Action], turn: Reread | None) -> None:
    found = survey(runs_of(blocks), SIZE, turn)
    assert found.kept == tuple(runs_of(blocks))
    marked = list(found.marked(found.kept))
    assert bytes_to_read(marked, SIZE) == found.amount
    again = sum(r.end - r.first for r in marked if r.action is Action.REREAD)
    assert again == found.again


def test_runs_without_number_are_counted_and_not_kept() -> None:
    blocks = [Action.READ, Action.ZERO] * (MOST_KEPT // 2)
    assert survey(runs_of(blocks), len(blocks) * BLOCK_SIZE, None).kept is not None
    blocks.append(Action.READ)
    found = survey(runs_of(blocks), len(blocks) * BLOCK_SIZE, None)
    assert (found.kept, found.amount) == (None, (MOST_KEPT // 2 + 1) * BLOCK_SIZE)


@pytest.mark.parametrize("most", [0, 1, MOST_KEPT])
def test_a_backup_is_the_same_whether_the_look_is_kept_or_not(
    ram_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(survey_module, "MOST_KEPT", most)
    world = lived_in(ram_path)
    world.reread_runs = 2
    exact(world, world.backup())
    world.disk.write(70000, b"new")
    result = world.backup()
    exact(world, result)
    (disk,) = result.point.disks
    assert (disk.read_bytes, disk.written_bytes) == (3 * BLOCK_SIZE, BLOCK_SIZE)
