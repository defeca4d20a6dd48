"""A copy of the backup folder that was made during a backup: that backup is left in peace."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import private_root
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import newest
from tests.support.stopped import stopped_backup
from tests.support.world import World, unchanged
from vm_babysitter.adapters.workspace import Workspace
from vm_babysitter.domain.findings import Code
from vm_babysitter.domain.repair_plan import StepKind, plan_repair


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and an increment."""
    with closing(World(libvirtd, tmp_path_factory.mktemp("copied") / "w")) as world:
        world.backup()
        world.change()
        world.backup()
        yield world


@contextmanager
def in_copy(world: World, to: Path) -> Iterator[None]:
    """Our commands are given a copy of the backup folder, made now."""
    original = world.store
    shutil.copytree(original, to, ignore=shutil.ignore_patterns("store.lock"))
    world.store = to
    try:
        yield
    finally:
        world.store = original


def damage_mark(store: Path) -> None:
    (mark,) = store.glob("*/*/*.attempt.json")
    mark.write_bytes(mark.read_bytes()[:20])


@pytest.mark.parametrize("moment", ["begun", "copy", "commit"])
@pytest.mark.parametrize(
    ("off", "damaged"),
    [(False, False), (False, True), (True, False)],
    ids=["on", "on, its mark is damaged", "off"],
)
def test_a_backup_into_a_copy_ends_no_job_of_the_backup_that_is_running(
    house: World, tmp_path: Path, moment: str, *, damaged: bool, off: bool
) -> None:
    house.change()
    if off:
        house.vm.stop()
    try:
        copies = house.copies()
        with stopped_backup(house, Fault("stop", "step", moment)) as running:
            with in_copy(house, tmp_path / "copy"):
                if damaged:
                    damage_mark(house.store)
                for command in ("repair", "backup"):
                    refused = house.call(command, "--", house.vm.name, expect=11)
                    assert "a backup of it is running, begun by process " in refused.stderr
            running.go_on(0)
        names = [name for _, names in house.chains() for name in names]
        (made,) = set(names) - set(house.references)
        house.references[made] = copies
        house.assert_restores(made)
    finally:
        if off:
            house.boot()
    house.assert_tidy()


def test_a_running_backup_is_told_as_such_and_one_that_was_killed_as_interrupted(
    house: World,
) -> None:
    house.change()
    copies = house.copies()
    with stopped_backup(house, Fault("stop", "step", "copy")) as running:
        with unchanged(house.store):
            found = house.diagnosed().diagnosis
        assert [finding.code for finding in found.findings] == [Code.UNDER_WAY]
        assert [step.kind for step in plan_repair(found).steps] == [StepKind.BACKUP]
        assert "undo" not in house.call("plan", "--", house.vm.name).stdout
        running.go_on(0)
    (made,) = {name for _, names in house.chains() for name in names} - set(house.references)
    house.references[made] = copies
    house.change()
    house.die(Fault("die", "step", "copy"))
    found = house.diagnosed().diagnosis
    assert [finding.code for finding in found.findings] == [Code.INTERRUPTED]
    house.call("repair", "--", house.vm.name)
    house.assert_tidy(bitmaps=2)


def left(world: World) -> list[str]:
    """What an interrupted backup has in the folder, beside the disks, and for its job."""
    folders = (world.store, world.disks, *world.runtime.glob("job-*"))
    names = [str(path) for folder in folders for path in folder.rglob("*")]
    return sorted(name for name in names if not name.endswith("store.lock"))


def test_a_repair_by_the_wrong_libvirt_leaves_a_job_alone_that_it_cannot_see(
    house: World,
) -> None:
    house.change()
    house.die(Fault("die", "progress", "", 3))
    before = left(house)
    with private_root() as root, closing(PrivateLibvirtd(root)) as other:
        other.start()
        own, house.host = house.host, other
        try:
            told = house.call("repair", "--", house.vm.name, expect=3)
            status = house.call("status", "--", house.vm.name, expect=3)
        finally:
            house.host = own
    words = f"libvirt ({other.uri}) has no VM {house.vm.name!r}, but a QEMU with its UUID runs"
    assert words in told.stderr
    assert words in status.stdout
    assert "Not done yet: undo what the interrupted backup" in told.stdout
    assert left(house) == before
    assert house.host.call("job", house.vm.name) != 0
    house.backup()
    house.assert_restores(newest(house))
    house.assert_tidy()


def test_so_it_does_where_the_vm_was_undefined_while_it_runs(house: World, tmp_path: Path) -> None:
    house.change()
    house.die(Fault("die", "progress", "", 3))
    before = left(house)
    ((attempt,),) = [chain.attempts for chain, _ in house.chains() if chain.attempts]
    places = Workspace(house.runtime, house.store)
    # What of it is seen where the UUID tells nothing, as in a container of another libvirt's.
    unnamed = replace(attempt, vm_uuid=str(uuid4()))
    assert attempt.socket in places.still_used(unnamed)
    assert attempt.scratch[0] in places.still_used(replace(unnamed, socket=""))
    definition = str(house.host.call("xml", house.vm.name, True))
    house.host.call("undefine", house.vm.name)
    try:
        told = house.call("repair", "--", house.vm.uuid, expect=3)
        assert "a QEMU with its UUID runs" in told.stderr
        assert left(house) == before
    finally:
        house.vm.define(definition)
    house.backup()
    house.assert_restores(newest(house))
    house.assert_tidy()
