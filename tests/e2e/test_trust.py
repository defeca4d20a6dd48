"""Which bitmaps are believed: each case here once gave, or would give, wrong data."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.libvirt_host import LibvirtRefused
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, TestVm, VmFactory, run_qemu_img
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.point import Method, Point
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel

KIB = 1024


class Silent:
    """An observer that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, name: str) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class House:
    """A store, and a VM whose disks are remembered at each backup."""

    vm: TestVm
    app: Standalone
    folder: Path
    references: dict[str, dict[str, Path]] = field(default_factory=dict)

    def backup(self, reread_runs: int = DEFAULT_RUNS) -> Point:
        """Back up; the disks must not change meanwhile."""
        number = len(self.references)
        references = {
            t: self.vm.reference(t, self.folder / f"reference-{number}-{t}.raw")
            for t in self.vm.disks
        }
        with self.app.backup() as work:
            result = work.run(self.vm.name, reread_runs=reread_runs)
        self.references[f"{result.chain}/{result.point.seq:06d}"] = references
        return result.point

    def assert_all_restore(self) -> None:
        """Restore each point and compare each disk with what it was then."""
        for point, references in self.references.items():
            target = self.folder / f"restored {point.replace('/', ' ')}"
            self.app.restore(target).run(self.vm.name, point)
            for disk, reference in references.items():
                image = target / f"{disk}.{self.vm.disks[disk].format}"
                run_qemu_img("compare", str(image), str(reference))
            shutil.rmtree(target)


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path) -> MakeHouse:
    def make(*disks: DiskSpec) -> House:
        store = tmp_path / "the store"
        store.mkdir()
        place = Place(
            uri=libvirtd.uri, store=store, allow_ram_store=True, runtime=libvirtd.root / "vmb"
        )
        test_vm = vm(disks=disks or (DiskSpec(),))
        test_vm.start()
        return House(test_vm, Standalone(place, Silent(), Cancel()), tmp_path)

    return make


def method(point: Point, target: str = "vda") -> Method:
    disk = point.disk(target)
    assert disk is not None
    return disk.method


def test_an_increment_reads_only_what_the_bitmap_marked(make_house: MakeHouse) -> None:
    house = make_house()
    house.vm.write("vda", 0, 8 * MIB, 0x11)
    house.backup()
    house.vm.write("vda", 2 * MIB, 64 * KIB, 0x22)
    point = house.backup(reread_runs=0)
    assert method(point) is Method.BITMAP
    assert [d.read_bytes for d in point.disks] == [64 * KIB]
    house.assert_all_restore()


def test_an_image_put_back_to_an_earlier_state_is_bridged_exactly(make_house: MakeHouse) -> None:
    house = make_house()
    image = house.vm.paths["vda"]
    house.vm.write("vda", 0, 4 * MIB, 0x11)
    house.backup()
    house.vm.stop()
    early = house.folder / "early.qcow2"
    shutil.copyfile(image, early)  # holds the first point's bitmap, in order
    house.vm.start()
    house.vm.write("vda", 1 * MIB, 256 * KIB, 0x22)
    house.backup()
    house.vm.stop()
    with early.open("rb") as source, image.open("r+b") as target:  # the same inode, as zfs has it
        target.truncate()
        shutil.copyfileobj(source, target)
    house.vm.start()
    house.vm.write("vda", 3 * MIB, 64 * KIB, 0x33)
    point = house.backup()
    assert method(point) is Method.BITMAP
    house.assert_all_restore()


def test_two_images_that_changed_places_are_compared_as_a_whole(make_house: MakeHouse) -> None:
    house = make_house(DiskSpec("vda"), DiskSpec("vdb"))
    house.vm.write("vda", 0, 4 * MIB, 0x11)
    house.vm.write("vdb", 0, 4 * MIB, 0x22)
    house.backup()
    house.vm.stop()
    one, other = house.vm.paths["vda"], house.vm.paths["vdb"]
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)
    house.vm.start()
    point = house.backup()
    assert (method(point, "vda"), method(point, "vdb")) == (Method.SCAN, Method.SCAN)
    house.assert_all_restore()


def overwrite(image: Path, other: Path) -> None:
    """Copy ``other`` over ``image`` in place, as ``cp`` does: it stays the same inode."""
    inode = image.stat().st_ino
    with other.open("rb") as source, image.open("r+b") as target:
        target.truncate()
        shutil.copyfileobj(source, target)
    assert image.stat().st_ino == inode


def two_alike(house: House) -> tuple[Path, Path]:
    """Have a point of two disks that differ in one block, and switch the VM off.

    Reading unchanged blocks again in turn would come across that block much later.
    """
    for target, pattern in (("vda", 0x22), ("vdb", 0x33)):
        house.vm.write(target, 0, 32 * MIB, 0x11)
        house.vm.write(target, 31 * MIB, 64 * KIB, pattern)
    house.backup()
    house.vm.stop()
    return house.vm.paths["vda"], house.vm.paths["vdb"]


def test_an_image_copied_over_another_disks_in_place_is_compared_as_a_whole(
    make_house: MakeHouse,
) -> None:
    house = make_house(DiskSpec("vda"), DiskSpec("vdb"))
    one, other = two_alike(house)
    overwrite(other, one)
    house.vm.start()
    point = house.backup()
    assert (method(point, "vda"), method(point, "vdb")) == (Method.BITMAP, Method.SCAN)
    assert [d.written_bytes for d in point.disks] == [0, 64 * KIB]
    assert method(house.backup(), "vdb") is Method.BITMAP
    house.assert_all_restore()


def test_an_image_put_in_the_place_of_another_whose_inode_it_got_is_compared_as_a_whole(
    make_house: MakeHouse,
) -> None:
    house = make_house(DiskSpec("vda"), DiskSpec("vdb"))
    one, other = two_alike(house)
    other.unlink()
    shutil.copyfile(one, other)  # on ext4 the inode that has just become free
    house.vm.start()
    assert method(house.backup(), "vdb") is Method.SCAN
    house.assert_all_restore()


def test_an_older_copy_of_another_disks_image_put_back_in_place_is_compared_as_a_whole(
    make_house: MakeHouse,
) -> None:
    house = make_house(DiskSpec("vda"), DiskSpec("vdb"))
    one, other = two_alike(house)
    kept = house.folder / "kept.qcow2"
    shutil.copyfile(one, kept)
    house.vm.start()
    house.vm.write("vdb", 5 * MIB, 64 * KIB, 0x44)
    assert method(house.backup(), "vdb") is Method.BITMAP
    house.vm.stop()
    overwrite(other, kept)
    house.vm.start()
    assert method(house.backup(), "vdb") is Method.SCAN
    house.assert_all_restore()


def test_two_disks_swapped_in_the_definition_are_compared_as_a_whole_and_so_when_swapped_back(
    make_house: MakeHouse,
) -> None:
    house = make_house(DiskSpec("vda"), DiskSpec("vdb"))
    one, other = two_alike(house)
    for _ in range(2):
        house.vm.paths.update(vda=house.vm.paths["vdb"], vdb=house.vm.paths["vda"])
        house.vm.define_again()
        house.vm.start()
        point = house.backup()
        assert (method(point, "vda"), method(point, "vdb")) == (Method.SCAN, Method.SCAN)
        # Each is compared with what its image was.
        assert [d.written_bytes for d in point.disks] == [0, 0]
        assert [d.parent_file for d in point.disks] == ["vdb.qcow2", "vda.qcow2"]
        house.vm.stop()
    assert (house.vm.paths["vda"], house.vm.paths["vdb"]) == (one, other)
    house.vm.start()
    point = house.backup()
    assert (method(point, "vda"), method(point, "vdb")) == (Method.BITMAP, Method.BITMAP)
    house.assert_all_restore()


def test_an_image_renamed_to_another_path_and_back_goes_on_with_its_bitmap(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.vm.write("vda", 0, 4 * MIB, 0x11)
    house.backup()
    home = house.vm.paths["vda"]
    for number, place in enumerate((home.with_name("else where, 1.qcow2"), home)):
        house.vm.stop()
        house.vm.paths["vda"].rename(place)
        house.vm.paths["vda"] = place
        house.vm.define_again()
        house.vm.start()
        house.vm.write("vda", number * MIB, 64 * KIB, 0x22)
        assert method(house.backup()) is Method.BITMAP
    house.assert_all_restore()


def test_a_disk_that_shrank_and_grew_back_between_two_points_is_caught(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.vm.write("vda", 50 * MIB, 4 * MIB, 0x11)
    house.vm.write("vda", 1 * MIB, 4 * MIB, 0x12)
    house.backup()
    house.vm.write("vda", 2 * MIB, 64 * KIB, 0x13)
    # The size in the manifest stays the same: only the map of zeros tells.
    house.vm.host.call("resize", house.vm.name, "vda", 32 * MIB)
    house.vm.host.call("resize", house.vm.name, "vda", 64 * MIB)
    point = house.backup()
    assert method(point) is Method.SCAN
    assert any("missed a change" in warning for warning in point.warnings)
    house.assert_all_restore()


def test_after_a_power_cut_the_disk_is_compared_as_a_whole(make_house: MakeHouse) -> None:
    house = make_house()
    house.vm.write("vda", 0, 8 * MIB, 0x11)
    house.backup()
    house.vm.kill()
    house.vm.start()
    house.vm.write("vda", 1 * MIB, 64 * KIB, 0x22)
    point = house.backup()
    assert method(point) is Method.SCAN
    assert [d.written_bytes for d in point.disks] == [64 * KIB]
    house.vm.write("vda", 2 * MIB, 64 * KIB, 0x33)
    assert method(house.backup()) is Method.BITMAP
    house.assert_all_restore()


def test_a_disk_that_grew_goes_on_with_its_bitmap(make_house: MakeHouse) -> None:
    house = make_house(DiskSpec(size=8 * MIB + 512))
    house.vm.write("vda", 8 * MIB - 512, 1024, 0x11)
    house.backup()
    house.vm.host.call("resize", house.vm.name, "vda", 16 * MIB + 1024)
    house.vm.write("vda", 12 * MIB, 64 * KIB, 0x22)
    point = house.backup()
    assert method(point) is Method.BITMAP
    house.assert_all_restore()


def test_after_a_power_cut_the_next_backup_leaves_nothing_that_forbids_resizing(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.vm.write("vda", 0, MIB, 0x11)
    house.backup()
    house.vm.stop()  # so that the image has the bitmap for good
    house.vm.start()
    house.vm.kill()
    house.vm.start()
    with pytest.raises(LibvirtRefused, match="inconsistent"):
        house.vm.host.call("resize", house.vm.name, "vda", 128 * MIB)
    assert method(house.backup()) is Method.SCAN
    house.vm.host.call("resize", house.vm.name, "vda", 128 * MIB)
    house.vm.write("vda", 127 * MIB, MIB, 0x22)
    assert method(house.backup()) is Method.BITMAP
    house.assert_all_restore()
