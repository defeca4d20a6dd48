"""Stories: told from a seed, played step by step, and made shorter when they fail."""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.chaos import acts_ours
from tests.chaos.actions import ACTIONS, WEIGHTS
from tests.chaos.house import House
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken, Skip

THOROUGH = 40
"""Steps after which everything is compared again."""
Watch = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One action, with the chance of its own: it is the same whatever goes before it."""

    action: str
    seed: int

    def __str__(self) -> str:
        return f"{self.action}.{self.seed}"

    @classmethod
    def parse(cls, text: str) -> "Step":
        action, _, seed = text.partition(".")
        return cls(action, int(seed))


@dataclass
class Outcome:
    """What became of a story."""

    done: list[tuple[Step, str]] = field(default_factory=list)
    failure: Broken | None = None
    trace: str = ""
    stats: Counter[str] = field(default_factory=Counter)


def tell(seed: int, length: int) -> list[Step]:
    """Return the story of a seed: most begin with a VM that is on and backed up.

    It is twice as long, because not every step will apply.
    """
    chance = Random(seed)
    names = [act.__name__ for act in WEIGHTS]
    chosen = chance.choices(names, list(WEIGHTS.values()), k=2 * length)
    opening = ["start", "write", "backup"][: chance.choice((0, 1, 3, 3))]
    chosen = opening + chosen
    return [Step(name, chance.randrange(1_000_000)) for name in chosen]


def play(
    seed: int, steps: Sequence[Step], most: int = 10_000, watch: Watch = lambda _n, _text: None
) -> Outcome:
    """Play ``most`` steps of a story in a house of its own; what does not apply is passed over."""
    outcome = Outcome()
    with House(seed, outcome.stats) as house:
        oracle = Oracle(house)
        try:
            for step in steps:
                if outcome.stats["steps"] < most:
                    _play_one(oracle, step, outcome, watch)
            _end(oracle, outcome, watch)
        except Broken as error:
            outcome.failure, outcome.trace = error, traceback.format_exc()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its story
            outcome.failure = Broken(f"{type(error).__name__}", str(error))
            outcome.trace = traceback.format_exc()
    return outcome


def _play_one(oracle: Oracle, step: Step, outcome: Outcome, watch: Watch) -> None:
    outcome.done.append((step, "…"))
    try:
        words = ACTIONS[step.action](oracle, Random(step.seed))
    except Skip:
        outcome.done.pop()
        return
    outcome.stats["steps"] += 1
    outcome.stats[f"  {step.action}"] += 1
    outcome.done[-1] = (step, words)
    watch(len(outcome.done), words)
    oracle.judge(thoroughly=outcome.stats["steps"] % THOROUGH == 0)


def _end(oracle: Oracle, outcome: Outcome, watch: Watch) -> None:
    """At last every VM gets two more backups, and everything is compared."""
    oracle.house.backups.free()
    for machine in oracle.house.machines * 2:
        step = Step("the end", 0)
        outcome.done.append((step, "…"))
        words = acts_ours.plain_backup(oracle, machine, acts_ours.Options())
        outcome.done[-1] = (step, words)
        watch(len(outcome.done), words)
    oracle.judge(thoroughly=True)


def shorten(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], seconds: float
) -> list[Step]:
    """Leave out of a failing story what it fails without (ddmin), within a time."""
    left, parts = list(steps), 2
    deadline = time.monotonic() + seconds
    while len(left) > 1:
        size = max(1, len(left) // parts)
        for begin in range(0, len(left), size):
            if time.monotonic() > deadline:
                return left
            rest = left[:begin] + left[begin + size :]
            if rest and fails(rest):
                left, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                return left
            parts = min(len(left), parts * 2)
    return left


def shortest(seed: int, outcome: Outcome, seconds: float) -> Outcome:
    """Return the outcome of the shortest story found that fails in the same way."""
    if outcome.failure is None:
        return outcome
    promise, best = outcome.failure.promise, outcome

    def fails(steps: Sequence[Step]) -> bool:
        nonlocal best
        tried = play(seed, steps)
        failed = tried.failure is not None and tried.failure.promise == promise
        if failed:
            best = tried
        return failed

    shorten([step for step, _ in outcome.done if step.action in ACTIONS], fails, seconds)
    return best


def describe(seed: int, outcome: Outcome) -> str:
    """Say what happened, so that a person can do it again."""
    lines = [f"seed {seed}: {outcome.failure}"] if outcome.failure else [f"seed {seed}: good"]
    lines += [f"  {number:3}. {words}" for number, (_, words) in enumerate(outcome.done, 1)]
    told = " ".join(str(step) for step, _ in outcome.done if step.action in ACTIONS)
    lines.append(f"Again: make chaos SEED={seed} STORY='{told}'")
    return "\n".join(lines)
