"""Jobs of one process for different VMs, in one backup folder: none does anything to the other."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec
from tests.support.world import Silent, World
from vm_babysitter.adapters.store.store_lock import SharedLocks
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel


class Meanwhile(Silent):
    """An observer that does something else when a step is reached."""

    def __init__(self, wanted: str, act: Callable[[], None]) -> None:
        self._wanted, self._act = wanted, act
        self.acted = False

    def step(self, name: str) -> None:
        if name == self._wanted and not self.acted:
            self.acted = True
            self._act()


@pytest.fixture
def two(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[tuple[World, World]]:
    disks = (DiskSpec("vda", size=16 * MIB),)
    with (
        closing(World(libvirtd, tmp_path / "a", "first", disks=disks)) as first,
        closing(World(libvirtd, tmp_path / "b", "second", disks=disks)) as second,
    ):
        second.store, second.runtime = first.store, first.runtime
        first.backup_here()
        time.sleep(1.0)  # so that points of the two have different names, too
        second.backup_here()
        yield first, second


def back_up(world: World, locks: SharedLocks, observer: Silent) -> None:
    """Back up a VM as the daemon does: with the locks that all its jobs share."""
    copies = world.copies()
    place = Place(world.host.uri, world.store, allow_ram_store=True, runtime=world.runtime)
    with Standalone(place, observer, Cancel(), locks.hold).backup() as work:
        made = work.run(world.vm.name)
    assert not made.left
    world.references[f"{made.chain}/{made.point.seq:06d}"] = copies


@pytest.mark.parametrize("left", [False, True], ids=["clean", "after a kill"])
def test_a_whole_backup_of_another_vm_in_the_middle_of_one(
    two: tuple[World, World], left: bool
) -> None:
    first, second = two
    locks = SharedLocks()
    for step in ("plan", "mark", "begun", "copy", "confirm", "committed"):
        for world in two:
            world.change()
        if left:  # which the other one has to clean up meanwhile
            second.die(Fault("die", "step", "copy"))
        other = Meanwhile(step, lambda: back_up(second, locks, Silent()))
        back_up(first, locks, other)
        assert other.acted, step
        for world in two:
            point = next(reversed(world.references))
            world.assert_holds(point)
            assert world.app().verify().one(world.vm.name, point).good
            assert world.host.call("job", world.vm.name) == 0
    points = {name for _, names in first.chains() for name in names}
    assert points == first.references.keys() | second.references.keys()
    for world in two:
        world.assert_vm_unharmed()
        assert world.host.call("checkpoints", world.vm.name) == []
    assert not list(first.runtime.glob("*"))
