"""What a job and a tool are, and how tools take turns."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.results import Row, Run


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Tool:
    """One way to do a job."""

    name: str
    run: Callable[[], Run]
    clear: Callable[[], None] = _nothing
    """Removes what it wrote; called before and after each run."""
    check: Callable[[], str] = lambda: ""
    """Says what is wrong with what it wrote, else nothing; called once, and not measured."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done, by several tools."""

    name: str
    tools: Sequence[Tool]
    prepare: Callable[[int], None] = lambda _: None
    """Called before each round with its number; the first, 0, is the warm-up."""
    changed_bytes: int = 0
    """How much ``prepare`` changes on the disk, in whole blocks; 0 where that tells nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that share a table."""

    title: str
    notes: str
    jobs: Callable[[], Sequence[Job]]
    """Prepares and returns them; called when it is their turn."""
    single: bool = False
    """Whether one run without warm-up will do: where time is not what is asked for."""


def play(job: Job, rounds: int, *, single: bool, say: Callable[[str], None]) -> Sequence[Row]:
    """Do a job ``rounds`` times with each tool, after a warm-up whose results are checked.

    In every round the tools take turns, each time another one first. With ``single`` there is
    one run only, which is checked and counts.
    """
    faults: dict[str, str] = {}
    runs: dict[str, list[Run]] = {tool.name: [] for tool in job.tools}
    for number in range(1 if single else rounds + 1):
        job.prepare(number)
        first = number % len(job.tools)
        for tool in [*job.tools[first:], *job.tools[:first]]:
            tool.clear()
            os.sync()
            run = tool.run()
            say(f"{job.name}, {'round ' + str(number) if number else 'first'}: {tool.name}")
            if number == 0:
                faults[tool.name] = tool.check()
            if number or single:
                runs[tool.name].append(run)
            tool.clear()
    return [
        Row(job.name, name, tuple(found), faults[name], job.changed_bytes)
        for name, found in runs.items()
    ]
