"""kill -9 at every step of a backup: nothing is lost, nothing is left, the next one goes on."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import Stage, newest, soak
from tests.support.world import World

FAILS = Fault("fail", "step", "copied vda")
MID_COPY = Fault("die", "progress", "", 3)


def die(kind: str, name: str = "", nth: int = 1) -> Fault:
    return Fault("die", kind, name, nth)


BEFORE_COMMIT = [
    die("os.rename", "*.attempt.json"),
    die("step", "mark"),
    die("os.remove", "*.scratch.probe", 2),
    die("step", "begin"),
    die("call", "virDomain.checkpointCreateXML", 4),  # vda has its new bitmap, vdb not yet
    die("step", "begun"),
    die("progress", "", 3),
    die("step", "copied vda"),
    die("open", "*/.point.json.tmp"),
    die("os.rename", "*/point.json"),
    *soak(
        die("step", "look"),
        die("step", "plan"),
        die("return", "LibvirtHypervisor.adopt_checkpoint"),
        die("step", "adopted"),
        die("os.mkdir", "*-inc"),
        die("step", "probe"),
        die("call", "virDomain.backupBegin"),
        die("return", "LibvirtHypervisor.begin_backup"),
        die("call", "virDomainCheckpoint.delete", 2),
        die("step", "copy"),
        die("progress", "", 1),
        die("step", "copied vdb"),
        die("step", "save"),
        die("step", "commit"),
        die("open", "*-inc"),
    ),
]
AFTER_COMMIT = [
    die("open", "*-inc", 2),  # the directory, to sync it after the rename
    die("step", "committed"),
    die("return", "LibvirtHypervisor.end_backup"),
    die("os.remove", "*.attempt.json"),
    die("call", "virDomainCheckpoint.delete", 6),  # one disk's old bitmap is gone
    *soak(
        die("call", "LibvirtHypervisor.end_backup"),
        die("call", "Workspace.remove", 2),
        die("step", "ended"),
        die("step", "tidy"),
        die("return", "LibvirtHypervisor.remove_bitmaps"),
        die("step", "done"),
    ),
]
IN_ROLLBACK = [
    die("return", "LibvirtHypervisor.end_backup"),
    die("call", "virDomainCheckpoint.delete", 6),  # one disk's new bitmap is gone
    die("os.remove", "vda.*", 2),
    die("os.remove", "*.attempt.json"),
    *soak(
        die("step", "roll back"),
        die("call", "Reconciler.clear"),
        die("call", "LibvirtHypervisor.remove_bitmaps"),
        die("return", "LibvirtHypervisor.remove_bitmaps"),
        die("call", "Workspace.remove", 2),
        die("call", "LocalStore.sweep"),
        die("os.rmdir", "*-inc"),
    ),
]
IN_RECONCILE = [
    die("return", "LibvirtHypervisor.end_backup"),
    die("os.remove", "vda.*", 2),
    *soak(
        die("call", "Workspace.remove", 2),
        die("call", "virDomainCheckpoint.delete"),
        die("os.remove", "*.attempt.json"),
    ),
]
FIRST_BEFORE_COMMIT = [
    die("os.rename", "*/store.json"),
    die("os.rename", "*/chain.json"),
    die("os.rename", "*.attempt.json"),
    die("progress", "", 3),
    die("os.rename", "*/point.json"),
    *soak(
        die("open", "*/store.lock"),
        die("os.link", "*/lease.json"),
        die("step", "look"),
        die("os.mkdir", "*/_-*"),
        die("os.rename", "*/vm.json"),
        die("os.mkdir", "*Z"),
        die("step", "mark"),
        die("os.mkdir", "*-full"),
        die("step", "begun"),
    ),
]
FIRST_AFTER_COMMIT = [
    die("open", "*-full", 2),
    *soak(die("step", "committed"), die("step", "ended")),
]
AGAIN_BEFORE_COMMIT = [
    die("os.rename", "*.attempt.json"),
    die("progress", "", 3),
    die("os.rename", "*/point.json"),
    *soak(
        die("os.mkdir", "*Z"),
        die("os.rename", "*/chain.json"),
        die("step", "mark"),
        die("step", "begun"),
    ),
]
AGAIN_AFTER_COMMIT = [
    die("step", "committed"),
    die("os.rename", "*/chain.json", 2),  # the old one, to archive it
    *soak(die("step", "ended"), die("step", "tidy")),
]


@pytest.fixture(scope="module")
def stage(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(libvirtd, tmp_path_factory.mktemp("kill"))
    yield stage
    stage.close()


@pytest.fixture
def world(stage: Stage) -> World:
    """A VM with a chain; each test leaves it fit for the next one."""
    world = stage.enter()
    world.change()
    return world


@pytest.fixture
def new_world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A paused VM without any backup."""
    with closing(World(libvirtd, tmp_path / "new")) as world:
        yield world


def goes_on(world: World, *, parent: str | None) -> None:
    """The next backup goes on by itself from ``parent``, and all is as if nothing had been."""
    made = world.backup()
    if parent is None:
        assert (made["level"], made["seq"]) == ("full", 0)
    else:
        assert made["level"] == "inc"
        assert newest(world).split("/")[0] == parent.split("/")[0]
        assert made["parent"] == int(parent.split("/")[1])
        assert [disk["method"] for disk in made["disks"]] == ["bitmap", "bitmap"]
    assert made["warnings"] == []
    world.assert_lists(world.references, verify=False)
    world.assert_restores(newest(world))
    if parent is not None:
        world.assert_holds(parent)
    world.assert_tidy()
    world.assert_vm_unharmed()


def unharmed(world: World) -> None:
    """What had been committed is there and good, and the VM goes on writing."""
    world.assert_lists(world.references)
    world.assert_vm_unharmed()
    world.change()
    if world.references:
        world.assert_holds(newest(world))


def committed(world: World, copies: dict[str, Path]) -> str:
    """Note the point that the dead backup had committed; return its name."""
    (name,) = {n for _, names in world.chains() for n in names} - set(world.references)
    world.references[name] = copies
    return name


@pytest.mark.parametrize("fault", BEFORE_COMMIT, ids=str)
def test_killed_before_the_commit_nothing_is_lost(world: World, stage: Stage, fault: Fault) -> None:
    parent = newest(world)
    world.die(fault)
    unharmed(world)
    goes_on(world, parent=parent)
    stage.failed = False


@pytest.mark.parametrize("fault", AFTER_COMMIT, ids=str)
def test_killed_after_the_commit_the_point_counts(world: World, stage: Stage, fault: Fault) -> None:
    parent = committed(world, world.die(fault))
    unharmed(world)
    goes_on(world, parent=parent)
    stage.failed = False


@pytest.mark.parametrize("fault", IN_ROLLBACK, ids=str)
def test_killed_while_a_failure_is_undone(world: World, stage: Stage, fault: Fault) -> None:
    parent = newest(world)
    world.die(FAILS, fault)
    unharmed(world)
    goes_on(world, parent=parent)
    stage.failed = False


@pytest.mark.parametrize("fault", IN_RECONCILE, ids=str)
def test_killed_again_while_the_first_death_is_undone(
    world: World, stage: Stage, fault: Fault
) -> None:
    parent = newest(world)
    world.die(MID_COPY)
    unharmed(world)
    # What libvirt remembers of checkpoints would be in the way of removing the VM.
    assert world.host.call("checkpoints", world.vm.name) == []
    world.die(fault)
    unharmed(world)
    goes_on(world, parent=parent)
    stage.failed = False


def test_killed_after_removing_one_bitmap_of_two(world: World, stage: Stage) -> None:
    committed(world, world.die(die("step", "tidy")))
    parent = committed(world, world.die(die("return", "LibvirtHypervisor.remove_bitmaps")))
    unharmed(world)
    goes_on(world, parent=parent)
    stage.failed = False


def test_the_next_run_has_libvirt_forget_even_if_it_then_fails(world: World, stage: Stage) -> None:
    parent = newest(world)
    world.die(die("return", "LibvirtHypervisor.begin_backup"))
    unharmed(world)
    assert len(world.host.call("checkpoints", world.vm.name)) == 4  # type: ignore[arg-type]
    fails = Fault("fail", "step", "plan")
    world.call("backup", "--", world.vm.name, faults=[fails], expect=1)
    world.assert_tidy()
    goes_on(world, parent=parent)
    stage.failed = False


@pytest.mark.parametrize("fault", FIRST_BEFORE_COMMIT, ids=str)
def test_killed_in_the_very_first_backup(new_world: World, fault: Fault) -> None:
    new_world.die(fault)
    unharmed(new_world)
    goes_on(new_world, parent=None)
    assert len(new_world.chains()) == 1


@pytest.mark.parametrize("fault", FIRST_AFTER_COMMIT, ids=str)
def test_killed_after_the_very_first_commit(new_world: World, fault: Fault) -> None:
    parent = committed(new_world, new_world.die(fault))
    unharmed(new_world)
    goes_on(new_world, parent=parent)


@pytest.mark.parametrize("fault", AGAIN_BEFORE_COMMIT, ids=str)
def test_killed_in_a_new_full_the_old_chain_goes_on(
    world: World, stage: Stage, fault: Fault
) -> None:
    parent, chains = newest(world), len(world.chains())
    world.die(fault, options=["--full"])
    unharmed(world)
    planned = json.loads(world.call("plan", "--json", "--", world.vm.name).stdout)
    assert planned["parent"] == int(parent.split("/")[1])  # what the backup then does
    goes_on(world, parent=parent)
    assert len(world.chains()) == chains
    stage.failed = False


@pytest.mark.parametrize("fault", AGAIN_AFTER_COMMIT, ids=str)
def test_killed_after_the_commit_of_a_new_full_the_old_chain_is_archived(
    world: World, stage: Stage, fault: Fault
) -> None:
    parent = committed(world, world.die(fault, options=["--full"]))
    unharmed(world)
    goes_on(world, parent=parent)
    *old, new = sorted((chain for chain, _ in world.chains()), key=lambda c: c.directory)
    assert new.state == "live"
    assert {(chain.state, bool(chain.why)) for chain in old} == {("archived", True)}
    stage.failed = False
