"""Cases in which a backup once gave, or would give, wrong data with success.

More of them, about which bitmap is believed, are in ``test_trust``. The judge is always the same:
every point restores what the disks held at its moment.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from lxml import etree

from tests.support.faulty import Fault
from tests.support.inotify import opened_for_writing
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import image_map, named, run
from tests.support.stage import newest
from tests.support.stopped import stopped_backup
from tests.support.vm import MIB, DiskSpec
from tests.support.world import Json, World
from vm_babysitter.domain.point import bitmap_name

KIB = 1024
SIZE = 8 * MIB
DISK_ONLY, NO_METADATA = 16, 4
TWINS = (DiskSpec("vda", size=SIZE), DiskSpec("vdb", size=SIZE))


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM with two disks of one size, both full of different data, and its first backup."""
    with closing(World(libvirtd, tmp_path / "w", disks=TWINS)) as world:
        world.vm.write("vda", 0, SIZE, 0xA1)
        world.vm.write("vdb", 0, SIZE, 0xB1)
        world.backup()
        yield world


@contextmanager
def switched_off(world: World) -> Iterator[None]:
    """The VM is off in the context; QEMU ends in good order and stores its bitmaps."""
    world.vm.stop()
    yield
    world.boot()


def copy_into(source: Path, target: Path) -> None:
    """Give a file the content of another one; it stays the same file."""
    with source.open("rb") as content, target.open("r+b") as file:
        file.truncate()
        shutil.copyfileobj(content, file)


def methods(made: Json) -> list[str]:
    return [disk["method"] for disk in made["disks"]]


def all_restore(world: World) -> None:
    """Every point restores what the disks held."""
    for point in world.references:
        world.assert_restores(point)
    world.assert_vm_unharmed()


# -- one disk is another's image (finding 1) ---------------------------------------------------


def test_disks_that_changed_places_in_the_definition_are_compared_as_a_whole(world: World) -> None:
    definition = etree.fromstring(str(world.host.call("xml", world.vm.name, True)))
    one, other = definition.findall("devices/disk[@type='file']/source")
    paths = one.get("file", ""), other.get("file", "")
    assert set(paths) == {str(path) for path in world.vm.paths.values()}
    other.set("file", paths[0])
    one.set("file", paths[1])
    with switched_off(world):
        world.vm.define(etree.tostring(definition, encoding="unicode"))
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    assert methods(world.backup()) == ["scan", "scan"]
    all_restore(world)


def test_an_image_copied_over_another_in_place_is_noticed(world: World) -> None:
    with switched_off(world):
        # The bitmaps of both have one name, and file and inode stay those of vdb.
        copy_into(world.vm.paths["vda"], world.vm.paths["vdb"])
    world.vm.write("vdb", 1 * MIB, 64 * KIB, 0xC1)
    assert methods(world.backup()) == ["bitmap", "scan"]
    all_restore(world)


# -- the disk shrank and grew back (finding 2); live: test_trust ---------------------------------


def test_a_disk_that_shrank_and_grew_back_while_off_is_caught(world: World) -> None:
    image = named(world.vm.paths["vda"])
    with switched_off(world):
        run("qemu-img", "resize", "--shrink", image, str(SIZE // 2))
        run("qemu-img", "resize", image, str(SIZE))
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    made = world.backup(expect=3)
    assert methods(made) == ["scan", "bitmap"]
    assert "missed a change at byte 4194304" in made["warnings"][0]
    all_restore(world)


# -- layers (finding 3) ------------------------------------------------------------------------


def snapshot(world: World, overlay: Path) -> None:
    text = (
        "<domainsnapshot><disks><disk name='vda' snapshot='external'>"
        f"<source file={quoteattr(str(overlay))}/></disk><disk name='vdb' snapshot='no'/></disks>"
        "</domainsnapshot>"
    )
    world.host.call("snapshot", world.vm.name, text, DISK_ONLY | NO_METADATA)


def merge(world: World) -> None:
    world.host.call("commit", world.vm.name, "vda")
    world.host.call("pivot", world.vm.name, "vda")


def test_a_snapshot_that_came_and_went_between_two_points(world: World) -> None:
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    snapshot(world, world.disks / "overlay")
    world.vm.write("vda", 2 * MIB, 64 * KIB, 0xC2)
    world.vm.write("vda", 1 * MIB, 4 * KIB, 0xC3)
    world.vm.zero("vda", 5 * MIB, 64 * KIB)
    merge(world)
    world.vm.write("vda", 3 * MIB, 64 * KIB, 0xC4)
    assert methods(world.backup()) == ["bitmap", "bitmap"]
    all_restore(world)


def test_points_are_made_before_during_and_after_a_snapshot(world: World) -> None:
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    snapshot(world, world.disks / "overlay")
    world.vm.write("vda", 2 * MIB, 64 * KIB, 0xC2)
    assert methods(world.backup()) == ["scan", "bitmap"]
    world.vm.write("vda", 3 * MIB, 64 * KIB, 0xC3)
    merge(world)
    world.vm.write("vda", 4 * MIB, 64 * KIB, 0xC4)
    assert methods(world.backup()) == ["scan", "bitmap"]
    world.vm.write("vda", 5 * MIB, 64 * KIB, 0xC5)
    assert methods(world.backup()) == ["bitmap", "bitmap"]
    all_restore(world)


def test_a_layer_that_was_added_and_merged_while_off(world: World) -> None:
    base, overlay = world.vm.paths["vda"], world.disks / "overlay.qcow2"
    definition = str(world.host.call("xml", world.vm.name, True))
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    with switched_off(world):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(overlay))
        world.vm.define(definition.replace("vda.qcow2", "overlay.qcow2"))
    world.vm.write("vda", 2 * MIB, 64 * KIB, 0xC2)
    with switched_off(world):
        run("qemu-img", "commit", "-q", named(overlay))
        world.vm.define(definition)
    world.vm.write("vda", 3 * MIB, 64 * KIB, 0xC3)
    world.backup()
    all_restore(world)


# -- image locks do not hold everywhere (finding 4) ----------------------------------------------


def test_no_image_of_a_vm_is_ever_opened_for_writing(world: World) -> None:
    name = ["--", world.vm.name]
    images = set(world.vm.paths.values())
    with opened_for_writing(world.disks) as writes:
        with world.vm.paths["vda"].open("r+b"):
            pass
        assert writes.seen() == [world.vm.paths["vda"]]  # so this would be seen
        world.call("vms")
        world.call("plan", *name)
        world.backup()
        world.backup("--full")
        world.call("backup", *name, faults=[Fault("fail", "step", "commit")], expect=1)
        world.call("verify", *name)
        world.call("restore", "--to", str(world.folder / "restored"), *name, "latest")
        seen = writes.seen()
        assert {path.suffix for path in seen} == {".probe", ".scratch"}  # QEMU's and ours
        assert not images & set(seen)
        world.vm.stop()
        assert images <= set(writes.seen())  # this was QEMU
        world.call("plan", *name)
        world.backup()
        assert not writes.seen()  # its bitmaps serve, so it needs no new ones


# -- a bitmap's name means one moment (finding 5) ------------------------------------------------


def test_the_name_of_a_dead_attempts_bitmap_is_never_used_again(world: World) -> None:
    image, copy = world.vm.paths["vda"], world.folder / "copy"
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    world.die(Fault("die", "progress"))
    (mark,) = world.store.glob("*/*/*.attempt.json")
    dead = json.loads(mark.read_text())["body"]["checkpoint"]
    with switched_off(world):
        shutil.copyfile(image, copy)  # holds the bitmap of an attempt that came to nothing
    world.vm.write("vda", 2 * MIB, 64 * KIB, 0xC2)
    made = world.backup()
    assert made["checkpoint"]["name"] != dead
    assert dead in run("qemu-img", "info", named(copy))
    with switched_off(world):
        copy_into(copy, image)
    world.vm.write("vda", 3 * MIB, 64 * KIB, 0xC3)
    world.backup()
    all_restore(world)


def test_a_bitmap_of_that_name_but_of_another_moment_is_found_by_reading(world: World) -> None:
    image = named(world.vm.paths["vda"])
    name = bitmap_name(_checkpoint(world, newest(world)), "vda")
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    with switched_off(world):  # by force: no program of ours makes a name twice
        run("qemu-img", "bitmap", "--remove", image, name)
        run("qemu-img", "bitmap", "--add", image, name)
    finds_by_reading(world, 1 * MIB)


# -- what change tracking missed altogether (finding 6) -------------------------------------------


def change_behind_qemus_back(world: World, offset: int) -> None:
    """Change data of vda in its file, as a bad disk or another program does."""
    world.vm.stop()
    image = world.vm.paths["vda"]
    (entry,) = [e for e in image_map(image) if e["start"] <= offset < e["start"] + e["length"]]
    assert entry["data"]
    with image.open("r+b") as file:
        file.seek(entry["offset"] + offset - entry["start"])
        file.write(b"\xee" * 512)
    world.boot()


def finds_by_reading(world: World, offset: int) -> None:
    """A backup that reads all that is unchanged finds what is not, and says where."""
    made = world.backup("--reread-runs", "1", expect=3)
    assert methods(made) == ["scan", "bitmap"]
    (warning,) = made["warnings"]
    assert "disk vda" in warning
    assert str(offset) in warning
    world.assert_restores(newest(world))


def test_a_change_that_tracking_missed_is_found_by_reading_everything_again(world: World) -> None:
    change_behind_qemus_back(world, 3 * MIB + 64 * KIB)
    finds_by_reading(world, 3 * MIB + 64 * KIB)


@pytest.mark.parametrize("offset", [0, 5 * MIB + 192 * KIB, SIZE - 512])
def test_a_change_that_tracking_missed_is_found_within_as_many_runs_as_promised(
    world: World, offset: int
) -> None:
    change_behind_qemus_back(world, offset)
    ends = []
    for run_number in range(4):
        world.vm.write("vda", 1 * MIB, 4 * KIB, 0xC1 + run_number)
        copies = world.copies()
        arguments = ("backup", "--reread-runs", "4", "--json", "--", world.vm.name)
        with world.start(*arguments) as process:
            out, _ = process.communicate(timeout=60)
        ends.append(process.returncode)
        assert process.returncode in {0, 3}
        world.references[json.loads(out)["point"]] = copies
    assert ends.count(3) == 1
    world.assert_restores(newest(world))  # those made before it was found inherit the old block


# -- working space that is used twice (finding 18) -------------------------------------------------


def test_a_file_in_the_place_of_the_working_space_is_never_taken_over(world: World) -> None:
    world.vm.write("vda", 1 * MIB, 64 * KIB, 0xC1)
    with stopped_backup(world, Fault("stop", "step", "begin")) as backup:
        (mark,) = world.store.glob("*/*/*.attempt.json")
        attempt = json.loads(mark.read_text())["body"]
        for path in attempt["scratch"]:
            assert attempt["nonce"] in Path(path).name
            run("qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE))
        backup.go_on(expect=1)
    world.assert_lists(world.references)
    world.assert_tidy()
    assert methods(world.backup()) == ["bitmap", "bitmap"]
    all_restore(world)


def _checkpoint(world: World, point: str) -> str:
    chain, seq = point.split("/")
    (manifest,) = world.store.glob(f"*/{chain}/{seq}-*/point.json")
    return str(json.loads(manifest.read_text())["body"]["checkpoint"]["name"])
