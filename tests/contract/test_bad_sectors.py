"""A document that its medium cannot give back, which is how btrfs and ZFS tell of rotten data."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.test_store_care import only
from tests.support.engine_world import EngineWorld
from tests.support.fakes.disk import FakeDisk
from vm_babysitter.adapters.store import documents
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.domain.errors import Damaged, StoreFailed
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.catalog import find_point
from vm_babysitter.ports import ThisHost

Spoil = Callable[[Path], None]
THERE = ThisHost("b" * 32, "other", "boot")


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """A chain of three points, and another VM with one."""
    folder = tmp_path / "store"
    folder.mkdir()
    world = EngineWorld(folder)
    world.hypervisor.add("other", FakeDisk(size=65536))
    for number in range(3):
        world.disk.write(0, bytes([number + 1]) * 1000)
        world.backup()
    name, world.name = world.name, "other"
    world.backup()
    world.name = name
    return world


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoil]:
    """Have a file be unreadable until it is replaced."""
    bad: dict[int, int] = {}  # held open, so that no other file gets its inode
    read = os.read

    def failing_read(descriptor: int, length: int) -> bytes:
        if os.fstat(descriptor).st_ino in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, length)

    monkeypatch.setattr(os, "read", failing_read)
    yield lambda path: bad.update({path.stat().st_ino: os.open(path, os.O_RDONLY)})
    for descriptor in bad.values():
        os.close(descriptor)


def goes_on(world: EngineWorld, parent: int) -> None:
    world.disk.write(65536, os.urandom(100))
    made = world.backup()
    assert (made.point.parent, made.left) == (parent, "")
    assert world.restored(only(world), made.point.seq) == bytes(world.disk.content)
    world.name = "other"
    assert world.backup().point.seq == 1


@pytest.mark.parametrize("name", ["vm.json", "seen.json"])
def test_a_vm_whose_document_cannot_be_read_goes_on_and_others_do(
    world: EngineWorld, spoil: Spoil, name: str
) -> None:
    spoil(vm_folder_of(world, world.name) / name)
    assert find_point(world.open(), world.name, "latest").point.seq == 2
    assert find_point(world.open(), "other", "latest").point.seq == 0
    goes_on(world, 2)


@pytest.mark.parametrize("name", ["chain.json", "current.json"])
def test_a_series_whose_document_cannot_be_read_goes_on(
    world: EngineWorld, spoil: Spoil, name: str
) -> None:
    path = vm_folder_of(world, world.name)
    (chain,) = path.glob("20*Z")
    (chain / name).touch()
    spoil(chain / name)
    goes_on(world, 2)


def test_a_manifest_that_cannot_be_read_is_one_point_less(world: EngineWorld, spoil: Spoil) -> None:
    (manifest,) = vm_folder_of(world, world.name).glob("*/000002-inc/point.json")
    spoil(manifest)
    (unreadable,) = only(world).unreadable
    assert unreadable.problem == f"its manifest point.json: {os.strerror(errno.EIO)}"
    assert find_point(world.open(), "other", "latest").point.seq == 0
    goes_on(world, 1)
    assert manifest.exists()


@pytest.mark.parametrize("mark", ["000003-inc.attempt.json", "000002-inc.removal.json"])
def test_a_mark_that_cannot_be_read_removes_nothing(
    world: EngineWorld, spoil: Spoil, mark: str
) -> None:
    (chain,) = vm_folder_of(world, world.name).glob("20*Z")
    (chain / mark).touch()
    spoil(chain / mark)
    goes_on(world, 2)


def test_a_lease_that_cannot_be_read_is_not_taken_from_its_host(
    world: EngineWorld, spoil: Spoil
) -> None:
    path = world.path / "lease.json"
    lease = StoreLease(world.path, THERE, world.clock.now)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StoreFailed):
        lease.hold()
    assert path.read_bytes() == before
    lease.take_over()
    lease.hold()


def test_a_document_that_is_far_too_large_is_damaged_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(Damaged, match="too large"):
        documents.read(path, "point", Point)


def vm_folder_of(world: EngineWorld, name: str) -> Path:
    store = world.open()
    (vm,) = (vm for vm in store.vms() if name in vm.names)
    return store.path / vm.directory
