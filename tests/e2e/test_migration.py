"""A VM that moves to another host while it runs: backups go on there, into the same folder.

The other host is a second libvirtd, which takes itself for one. It sees the same files, as hosts
with shared storage do.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import private_root
from tests.support import boot
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.moving import (
    COPIES_DISKS,
    LEAVES_NO_DEFINITION,
    movable,
    moving,
)
from tests.support.qemu_img import opened
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec, create_image
from tests.support.world import World
from vm_babysitter.domain.errors import Busy, VmInUse

NAME = "- a VM 'on the move' & co"
SIZE = 8 * MIB
SEVERAL = 64 * MIB


@dataclass
class Hosts:
    """Two hosts with storage of two alike file systems, in which the first inodes are the same."""

    folder: Path
    both: tuple[PrivateLibvirtd, PrivateLibvirtd]
    pools: tuple[Path, Path]


@dataclass
class House:
    """A VM that is on one of two hosts."""

    world: World
    hosts: Hosts

    @property
    def there(self) -> PrivateLibvirtd:
        """The host on which the VM is not."""
        first, second = self.hosts.both
        return second if self.world.host is first else first

    def method(self) -> str:
        """Change something, back up, and return how the disks were read."""
        self.world.change()
        made = self.world.backup_here()
        self.world.assert_vm_unharmed()
        self.world.assert_tidy()
        for point in list(self.world.references)[-2:]:
            self.world.assert_holds(point)
        (method,) = {disk.method for disk in made.disks}
        return str(method)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts with two file systems, each seen by both; libvirtd sees what is there before it."""
    with (
        private_root() as folder,
        ram_disk(folder / "one", SEVERAL) as one,
        ram_disk(folder / "two", SEVERAL) as two,
        private_root() as first_root,
        private_root() as second_root,
        closing(PrivateLibvirtd(first_root)) as first,
        closing(PrivateLibvirtd(second_root)) as second,
    ):
        first.start()
        second.start()
        yield Hosts(folder, (first, second), (one, two))


@pytest.fixture(scope="module")
def settled(hosts: Hosts) -> Iterator[House]:
    """A VM that idles, backed up once."""
    folder, pool = hosts.folder, hosts.pools[0]
    disks = [
        DiskSpec("vda", size=SIZE, path=pool / "vda.qcow2"),
        DiskSpec("vdb", size=SIZE, path=pool / "vdb.qcow2", cluster_size=4096),
    ]
    with closing(World(hosts.both[0], folder / "w", NAME, disks=disks)) as world:
        world.vm.stop()
        world.vm.define(movable(boot.able(str(world.host.call("xml", NAME, True))), folder))
        world.boot()
        world.vm.write_bytes("vda", 0, boot.idles())
        world.vm.resume()
        world.power = "running"
        world.backup_here()
        yield House(world, hosts)


@contextmanager
def talking_to(world: World, host: PrivateLibvirtd) -> Iterator[None]:
    """Our commands ask this host meanwhile, wherever the VM is."""
    own, world.host = world.host, host
    try:
        yield
    finally:
        world.host = own


@pytest.fixture
def house(settled: House) -> House:
    """The same VM for each test, where the one before has left it, and changed a little."""
    settled.world.change()
    return settled


def test_where_a_vm_has_moved_to_its_backups_go_on_by_bitmap(house: House) -> None:
    world, here, there = house.world, house.world.host, house.there
    with moving(world, there):
        for verb in ("plan", "backup"):
            refused = world.call(verb, "--", NAME, expect=11)
            assert "a migration, save or dump is running" in refused.stderr
        world.change()
    assert (world.host, here.call("names")) == (there, [])
    assert house.method() == "bitmap"
    with talking_to(world, here):
        missing = world.call("backup", "--", NAME, expect=10)
    assert "There is no persistent VM named" in missing.stderr
    with moving(world, here):
        world.change()
    assert (world.host, there.call("names")) == (here, [])
    assert house.method() == "bitmap"
    world.assert_restores(newest(world))


def test_a_vm_that_arrives_is_busy_where_it_was_known_before(house: House) -> None:
    world, here, there = house.world, house.world.host, house.there
    there.call("define", str(here.call("xml", NAME, True)))
    with moving(world, there), talking_to(world, there):
        for verb in ("plan", "backup"):
            refused = world.call(verb, "--", NAME, expect=11)
            assert "it is arriving from another host" in refused.stderr
    assert world.host is there
    assert house.method() == "bitmap"


def test_a_migration_that_is_called_off_leaves_bitmaps_as_they_were(house: House) -> None:
    with moving(house.world, house.there) as move:
        house.world.host.call("abort_job", NAME)
    assert "canceled" in move.problem
    assert house.there.call("names") == []
    assert house.method() == "bitmap"


def test_bitmaps_come_back_with_a_vm_whose_migration_fails_at_the_handover(house: House) -> None:
    """QEMU has given the images up by then, its bitmaps stored; over there one cannot be had."""
    world, decoys = house.world, house.hosts.folder / "decoys"
    decoys.mkdir()
    for target, spec in world.vm.disks.items():
        create_image(decoys / world.vm.paths[target].name, spec)
    texts = {str(world.vm.paths["vda"].parent): str(decoys)}
    with opened(decoys / "vda.qcow2"), moving(world, house.there, texts=texts) as move:
        world.change()
    assert "'cont': Failed to get" in move.problem
    house.there.call("undefine", NAME)  # libvirt has left it there, off
    assert house.method() == "bitmap"


@pytest.mark.parametrize("side", ["it leaves", "it goes to"])
def test_a_vm_stays_if_libvirtd_is_killed_in_a_migration(house: House, side: str) -> None:
    host = house.world.host if side == "it leaves" else house.there
    with moving(house.world, house.there) as move:
        host.restart()
    assert move.problem
    assert house.there.call("names") == []
    assert house.method() == "bitmap"


def test_a_definition_left_behind_makes_no_backup_of_disks_in_use_elsewhere(
    house: House,
) -> None:
    world, here, there = house.world, house.world.host, house.there
    with moving(world, there, flags=0):
        pass
    before = world.bitmaps()
    assert here.call("state", NAME) == "shutoff"
    with talking_to(world, here), pytest.raises(VmInUse, match="open for writing"):
        world.backup_here()
    here.call("undefine", NAME)
    assert world.bitmaps() == before
    assert house.method() == "bitmap"


def test_bitmaps_that_moved_with_copied_disks_hold_all_changes(house: House) -> None:
    """Inodes happen to be the same over there, so that nothing tells one image from the other."""
    world, (old, new) = house.world, house.hosts.pools
    for target, spec in world.vm.disks.items():
        image = new / world.vm.paths[target].name
        create_image(image, spec)
        assert image.stat().st_ino == world.vm.paths[target].stat().st_ino
    flags = LEAVES_NO_DEFINITION | COPIES_DISKS
    with moving(world, house.there, texts={str(old): str(new)}, flags=flags, speed=8):
        with pytest.raises(Busy):
            world.backup_here()
        world.change()
    world.vm.paths = {target: new / path.name for target, path in world.vm.paths.items()}
    for path in old.iterdir():
        path.unlink()
    assert house.method() == "bitmap"
    world.assert_restores(newest(world))
