"""Restore points are removed, and nothing else, whatever dies half way."""

import shutil
from pathlib import Path

import pytest

from tests.contract.test_store_care import only
from tests.support.engine_world import EngineWorld
from tests.support.killing import each_kill
from vm_babysitter.adapters.store import documents
from vm_babysitter.domain.chain import Removal
from vm_babysitter.domain.errors import InvalidInput


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """A chain of four points; the last builds on the full, because 1 and 2 were damaged."""
    world = EngineWorld(tmp_path)
    for number in range(3):
        world.disk.write(0, bytes([number]) * 1000)
        world.backup()
    lost = path_of(world, "000001-inc") / "vda.qcow2"
    kept = lost.with_name("kept")
    lost.rename(kept)
    world.backup()
    kept.rename(lost)
    return world


def path_of(world: EngineWorld, point: str) -> Path:
    (path,) = world.path.glob(f"*/*/{point}")
    return path


def seqs(world: EngineWorld) -> list[int]:
    return [stored.point.seq for stored in only(world).points]


def remove(world: EngineWorld, *wanted: int) -> None:
    world.open().remove_points(world.vm.uuid, only(world), wanted)


def finish(world: EngineWorld) -> None:
    world.open().finish_removals(world.vm.uuid)


def test_what_is_removed_is_gone_and_the_others_are_whole(world: EngineWorld) -> None:
    before = {path for path in world.path.rglob("*") if "0001-inc" in str(path)}
    remove(world, 1, 2)
    assert seqs(world) == [0, 3]
    assert only(world).broken == {}
    assert only(world).removals == ()
    assert not any(path.exists() for path in before)
    assert not [path for path in world.path.rglob("*") if "removal" in path.name]
    made = world.backup()
    assert (made.point.seq, made.point.parent) == (4, 3)
    assert world.restored(only(world), 4) == bytes(world.disk.content)


def test_killed_anywhere_it_is_finished_by_the_next(world: EngineWorld, tmp_path: Path) -> None:
    copy = tmp_path.with_name(f"{tmp_path.name} whole")
    shutil.copytree(world.path, copy)
    count = 0
    for _ in each_kill(lambda: remove(world, 1, 2)):
        count += 1
        chain = only(world)
        assert chain.unreadable == ()
        assert chain.broken == {}  # what is half gone is not taken for a point, nor for damage
        assert {0, 3} <= set(seqs(world))
        leaving = {removal.seq for removal in chain.removals}
        assert not leaving & set(seqs(world))
        for _ in each_kill(lambda: finish(world)):
            assert {0, 3} <= set(seqs(world))
            assert only(world).broken == {}
        finish(world)
        assert only(world).removals == ()
        assert not [path for path in world.path.rglob("*") if "removal.json" in path.name]
        assert world.restored(only(world), 3) == bytes(world.disk.content)
        shutil.rmtree(world.path)
        shutil.copytree(copy, world.path)
    assert count > 8
    shutil.rmtree(copy)


def test_files_of_others_stay_and_do_not_trouble_anybody(world: EngineWorld) -> None:
    place = path_of(world, "000002-inc")
    (place / "my notes.txt").write_text("mine")
    (place / "vda.qcow2.bak").write_text("mine")
    remove(world, 1, 2)
    assert sorted(path.name for path in place.iterdir()) == ["my notes.txt", "vda.qcow2.bak"]
    chain = only(world)
    assert (seqs(world), chain.unreadable, chain.broken) == ([0, 3], (), {})
    assert [removal.done for removal in chain.removals] == [True]
    for _ in range(2):
        finish(world)
        assert world.backup().left == ""
    shutil.rmtree(place)
    finish(world)
    assert only(world).removals == ()


def test_a_number_whose_folder_is_still_there_is_not_given_again(world: EngineWorld) -> None:
    place = path_of(world, "000003-inc")
    (place / "my notes.txt").write_text("mine")
    remove(world, 3)
    assert only(world).next_seq == 4
    world.backup()


@pytest.mark.parametrize("wanted", [(0,), (0, 1, 2), (1,), (0, 3), (7,), (3, 7)])
def test_what_something_builds_on_or_is_not_there_is_refused(
    world: EngineWorld, wanted: tuple[int, ...]
) -> None:
    before = sorted(world.path.rglob("*"))
    with pytest.raises(InvalidInput):
        remove(world, *wanted)
    assert sorted(world.path.rglob("*")) == before


def test_the_store_is_asked_again_and_not_the_chain_that_was_read_before(
    world: EngineWorld,
) -> None:
    stale = only(world)
    world.disk.write(0, b"new")
    world.backup()
    with pytest.raises(InvalidInput):
        world.open().remove_points(world.vm.uuid, stale, (3,))


def test_a_damaged_mark_removes_nothing(world: EngineWorld) -> None:
    place = path_of(world, "000002-inc")
    place.with_name("000002-inc.removal.json").write_text("{}")
    finish(world)
    assert seqs(world) == [0, 1, 2, 3]
    place.with_name("000002-inc.removal.json").unlink()


def test_a_chain_of_which_all_is_removed_goes_with_its_last_point(world: EngineWorld) -> None:
    remove(world, 0, 1, 2, 3)
    world.open().remove_empty_chains(world.vm.uuid)
    assert world.chains() == ()
    assert world.backup().point.level == "full"


def test_a_mark_that_names_a_file_outside_removes_nothing(world: EngineWorld) -> None:
    outside = world.path / "outside"
    outside.write_text("mine")
    point = only(world).points[-1].point
    removal = Removal(point.seq, point.level, point.nonce, ("../../../outside",))
    place = path_of(world, "000003-inc")
    documents.write(place.with_name("000003-inc.removal.json"), "removal", removal)
    finish(world)
    assert outside.read_text() == "mine"
    assert seqs(world) == [0, 1, 2, 3]
