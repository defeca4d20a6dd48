"""What the words of a user name."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from vm_babysitter.adapters.store import documents
from vm_babysitter.domain.errors import Damaged, PointNotFound, UnsupportedFormat
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.catalog import find_point


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with a full and two increments."""
    (ram_path / "store").mkdir()
    world = EngineWorld(ram_path / "store")
    for n in range(3):
        world.disk.write(n * 65536, b"x" * 512)
        world.backup()
    return world


def manifests(world: EngineWorld) -> list[Path]:
    return sorted(world.store.path.glob("*/*/*/point.json"))


def test_latest_goes_by_the_order_of_the_points_not_by_the_clock(world: EngineWorld) -> None:
    first = manifests(world)[0]
    point = documents.read(first, "point", Point)
    later = point.taken + timedelta(days=3650)
    documents.write(first, "point", replace(point, taken=later))
    assert find_point(world.store, world.name, "latest").point.seq == 2


def test_latest_is_in_the_chain_that_grows(world: EngineWorld) -> None:
    full = world.backup(force_full=True).point
    assert find_point(world.store, world.name, "latest").point.chain_id == full.chain_id


def test_latest_is_not_an_older_point_if_the_newest_is_damaged(world: EngineWorld) -> None:
    manifests(world)[-1].write_bytes(b"{")
    with pytest.raises(Damaged, match="000002-inc") as raised:
        find_point(world.store, world.name, "latest")
    assert "000001" in raised.value.hint


def test_a_point_without_its_manifest_is_told_as_damaged(world: EngineWorld) -> None:
    manifests(world)[1].unlink()
    (chain,) = world.store.chains(world.vm.uuid)
    with pytest.raises(Damaged, match="000001-inc"):
        find_point(world.store, world.name, f"{chain.directory}/1")


def test_there_is_no_point_of_a_number_that_never_was(world: EngineWorld) -> None:
    (chain,) = world.store.chains(world.vm.uuid)
    with pytest.raises(PointNotFound):
        find_point(world.store, world.name, f"{chain.directory}/3")


def test_a_folder_of_another_vm_that_cannot_be_read_spares_what_a_uuid_names(
    world: EngineWorld,
) -> None:
    other = world.path / "other-12345678"
    other.mkdir()
    (other / "vm.json").write_text('{"format": 9}')
    found = find_point(world.open(), world.vm.uuid, "latest")
    assert (found.vm.directory, found.point.seq) == (manifests(world)[0].parts[-4], 2)
    with pytest.raises(UnsupportedFormat):  # the other VM may have this name by now
        find_point(world.open(), world.name, "latest")
    with pytest.raises(UnsupportedFormat):  # it may be that one
        find_point(world.open(), world.vm.uuid.replace("5", "6"), "latest")
