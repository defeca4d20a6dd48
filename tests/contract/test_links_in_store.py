"""Links, pipes and swapped folders in a backup folder: root neither removes nor writes by them."""

import os
import shutil
from pathlib import Path

import pytest

from tests.contract.test_image_headers import HEADERS, image
from tests.contract.test_removing import seqs
from tests.contract.test_store_care import chain_folder, only
from tests.support.engine_world import EngineWorld
from vm_babysitter.adapters.qemu.image_headers import FileImageHeaders
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER
from vm_babysitter.adapters.store import documents
from vm_babysitter.adapters.store.probe import LocalProbe
from vm_babysitter.domain.chain import Removal
from vm_babysitter.domain.errors import InvalidInput, StoreFailed


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """A chain of three points."""
    folder = tmp_path / "store"
    folder.mkdir()
    world = EngineWorld(folder)
    for number in range(3):
        world.disk.write(0, bytes([number + 1]) * 1000)
        world.backup()
    return world


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- removing points --------------------------------------------------------------------------


def test_a_mark_beside_a_link_removes_nothing_behind_it(world: EngineWorld, tmp_path: Path) -> None:
    outside = tmp_path / "etc"
    outside.mkdir()
    for name in ("passwd", "point.json"):
        (outside / name).write_text("not ours")
    before = content(outside)
    place = chain_folder(world)
    (place / "000007-inc").symlink_to(outside)
    removal = Removal(7, "inc", "abcdef", ("passwd",))
    documents.write(place / "000007-inc.removal.json", "removal", removal)
    world.backup()
    assert content(outside) == before
    assert (place / "000007-inc").is_symlink()
    assert seqs(world) == [0, 1, 2, 8]
    world.backup()


def test_a_point_that_somebody_moved_and_linked_is_not_removed_there(
    world: EngineWorld, tmp_path: Path
) -> None:
    place = chain_folder(world) / "000002-inc"
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path / "elsewhere")
    assert seqs(world) == [0, 1, 2]
    world.open().remove_points(world.vm.uuid, only(world), (2,))
    assert seqs(world) == [0, 1]
    assert content(tmp_path / "elsewhere") == before
    assert place.is_symlink()
    world.backup()
    assert seqs(world) == [0, 1, 3]


def test_a_mark_does_not_remove_another_point_in_the_same_folder(
    world: EngineWorld, tmp_path: Path
) -> None:
    place = chain_folder(world) / "000002-inc"
    mark = place.with_name("000002-inc.removal.json")
    documents.write(mark, "removal", Removal(2, "inc", "abcdef", ("vda.qcow2", "vda.index")))
    before = content(place)
    assert seqs(world) == [0, 1, 2]
    world.disk.write(0, b"new")
    assert world.backup().point.parent == 2
    assert content(place) == before
    assert world.restored(only(world), 3) == bytes(world.disk.content)
    world.open().remove_points(world.vm.uuid, only(world), (2, 3))
    assert seqs(world) == [0, 1]
    assert not mark.exists()


def test_of_points_that_have_each_others_folders_neither_is_removed(world: EngineWorld) -> None:
    one, two = (chain_folder(world) / name for name in ("000001-inc", "000002-inc"))
    before = content(one)
    one.rename(one.with_name("aside"))
    two.rename(one)
    one.with_name("aside").rename(two)
    with pytest.raises(InvalidInput, match="repair"):
        world.open().remove_points(world.vm.uuid, only(world), (2,))
    assert content(two) == before
    assert seqs(world) == [0, 1, 2]


# -- undoing attempts -------------------------------------------------------------------------


def test_an_attempt_whose_folder_became_a_link_is_undone_and_the_link_stays(
    world: EngineWorld, tmp_path: Path
) -> None:
    world.backup_killed_at("copy")
    place = chain_folder(world) / "000003-inc"
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path / "elsewhere")
    made = world.backup()
    assert made.point.parent == 2
    assert made.left == ""
    assert content(tmp_path / "elsewhere") == before
    assert place.is_symlink()


def test_a_link_named_like_a_series_is_not_emptied(world: EngineWorld, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "chain.json").write_text("not ours")
    link = chain_folder(world).with_name("20200101T000000Z")
    link.symlink_to(outside)
    assert world.backup().left == ""
    assert (outside / "chain.json").read_text() == "not ours"
    assert link.is_symlink()


# -- the lock ---------------------------------------------------------------------------------


def test_the_lock_is_not_made_behind_a_link(world: EngineWorld, tmp_path: Path) -> None:
    (world.path / "store.lock").unlink()
    (world.path / "store.lock").symlink_to(tmp_path / "made by root")
    with pytest.raises(StoreFailed), world.open().lock():
        pass
    assert not (tmp_path / "made by root").exists()


# -- putting headers back ---------------------------------------------------------------------


@pytest.mark.parametrize("folder", [True, False])
def test_no_header_is_written_through_a_link(tmp_path: Path, folder: bool) -> None:
    point, elsewhere = tmp_path / "000000-full", tmp_path / "elsewhere"
    path = point / "vda.qcow2"
    point.mkdir()
    disk = image(path)
    moved = point if folder else path
    moved.rename(elsewhere)
    moved.symlink_to(elsewhere)
    outside = path.resolve()
    wrong = bytes(CLUSTER) + outside.read_bytes()[CLUSTER:]
    outside.write_bytes(wrong)
    assert HEADERS.problem(path, disk)
    assert not HEADERS.mend(path, disk)
    assert outside.read_bytes() == wrong


def test_no_header_is_written_where_the_folder_became_a_link_during_the_check(
    tmp_path: Path,
) -> None:
    point, elsewhere = tmp_path / "000000-full", tmp_path / "elsewhere"
    path = point / "vda.qcow2"
    point.mkdir()
    disk = image(path)
    wrong = bytes(CLUSTER) + path.read_bytes()[CLUSTER:]
    path.write_bytes(wrong)

    def exchange(_amount: int) -> None:
        if not elsewhere.exists():
            point.rename(elsewhere)
            point.symlink_to(elsewhere)

    with pytest.raises(StoreFailed):
        FileImageHeaders().mend(path, disk, exchange)
    assert path.read_bytes() == wrong


@pytest.mark.parametrize("link", [True, False])
def test_no_header_is_written_into_what_was_put_there_during_the_check(
    tmp_path: Path, link: bool
) -> None:
    path, outside = tmp_path / "vda.qcow2", tmp_path / "somebody's disk"
    disk = image(path)
    with path.open("r+b") as file:
        file.write(bytes(CLUSTER))
    outside.write_bytes(b"precious" * 20000)

    def exchange(_amount: int) -> None:
        path.unlink(missing_ok=True)
        if link:
            path.symlink_to(outside)
        else:
            path.hardlink_to(outside)

    with pytest.raises(StoreFailed):
        FileImageHeaders().mend(path, disk, exchange)
    assert outside.read_bytes() == b"precious" * 20000


# -- pipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [True, False])
def test_nobody_waits_at_a_pipe(world: EngineWorld, image: bool) -> None:
    store, (chain,) = world.open(), world.chains()
    point = chain.points[0].point
    path = store.file_path(world.vm.uuid, chain, point, "vda.index")
    path.unlink()
    os.mkfifo(path)
    found = store.check_file(path, "0" * 64, image=image)
    assert (found.wrong, found.evidence) == ("it is no file", False)


# -- what others put there in the same moment ----------------------------------------------------


def test_a_folder_that_is_there_before_an_attempt_is_not_undone_with_it(world: EngineWorld) -> None:
    theirs = chain_folder(world) / "000003-inc" / "vda.qcow2"

    def put() -> None:
        theirs.parent.mkdir()
        theirs.write_text("being copied back")

    world.observer.at["mark"] = put  # after the number was chosen
    with pytest.raises(StoreFailed):
        world.backup()
    assert theirs.read_text() == "being copied back"
    del world.observer.at["mark"]
    assert world.backup().point.seq == 4
    assert theirs.read_text() == "being copied back"


def test_a_folder_in_the_place_of_a_file_does_not_keep_backups_from_going_on(
    world: EngineWorld,
) -> None:
    index = chain_folder(world) / "000002-inc" / "vda.index"
    index.unlink()
    index.mkdir()
    world.open().remove_points(world.vm.uuid, only(world), (2,))
    assert [path.name for path in index.parent.iterdir()] == ["vda.index"]
    assert world.backup().point.parent == 1


# -- trying a place ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sparse", "big", "speed"])
def test_a_place_is_not_tried_through_links(
    world: EngineWorld, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "precious"
    outside.write_text("not ours")
    mkdir = os.mkdir

    def plant(path: Path, *arguments: int) -> None:
        """Be as quick as somebody who watches the folder."""
        mkdir(path, *arguments)
        if Path(path).name.startswith(".vmb-check-"):
            (Path(path) / name).symlink_to(outside)

    monkeypatch.setattr(os, "mkdir", plant)
    LocalProbe(world.host, world.clock, allow_ram=True).look(world.path)
    assert outside.read_text() == "not ours"
