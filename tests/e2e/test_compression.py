"""Compressed restore points, alone and mixed with others."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.no_zstd import without_zstd
from tests.support.qemu_img import assert_clean, named, run
from tests.support.vm import MIB
from tests.support.world import Json, World


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM whose disks hold much that shrinks and some that does not."""
    with closing(World(libvirtd, tmp_path / "w")) as world:
        for position in range(0, 12, 2):
            world.vm.write("vda", position * MIB, 2 * MIB, 0x40 + position)
        world.change()
        yield world


def ways(made: Json) -> set[str]:
    """How the images of a point are compressed."""
    return {disk["compression"] for disk in made["disks"]}


def compressed_clusters(world: World) -> list[int]:
    """How many clusters QEMU finds compressed in each image, the oldest first."""
    found = []
    for image in sorted(world.store.rglob("vda.qcow2")):
        assert_clean(image)
        report = json.loads(run("qemu-img", "check", "--output=json", named(image)))
        found.append(report.get("compressed-clusters", 0))
    return found


def all_right(world: World) -> None:
    """Every point is good, and restores to what the disks held."""
    world.assert_lists(world.references)
    for point in world.references:
        world.assert_restores(point)
    world.call("verify", "--", world.vm.name)
    world.assert_tidy()
    world.assert_vm_unharmed()


def test_compressed_points_and_others_mix_in_a_chain(world: World) -> None:
    full = world.backup("--compress")
    assert (full["level"], ways(full)) == ("full", {"zstd"})
    vda = full["disks"][0]
    assert vda["file_size"] < 0.7 * vda["written_bytes"]
    for options, way in [((), ""), (("--compress",), "zstd"), ((), "")]:
        world.change()
        made = world.backup(*options)
        assert (made["level"], ways(made)) == ("inc", {way})
    counts = compressed_clusters(world)
    assert [bool(count) for count in counts] == [True, False, True, False]
    all_right(world)


def test_where_qemu_lacks_zstd_it_is_zlib_and_the_user_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", without_zstd(tmp_path / "bin"))
    copies = world.copies()
    done = world.call("backup", "--compress", "--json", "--", world.vm.name)
    made = json.loads(done.stdout)
    world.references[made["point"]] = copies
    assert "does not read what is compressed with zstd" in done.stderr
    assert ways(made["manifest"]) == {"zlib"}
    assert made["stored_bytes"] < sum(d["written_bytes"] for d in made["manifest"]["disks"])
    world.change()
    assert ways(world.backup("--compress")) == {"zlib"}
    all_right(world)


def test_killed_in_the_middle_the_next_one_goes_on(world: World) -> None:
    world.backup()
    world.change()
    world.die(Fault("die", "progress", "", 3), options=["--compress"])
    assert ways(world.backup("--compress")) == {"zstd"}
    all_right(world)


def test_a_full_that_fits_only_compressed_is_made_and_one_that_does_not_is_undone(
    world: World,
) -> None:
    world.vm.write("vda", 0, 28 * MIB, 0x5A)
    store = world.store
    with ram_disk(world.folder / "small", 24 * MIB) as small:
        world.store = small
        world.call("backup", "--", world.vm.name, expect=1)
        done = world.call("backup", "--compress", "--", world.vm.name)
        assert "The backup goes on because it may shrink to that" in done.stderr
        assert "compressed with zstd" in done.stdout
        done = world.call("backup", "--compress", "--full", "--", world.vm.name)
        (small / "ballast").write_bytes(bytes(shutil.disk_usage(small).free - MIB))
        done = world.call("backup", "--compress", "--full", "--", world.vm.name, expect=1)
        assert "No space left" in done.stderr
        assert len(world.chains()) == 2
        world.assert_vm_unharmed()
    world.store = store
