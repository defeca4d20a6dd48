"""One backup folder and two hosts: only one of them writes to it, and nothing gets mixed up."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import newest
from tests.support.stopped import stopped_backup
from tests.support.world import World, unchanged
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.ports import ThisHost

TOWER = ThisHost("t" * 32, "tower", "boot of the tower")
OTHER = ThisHost("o" * 32, "it's the other", "boot of the other")


@pytest.fixture(scope="module")
def world(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM that was backed up twice from the tower."""
    with closing(World(libvirtd, tmp_path_factory.mktemp("two hosts"))) as world:
        world.machine = TOWER
        world.backup_here()
        world.change()
        world.backup_here()
        yield world


@contextmanager
def on(world: World, machine: ThisHost) -> Iterator[None]:
    """Our commands run on this machine meanwhile, whose /run is its own."""
    own = world.machine, world.runtime
    world.machine = machine
    if machine is not own[0]:
        world.runtime = world.runtime.with_name(f"{world.runtime.name}-o")
    try:
        yield
    finally:
        world.machine, world.runtime = own


def take_over(world: World, machine: ThisHost) -> None:
    """Give the folder to a machine."""
    StoreLease(world.store, machine, FakeClock().now).take_over()


def test_the_other_host_may_read_and_restore_but_not_write(world: World) -> None:
    with on(world, OTHER), unchanged(world.store):
        refused = world.call("backup", "--", world.vm.name, expect=1)
        world.call("points")
        world.assert_restores(newest(world))
    assert "belongs to the host 'tower', since " in refused.stderr
    assert "check-store --take-over" in refused.stderr
    world.change()
    world.backup()


@pytest.mark.parametrize("moment", [("progress", ""), ("step", "save"), ("step", "commit")])
def test_a_backup_whose_folder_is_taken_over_meanwhile_makes_no_point(
    world: World, moment: tuple[str, str]
) -> None:
    take_over(world, TOWER)
    world.change()
    before = [name for _, names in world.chains() for name in names]
    with stopped_backup(world, Fault("stop", *moment)) as old:
        take_over(world, OTHER)
        old.go_on(1)
    assert 'belongs to the host "it\'s the other"' in old.err
    world.assert_lists(before)
    world.assert_tidy()
    with on(world, OTHER):
        world.backup()
        world.assert_restores(newest(world))
        world.assert_tidy()


def test_files_of_the_new_host_stay_when_the_old_one_undoes_its_backup(world: World) -> None:
    """Both make a point of the same name: the old one's was swept by the new one."""
    take_over(world, TOWER)
    world.change()
    stop = Fault("stop", "step", "copied vda")
    with stopped_backup(world, stop) as old:
        take_over(world, OTHER)
        # The tower's lock is one that the other host does not see.
        (world.store / "store.lock").unlink()
        copies = world.copies()
        with on(world, OTHER), stopped_backup(world, stop) as new:
            old.go_on(1)
            new.go_on(0)
    (made,) = {name for _, names in world.chains() for name in names} - set(world.references)
    world.references[made] = copies
    world.assert_restores(made)
    world.assert_tidy()


def test_the_folder_is_checked_and_taken_over_by_a_command(world: World) -> None:
    take_over(world, TOWER)
    with on(world, OTHER):
        with unchanged(*world.store.iterdir()):
            told = world.call("check-store", "--", str(world.store), expect=1)
            data = world.call("check-store", "--json", "--", str(world.store), expect=1)
        assert "unfit    It belongs to the host 'tower'" in told.stdout
        assert told.stdout.endswith(" is not fit to hold backups.\n")
        found = {check["check"]: check for check in json.loads(data.stdout)["findings"]}
        assert found["same-disk"]["text"].count(world.vm.name) == len(world.vm.disks)
        told = world.call("check-store", "--take-over", "--", str(world.store), expect=3)
        assert "Taken over: it belonged to the host 'tower' since" in told.stdout
        world.change()
        world.backup()
    with on(world, TOWER):
        world.call("backup", "--", world.vm.name, expect=1)
    missing = world.call("check-store", "--take-over", "--", str(world.folder), expect=1)
    assert "it is no backup folder" in missing.stderr
    world.call("check-store", "--", str(world.folder / "nowhere"), expect=1)
