"""``make chaos``: stories from seeds; the shortest one that fails is told."""

import argparse
import os
import signal
import sys
import time
from collections import Counter

from tests.chaos.story import Step, describe, play, shortest, tell

_OUR_OWN = ["unshare", "--mount", "--propagation", "private"]
"""Other tests begin mount namespaces, too, and would keep file systems of ours from ending."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, one after another")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--story", default="", help="these steps instead of those of the seed")
    parser.add_argument("--shorten", type=float, default=240, help="seconds for finding less")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        program = [sys.executable, "-m", "tests.chaos", "--inside", *sys.argv[1:]]
        os.execvp(_OUR_OWN[0], [*_OUR_OWN, *program])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is removed
    stats: Counter[str] = Counter()
    try:
        failed = [_run(seed, given, stats) for seed in range(given.seed, given.seed + given.seeds)]
    finally:
        for name, count in sorted(stats.items()):
            print(f"{count:7}  {name}")
    return 1 if any(failed) else 0


def _run(seed: int, given: argparse.Namespace, stats: Counter[str]) -> bool:
    """Play the story of a seed and say how it went. Returns whether it failed."""
    steps = [Step.parse(text) for text in given.story.split()]
    most = len(steps) or given.steps
    began = time.monotonic()

    def watch(number: int, words: str) -> None:
        if given.verbose:
            print(f"{number:3}. {words}", flush=True)

    outcome = play(seed, steps or tell(seed, most), most, watch)
    stats.update(outcome.stats)
    took = time.monotonic() - began
    print(f"seed {seed}: {outcome.stats['steps']} steps in {took:.0f} s", flush=True)
    if outcome.failure is None:
        return False
    print(outcome.trace)
    print(describe(seed, outcome), flush=True)
    if given.shorten:
        print("\nThe shortest story found:")
        print(describe(seed, shortest(seed, outcome, given.shorten)), flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
