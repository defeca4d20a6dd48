"""The chaos ring in short: a few seeds, and that its judge sees what is wrong."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from tests.chaos import acts_ours, acts_vm
from tests.chaos.actions import ACTIONS
from tests.chaos.house import House
from tests.chaos.oracle import Oracle
from tests.chaos.story import Outcome, Step, describe, shorten, tell
from tests.chaos.words import Broken
from tests.support.world import environment

_SEEDS = (2026, 7)
_STEPS = 22


@pytest.mark.parametrize("seed", _SEEDS)
def test_whatever_happens_every_point_is_right_or_refused(seed: int) -> None:
    program = [sys.executable, "-m", "tests.chaos"]
    arguments = ["--seed", str(seed), "--steps", str(_STEPS), "--shorten", "0"]
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"seed {seed}: {_STEPS} steps" in done.stdout


# -- the judge sees what is wrong -------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """A house whose first VM is on and has two points; each test leaves it as it was."""
    with House(1) as house:
        oracle, machine, chance = Oracle(house), house.machines[0], Random(1)
        machine.start(running=False)
        for _ in range(2):
            acts_vm.write_some(machine, chance)
            acts_ours.plain_backup(oracle, machine, acts_ours.Options())
        oracle.judge(thoroughly=True)
        yield oracle


def wrong_reference(oracle: Oracle) -> Callable[[], None]:
    path = next(iter(oracle.house.references.values())).disks["vda"]
    content = path.read_bytes()
    path.write_bytes(b"\x01" + content[1:])
    return lambda: _write(path, content)


def longer_reference(oracle: Oracle) -> Callable[[], None]:
    path = next(iter(oracle.house.references.values())).disks["vda"]
    content = path.read_bytes()
    path.write_bytes(content + bytes(512))
    return lambda: _write(path, content)


def lost_point(oracle: Oracle) -> Callable[[], None]:
    house = oracle.house
    folder = house.store / list(house.references.values())[1].directory
    away = house.backups.place / "away"
    folder.rename(away)
    return lambda: _rename(away, folder)


def damage_nobody_did(oracle: Oracle) -> Callable[[], None]:
    house = oracle.house
    path = house.store / next(iter(house.references.values())).directory / "vda.index"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return lambda: _write(path, content)


def unknown_point(oracle: Oracle) -> Callable[[], None]:
    references = oracle.house.references
    key, reference = references.popitem()
    return lambda: references.update({key: reference})


def switched_off(oracle: Oracle) -> Callable[[], None]:
    machine = oracle.house.machines[0]
    machine.vm.stop()
    return machine.vm.start


@pytest.mark.parametrize(
    ("do", "promise"),
    [
        (wrong_reference, "wrong data"),
        (longer_reference, "size"),
        (lost_point, "lost point"),
        (damage_nobody_did, "good point called bad"),
        (unknown_point, "unknown point"),
        (switched_off, "power state"),
    ],
)
def test_the_judge_sees_it(
    oracle: Oracle, do: Callable[[Oracle], Callable[[], None]], promise: str
) -> None:
    undo = do(oracle)
    try:
        with pytest.raises(Broken) as caught:
            oracle.judge(thoroughly=True)
        assert caught.value.promise == promise
    finally:
        undo()
    oracle.judge(thoroughly=True)


@pytest.mark.parametrize(
    ("place", "promise"),
    [
        ("disks/one & only/.vmb-0a1b2c-vda.scratch", "left beside the disks"),
        ("our runtime/job-0a1b2c", "left in the runtime folder"),
        ("series/000009-inc.attempt.json", "left in the store"),
    ],
)
def test_the_judge_sees_leftovers(oracle: Oracle, place: str, promise: str) -> None:
    house = oracle.house
    first = next(iter(house.references.values()))
    series = house.store / first.directory.parent
    top, _, rest = place.partition("/")
    folder = {"disks": house.disks.place, "our runtime": house.runtime, "series": series}[top]
    folder.mkdir(exist_ok=True)
    (folder / rest).touch()
    try:
        with pytest.raises(Broken) as caught:
            oracle.tidy(house.machines[0])
        assert caught.value.promise == promise
    finally:
        (folder / rest).unlink()
    oracle.tidy(house.machines[0])


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _rename(path: Path, target: Path) -> None:
    path.rename(target)


# -- stories ------------------------------------------------------------------------------------


def test_a_seed_always_tells_the_same_story() -> None:
    assert tell(5, 30) == tell(5, 30) != tell(6, 30)
    assert {step.action for step in tell(5, 2000)} == ACTIONS.keys()


def test_a_story_can_be_told_again_from_what_is_printed() -> None:
    assert [Step.parse(str(step)) for step in tell(5, 30)] == tell(5, 30)


@pytest.mark.parametrize("needed", [{3}, {0, 19}, {4, 5, 17}, set(range(20))])
def test_what_a_story_fails_without_is_left_out(needed: set[int]) -> None:
    steps = [Step("write", number) for number in range(20)]

    def fails(some: Sequence[Step]) -> bool:
        return needed <= {step.seed for step in some}

    assert {step.seed for step in shorten(steps, fails, 10)} == needed


def test_shortening_ends_in_time() -> None:
    steps = [Step("write", number) for number in range(20)]
    assert shorten(steps, lambda _: True, 0) == steps


def test_who_failed_is_told_how_to_do_it_again() -> None:
    outcome = Outcome([(Step("write", 7), "somebody writes")], Broken("size", "it is odd"))
    told = describe(3, outcome)
    assert "seed 3: size: it is odd" in told
    assert "make chaos SEED=3 STORY='write.7'" in told
