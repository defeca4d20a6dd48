"""Files of the store that are not what was written."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import three_points, with_store_copied
from tests.support.world import World, unchanged

Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_first_data(path: Path) -> None:
    """Change one bit of a qcow2's first cluster of data."""
    content = bytearray(path.read_bytes())
    l1 = int.from_bytes(content[40:48], "big")
    l2 = int.from_bytes(content[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00
    entries = (int.from_bytes(content[i : i + 8], "big") for i in range(l2, l2 + 65536, 8))
    first = next(entry & 0x00FFFFFFFFFFFE00 for entry in entries if entry > 1)
    content[first + 700] ^= 1
    path.write_bytes(content)


def flip_magic(path: Path) -> None:
    """Have an image no longer look like one."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


def from_the_future(path: Path) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 2}))


SOAK = os.environ.get("VMB_SOAK") == "1"
DAMAGES = [flip, lose, truncate, empty][: None if SOAK else 2]
damages = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and two increments, the data of every disk in all of them."""
    with three_points(libvirtd, tmp_path_factory.mktemp("damage") / "w") as world:
        yield world


@pytest.fixture
def world(house: World, tmp_path: Path) -> Iterator[World]:
    """The same with a copy of its store, to be damaged."""
    with with_store_copied(house, tmp_path / "store") as world:
        yield world


def file_of(world: World, point: int, name: str) -> Path:
    (path,) = world.store.glob(f"*/*/{point:06d}-*/{name}")
    return path


def complains(world: World, *arguments: str, code: int = 12, says: list[str]) -> None:
    """A command fails and changes nothing, neither in the store nor where it was to write.

    But for a verify, which notes the damage that it finds.
    """
    target = world.store.with_name("target")
    to = ["--to", str(target)] if arguments[0] == "restore" else []
    folders = list(world.store.glob("*/*/0*/"))
    with unchanged(*(folders if arguments[0] == "verify" else [world.store]), target):
        done = world.call(*arguments, *to, expect=code)
    for words in says:
        assert words in done.stderr + done.stdout, done.stderr + done.stdout


def goes_on(world: World, *, parent: int) -> None:
    """The next backup builds on the newest point that is whole, and is right.

    It warns of those that are lost.
    """
    made = world.backup(expect=0 if parent == 2 else 3)
    assert bool(made["warnings"]) == (parent != 2)
    assert (made["level"], made["parent"]) == ("inc", parent)
    world.assert_restores(list(world.references)[-1])


# -- the documents --------------------------------------------------------------------------


@damages
def test_store_json_is_not_whole(world: World, damage: Damage) -> None:
    path = world.store / "store.json"
    damage(path)
    if damage is not lose:
        for command in (["backup", "house"], ["points"], ["verify", "house"]):
            complains(world, *command, says=[str(path), "Move this one file away"])
        path.unlink()
    world.call("verify", "house")  # as the message promised
    goes_on(world, parent=2)
    assert path.is_file()


@pytest.mark.parametrize("name", ["store.json", "*/vm.json", "*/*/chain.json", "*/*/0*/point.json"])
def test_a_store_of_a_newer_version_is_left_alone(world: World, name: str) -> None:
    path = max(world.store.glob(name))
    from_the_future(path)
    commands = [["backup", "house"], ["backup", "house", "--full"], ["points"], ["plan", "house"]]
    for command in [*commands, ["verify", "house"], ["restore", "house", "latest"]]:
        says = [str(path), "has format 2", "reads up to 1", "Install a newer version"]
        complains(world, *command, says=says)


@damages
@pytest.mark.parametrize("name", ["*/vm.json", "*/*/chain.json"])
def test_what_the_manifests_tell_too_may_be_lost(world: World, damage: Damage, name: str) -> None:
    (path,) = world.store.glob(name)
    damage(path)
    with unchanged(world.store):
        world.assert_lists(world.references)
        world.call("points", "house")
        world.call("verify", "house", "latest")
    goes_on(world, parent=2)
    json.loads(path.read_text())  # written anew
    assert world.backup("--full")["level"] == "full"
    world.assert_lists(world.references)


def test_a_vm_of_whom_nothing_is_readable_does_not_stop_the_others(world: World) -> None:
    other = world.store / "other-12345678"
    other.mkdir()
    (other / "vm.json").write_text("{}")
    listed = world.call("points")
    assert str(other / "vm.json") in listed.stderr
    assert "passed over" in listed.stderr
    goes_on(world, parent=2)


@damages
def test_the_newest_manifest_is_not_whole(world: World, damage: Damage) -> None:
    damage(file_of(world, 2, "point.json"))
    point = list(world.references)[2]
    listed = world.call("points", "house").stdout
    assert re.search(rf"{point} .*damaged: its manifest point.json", listed)
    complains(world, "verify", "house", says=[f"{point}  BAD: its manifest"])
    complains(world, "restore", "house", point, says=["000002-inc", "its manifest"])
    goes_on(world, parent=1)
    made = list(world.references)[-1]
    assert made.endswith("/000003")  # the number of a damaged point is not used again
    assert file_of(world, 2, "vda.qcow2").exists()


@damages
def test_the_manifest_of_the_full_is_not_whole(world: World, damage: Damage) -> None:
    damage(file_of(world, 0, "point.json"))
    first, second, third = world.references
    complains(world, "verify", "house", says=[f"{first}  BAD", f"{second}  BAD", f"{third}  BAD"])
    complains(world, "restore", "house", third, says=[third, "000000 it builds on cannot be read"])
    made = world.backup(expect=3)
    assert made["level"] == "full"
    world.assert_restores(list(world.references)[-1])


# -- the data -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [flip_first_data, flip_magic, *DAMAGES[1:]],
    ids=lambda damage: damage.__name__,
)
def test_a_disk_of_the_full_is_not_whole(world: World, damage: Damage) -> None:
    damage(file_of(world, 0, "vdb.qcow2"))
    first, second, third = world.references
    for structure in ([], ["--structure"]):
        says = [
            f"{first}  BAD: ",
            f"{second}  BAD: it builds on 000000: ",
            f"{third}  BAD: ",
            "vdb",
        ]
        complains(world, "verify", "house", *structure, says=says)
    for point in (first, third):
        complains(world, "restore", "house", point, says=[point, "is damaged", "vdb", "verify"])
    target = world.store.with_name("one")  # the other disk can still be had
    world.call("restore", "house", third, "--disk", "vda", "--to", str(target))


@damages
def test_an_index_is_not_whole(world: World, damage: Damage) -> None:
    damage(file_of(world, 2, "vda.index"))
    third = list(world.references)[2]
    complains(world, "verify", "house", third, says=[f"{third}  BAD", "vda.index"])
    complains(world, "restore", "house", third, says=[third, "vda.index"])
    goes_on(world, parent=1)


def test_a_saved_file_is_not_whole(world: World) -> None:
    flip(file_of(world, 2, "domain.xml"))
    complains(world, "verify", "house", "latest", says=["domain.xml: its content is not what was"])
    complains(world, "restore", "house", "latest", says=["domain.xml"])


def test_two_files_that_changed_places(world: World) -> None:
    one, other = file_of(world, 2, "vda.qcow2"), file_of(world, 1, "vda.qcow2")
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)
    complains(world, "verify", "house", says=["BAD: vda.qcow2"])
    complains(world, "restore", "house", "latest", says=["vda"])
