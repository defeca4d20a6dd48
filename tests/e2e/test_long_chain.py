"""A backup series as long as it may become: exact to its end, and within its means."""

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.soak import SOAK
from tests.support.vm import MIB, DiskSpec
from tests.support.world import KIB, World
from vm_babysitter.domain.chain import MAX_POINTS

DISKS = (DiskSpec("vda", size=32 * MIB),)
MOST_MEMORY = 150 * MIB
MOST_FILES = 200
EVERY = 1 if SOAK else 20
"""Which points are restored, beside the first and the last."""


@dataclass
class Measured:
    """What one command took."""

    seconds: float
    memory: int
    """Bytes: the most that it had at a time."""
    files: int
    """The most that it had open at a time."""
    out: str


@dataclass
class Cost:
    """What all commands took."""

    backups: list[Measured] = field(default_factory=list)
    others: dict[str, Measured] = field(default_factory=dict)


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    with closing(World(libvirtd, tmp_path / "w", "long", disks=DISKS)) as world:
        yield world


def measured(world: World, *arguments: str) -> Measured:
    """Run a command that must work, and watch it."""
    out = world.folder / "out"
    most = memory = 0
    began = time.monotonic()
    with out.open("w") as stdout:
        process = world.fork(*arguments, stdout=stdout)
    done = threading.Event()

    def watch() -> None:
        nonlocal most, memory
        while not done.wait(0.002):
            try:
                most = max(most, sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir()))
                # Not of wait4, which counts what our own process had when it forked.
                state = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            if found := re.search(r"VmHWM:\s+(\d+)", state):
                memory = max(memory, int(found[1]) * KIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        process.wait()
    finally:
        done.set()
        watcher.join()
    seconds = time.monotonic() - began
    _, err = process.communicate()
    assert process.returncode == 0, err
    return Measured(seconds, memory, most, out.read_text())


def backup(world: World, cost: Cost) -> dict[str, object]:
    """Write a little, back up, and remember what the point must restore to."""
    number = len(cost.backups)
    world.vm.write("vda", number % 31 * MIB + number * 4 * KIB, 64 * KIB, 0x40 + number)
    world.vm.zero("vda", (number * 7 + 3) % 31 * MIB, 4 * KIB)
    world.vm.flush("vda")
    wanted = number % EVERY == 0 or number >= MAX_POINTS - 1
    copies = world.copies() if wanted else {}
    cost.backups.append(measured(world, "backup", "--json", "--", world.vm.name))
    made = json.loads(cost.backups[-1].out)
    if wanted:
        world.references[made["point"]] = copies
    manifest: dict[str, object] = made["manifest"]
    return manifest


@pytest.mark.timeout(400)  # a minute on an idle machine
def test_a_series_of_as_many_points_as_there_may_be(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = Cost()
    assert backup(world, cost)["level"] == "full"
    for number in range(1, MAX_POINTS):
        made = backup(world, cost)
        assert (made["level"], made["seq"], made["parent"]) == ("inc", number, number - 1)
    ((chain, names),) = world.chains()
    assert len(names) == MAX_POINTS
    world.assert_tidy()
    for point in world.references:
        world.assert_restores(point)
    last = list(world.references)[-1]
    cost.others["verify the last"] = measured(world, "verify", "--", world.vm.name, last)
    target = str(world.folder / "restored")
    cost.others["restore the last"] = measured(
        world, "restore", "--to", target, "--", world.vm.name, last
    )
    made = backup(world, cost)  # one more does not fit
    assert (made["level"], made["seq"], made["parent"]) == ("full", 0, None)
    states = sorted((c.directory, c.state, len(names)) for c, names in world.chains())
    assert [state[1:] for state in states] == [("archived", MAX_POINTS), ("live", 1)]
    assert states[0][0] == chain.directory
    world.assert_restores(list(world.references)[-1])
    world.assert_holds(last)
    world.assert_vm_unharmed()
    with capsys.disabled():
        sys.stdout.write(report(cost))
    for name, measure in [*enumerate(cost.backups), *cost.others.items()]:
        assert measure.memory < MOST_MEMORY, name
        assert measure.files < MOST_FILES, name


def report(cost: Cost) -> str:
    rows = {f"backup {n}": cost.backups[n] for n in (0, 1, 10, 30, MAX_POINTS - 1, MAX_POINTS)}
    return "".join(
        f"\n  {name:16} {m.seconds:5.2f} s  {m.memory / MIB:4.0f} MiB  {m.files:3d} files"
        for name, m in {**rows, **cost.others}.items()
    )
