"""A world that many tests use one after the other, because making one takes seconds."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.soak import SOAK
from tests.support.world import World

_MOST_POINTS = 10
"""Points of one store after which the stage is built anew: more only take longer."""


@dataclass
class Stage:
    """A world that test after test goes on with, until one fails or it gets too big."""

    host: PrivateLibvirtd
    folder: Path
    world: World | None = None
    count: int = 0
    failed: bool = field(default=False)

    def enter(self) -> World:
        """Return a world whose VM has a chain with an increment."""
        if self.world is None or self.failed or len(self.world.references) > _MOST_POINTS or SOAK:
            self.close()
            self.count += 1
            place = self.folder / f"stage {self.count}"
            self.world = World(self.host, place, "- stage", running=self.count % 2 == 1)
            self.world.backup()
            self.world.change()
            self.world.backup()
        self.failed = True
        return self.world

    def close(self) -> None:
        if self.world is not None:
            self.world.close()
            self.world = None


@contextmanager
def three_points(host: PrivateLibvirtd, folder: Path) -> Iterator[World]:
    """A VM with a full and two increments, the data of every disk in all of them."""
    with closing(World(host, folder, "house")) as world:
        for _ in range(3):
            world.change()
            world.backup()
        yield world


@contextmanager
def with_store_copied(world: World, to: Path) -> Iterator[World]:
    """The world with a copy of its store, to be damaged."""
    original, references = world.store, dict(world.references)
    world.store = to
    shutil.copytree(original, to)
    yield world
    world.store, world.references = original, references


def newest(world: World) -> str:
    """The name of the newest point."""
    return next(reversed(world.references))


def soak(*faults: Fault) -> tuple[Fault, ...]:
    """Those that run in a soak only; near to one that always runs."""
    return faults if SOAK else ()
