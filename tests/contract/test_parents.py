"""A point counts only on top of the very point that it was made on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.test_store_care import chain_folder, only
from tests.support.engine_world import EngineWorld
from tests.unit.test_verify import results
from vm_babysitter.adapters.store import documents
from vm_babysitter.domain.point import Point


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """Points 0 to 3; 2 and 3 were moved away, another 2 was made, and 3 is there again."""
    folder = tmp_path / "store"
    folder.mkdir()
    world = EngineWorld(folder)
    for number in range(4):
        world.disk.write(number * 65536, bytes([number + 1]) * 1000)
        world.backup()
    for name in ("000002-inc", "000003-inc"):
        shutil.move(chain_folder(world) / name, tmp_path / name)
    world.disk.write(2 * 65536, b"other")
    assert world.backup().point.seq == 2
    shutil.move(tmp_path / "000003-inc", chain_folder(world))
    return world


def test_a_point_on_another_one_of_the_number_of_its_parent_is_not_good(
    world: EngineWorld,
) -> None:
    (problem,) = only(world).broken.values()
    assert problem == "it was made on another restore point 000002 than the one that is there"
    verified = results(world)
    assert [seq for seq, result in verified.items() if not result.good] == [3]


def test_the_next_backup_goes_on_from_the_newest_that_is_whole(world: EngineWorld) -> None:
    world.disk.write(0, b"new")
    made = world.backup()
    assert (made.point.seq, made.point.parent) == (4, 2)
    assert world.restored(only(world), 4) == bytes(world.disk.content)
    assert results(world)[4].good


def test_once_its_parent_is_back_it_is_good_again(world: EngineWorld, tmp_path: Path) -> None:
    shutil.move(chain_folder(world) / "000002-inc", tmp_path / "the other")
    shutil.move(tmp_path / "000002-inc", chain_folder(world))
    assert only(world).broken == {}


def test_of_points_of_earlier_versions_that_is_not_known(world: EngineWorld) -> None:
    manifest = chain_folder(world) / "000003-inc" / "point.json"
    point = documents.read(manifest, "point", Point)
    documents.write(manifest, "point", replace(point, parent_nonce=""))
    assert only(world).broken == {}
