"""What people do to a backup folder: copies, other names, files of theirs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.killing import each_kill
from tests.unit.test_verify import results
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.oddity import OddityKind
from vm_babysitter.engine.catalog import find_vm


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """A chain of three points."""
    folder = tmp_path / "store"
    folder.mkdir()
    world = EngineWorld(folder, reread_runs=0)
    for number in range(3):
        world.disk.write(0, bytes([number + 1]) * 1000)
        world.backup()
    return world


def vm_folder(world: EngineWorld) -> Path:
    (path,) = {path.parent for path in world.path.glob("*-*/vm.json")}
    return path


def chain_folder(world: EngineWorld) -> Path:
    (path,) = world.path.glob("*/20*Z")
    return path


def kinds(world: EngineWorld) -> list[OddityKind]:
    return [oddity.kind for oddity in world.open().oddities(world.vm.uuid)]


def only(world: EngineWorld) -> Chain:
    (chain,) = world.chains()
    return chain


def goes_on(world: EngineWorld) -> None:
    """All points are there, the next builds on the newest of them, and all verify."""
    before = [point.seq for point in world.points()]
    world.disk.write(65536, os.urandom(100))
    made = world.backup()
    assert made.point.parent == before[-1]
    assert made.left == ""
    (chain,) = (chain for chain in world.chains() if chain.directory == made.chain)
    assert world.restored(chain, made.point.seq) == bytes(world.disk.content)
    assert world.leftovers() == []
    assert all(result.good for result in results(world).values())


# -- copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["000 copy", "zzz copy", "a\nb", "caf\udce9"])
def test_a_copy_of_a_vms_folder_is_told_and_left_alone(world: EngineWorld, name: str) -> None:
    original = vm_folder(world)
    copy = shutil.copytree(original, original.with_name(name))
    before = sorted(copy.rglob("*"))
    assert find_vm(world.open(), world.name).directory == original.name
    assert kinds(world) == [OddityKind.COPIED_VM]
    goes_on(world)
    assert sorted(copy.rglob("*")) == before
    (oddity,) = world.open().oddities(world.vm.uuid)
    oddity.reason.encode()
    assert "move the other folder away" in oddity.way_out
    shutil.rmtree(original)  # then the copy is what there is
    world.store = world.open()
    assert [point.seq for point in world.points()] == [0, 1, 2]


def test_of_two_folders_that_both_have_other_names_the_one_with_more_in_it_counts(
    world: EngineWorld,
) -> None:
    original, chain = vm_folder(world), chain_folder(world).name
    old = shutil.copytree(original, original.with_name("1"))
    shutil.rmtree(old / chain / "000002-inc")
    original.rename(original.with_name("2"))
    assert [vm.directory for vm in world.open().vms()] == ["2"]
    assert len(world.points()) == 3


def test_a_copy_of_a_chains_folder_is_told_and_left_alone(world: EngineWorld) -> None:
    original = chain_folder(world)
    copy = shutil.copytree(original, original.with_name("before the upgrade"))
    assert kinds(world) == [OddityKind.COPIED_CHAIN]
    assert only(world).directory == original.name
    before = sorted(copy.rglob("*"))
    goes_on(world)
    assert sorted(copy.rglob("*")) == before


def test_a_copy_made_during_a_backup_does_not_undo_that_backup_later(world: EngineWorld) -> None:
    original = chain_folder(world)
    copy = original.with_name("copied meanwhile")
    world.observer.at["copy"] = lambda: (shutil.copytree(original, copy), None)[1]
    made = world.backup()
    del world.observer.at["copy"]
    assert list(copy.glob("*.attempt.json"))
    assert made.point.checkpoint is not None
    goes_on(world)
    assert made.point.checkpoint.bitmap("vda") in world.bitmaps()
    assert list(copy.glob("*.attempt.json"))


def test_a_copied_point_is_told_and_its_number_not_given_again(world: EngineWorld) -> None:
    folder = chain_folder(world)
    shutil.copytree(folder / "000001-inc", folder / "000003-inc")
    shutil.copytree(folder / "000001-inc", folder / "000001-inc (copy)")
    assert kinds(world) == [OddityKind.COPIED_POINT] * 2
    assert only(world).unreadable == ()
    assert only(world).next_seq == 4
    goes_on(world)


def test_a_chain_or_point_of_others_is_told_and_never_built_on(world: EngineWorld) -> None:
    mine = chain_folder(world)
    other = EngineWorld(world.path, hypervisor=world.hypervisor, name="another")
    other.backup()
    theirs = next(path for path in world.path.glob("another*/20*Z"))
    shutil.copytree(theirs, mine.with_name("20990101T000000Z"))
    shutil.copytree(theirs / "000000-full", mine / "from another")
    assert kinds(world) == [OddityKind.OTHER_VMS_CHAIN, OddityKind.OTHER_CHAINS_POINT]
    assert [chain.directory for chain in world.chains()] == [mine.name]
    goes_on(world)


# -- other names ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1 old, \"my\" 'VM'", "-rf", "猫", ".hidden"])
@pytest.mark.parametrize("what", [vm_folder, chain_folder])
def test_a_folder_may_have_another_name(
    world: EngineWorld, what: Callable[[EngineWorld], Path], name: str
) -> None:
    folder = what(world)
    folder.rename(folder.with_name(name))
    world.store = world.open()
    assert kinds(world) == []
    assert len(world.points()) == 3
    goes_on(world)
    made = world.backup(force_full=True)
    assert made.chain != name
    assert [chain.why != "" for chain in world.chains()] == [True, False]


def test_the_whole_backup_folder_may_move(world: EngineWorld) -> None:
    new = world.path.with_name("elsewhere, é")
    world.path.rename(new)
    world.path = new
    world.store = world.open()
    goes_on(world)


@pytest.mark.parametrize("name", ["000007-inc", "mine", "000001-full"])
def test_a_point_gets_its_name_back(world: EngineWorld, name: str) -> None:
    folder = chain_folder(world)
    (folder / "000001-inc").rename(folder / name)
    assert kinds(world) == [OddityKind.RENAMED_POINT]
    chain = only(world)
    assert (chain.broken, chain.unreadable) == ({}, ())
    assert [each.folder for each in chain.renamed] == [name]
    assert all(result.good for result in results(world).values())  # even before
    goes_on(world)
    assert (folder / "000001-inc").is_dir()
    assert not (folder / name).exists()
    assert kinds(world) == []


def swap(folder: Path) -> None:
    (folder / "000001-inc").rename(folder / "x")
    (folder / "000002-inc").rename(folder / "000001-inc")
    (folder / "x").rename(folder / "000002-inc")


def move_up(folder: Path) -> None:
    (folder / "000002-inc").rename(folder / "000003-inc")
    (folder / "000001-inc").rename(folder / "000002-inc")


@pytest.mark.parametrize("move", [swap, move_up])
def test_points_that_took_each_others_names_get_theirs_back_whatever_dies(
    world: EngineWorld, tmp_path: Path, move: Callable[[Path], None]
) -> None:
    folder = chain_folder(world)
    move(folder)
    copy = shutil.copytree(folder, tmp_path / "kept")

    def put_back() -> None:
        world.open().put_back(world.vm.uuid, only(world))

    count = 0
    for _ in each_kill(put_back):
        count += 1
        assert [point.seq for point in world.points()] == [0, 1, 2]
        assert only(world).broken == {}
        put_back()
        assert only(world).renamed == ()
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    assert count > 1
    goes_on(world)


def test_a_point_whose_name_is_taken_by_a_damaged_one_stays_a_copy(world: EngineWorld) -> None:
    folder = chain_folder(world)
    shutil.copytree(folder / "000001-inc", folder / "a copy")
    (folder / "000001-inc" / "point.json").write_text("torn")
    assert kinds(world) == [OddityKind.COPIED_POINT]
    assert [each.seq for each in only(world).unreadable] == [1]
    made = world.backup()
    assert made.point.parent == 0
    assert (folder / "a copy").is_dir()


# -- files of others ------------------------------------------------------------------------


def test_files_of_others_are_told_and_stay(world: EngineWorld) -> None:
    folder = chain_folder(world)
    places = [world.path, folder.parent, folder, folder / "000001-inc"]
    made = []
    for place in places:
        for name in ("notes.txt", "-rf", "a\nb", "caf\udce9"):
            made.append(place / name)
            made[-1].write_text("mine")
        made += [place / "deep", place / "to nowhere", place / "pipe"]
        (place / "deep" / "er").mkdir(parents=True)
        (place / "to nowhere").symlink_to("nowhere")
        os.mkfifo(place / "pipe")
        (place / ".DS_Store").touch()
        (place / "@eaDir").mkdir()
    (folder / "000009-inc").touch()  # a file, named like a point
    assert kinds(world) == [OddityKind.FOREIGN] * 3
    (oddity,) = world.open().oddities()
    assert oddity.kind is OddityKind.FOREIGN
    assert "the backup folder holds files or folders of others" in oddity.reason
    assert "and 4 more" in oddity.reason
    goes_on(world)
    assert all(path.is_symlink() or path.exists() for path in made)


def test_times_of_files_mean_nothing(world: EngineWorld) -> None:
    for number, path in enumerate(sorted(world.path.rglob("*"))):
        os.utime(path, (2_000_000_000 - number, 2_000_000_000 - number))
    goes_on(world)


# -- a clock that goes back -----------------------------------------------------------------


def test_a_new_chain_is_younger_than_the_one_it_replaces_though_the_clock_went_back(
    world: EngineWorld,
) -> None:
    world.clock.advance(-86400 * 365)
    made = world.backup(force_full=True)
    old, new = world.chains()
    assert new.directory == made.chain
    assert old.why
    assert world.backup().chain == new.directory
