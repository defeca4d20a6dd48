"""Where virtnbdbackup yields wrong data and reports success: the same steps with us, and with it.

Each defect has a name, D1 to D8. What the program of Debian 12 (1.9.15) does is put down beside it
where it has the defect. D1 and D8 came with later versions: 1.9.15 stores zeroed regions, and
refuses increments after a crash.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.incumbent import BACKUP, Incumbent
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named
from tests.support.stage import three_points, with_store_copied
from tests.support.vm import MIB, DiskSpec, TestVm, VmFactory, vms_on
from tests.support.world import World, unchanged

DOCUMENTED = "1.9.15"
"""The version whose behaviour is put down here."""


# -- the stage ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and two increments."""
    with three_points(libvirtd, tmp_path_factory.mktemp("peer") / "w") as world:
        yield world


@pytest.fixture
def world(house: World, tmp_path: Path) -> Iterator[World]:
    """The same with a copy of its store, to be damaged."""
    with with_store_copied(house, tmp_path / "store") as world:
        yield world


@pytest.fixture
def own_world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM without any backup."""
    with closing(World(libvirtd, tmp_path / "w")) as world:
        yield world


def point_directory(world: World, seq: int) -> Path:
    (path,) = world.store.glob(f"*/*/{seq:06d}-*/")
    return path


def refuses(world: World, point: str) -> None:
    """Neither verify nor restore takes this point for good, and no point is written to."""
    target = world.store.with_name("target")
    with unchanged(*world.store.glob("*/*/*/"), target):  # beside it, verify notes the damage
        assert "BAD" in world.call("verify", "house", point, expect=12).stdout
    with unchanged(world.store, target):
        world.call("restore", "house", point, "--to", str(target), expect=12)


class Peer:
    """A VM that virtnbdbackup backs up, and what its disk must look like."""

    def __init__(self, libvirtd: PrivateLibvirtd, vm: TestVm, name: str) -> None:
        self.vm = vm
        self.folder = libvirtd.root / name
        self.tool = Incumbent(libvirtd, vm.name, self.folder)
        self._restores = 0

    def backup(self, level: str) -> None:
        assert self.tool.backup(level) == 0

    def data(self, suffix: str) -> Path:
        """The file with the data of one backup."""
        return self.tool.backups / f"vda.{suffix}.data"

    def reference(self) -> Path:
        return self.vm.reference("vda", self.folder / "reference.raw")

    def restores_wrong_data_with_success(self, reference: Path, *options: str) -> bool:
        self._restores += 1
        target = self.folder / f"restored {self._restores}"
        assert self.tool.restore(target, *options) == 0
        # The peer returns before its server has closed the image.
        compare = [
            "qemu-img",
            "compare",
            "-U",
            named(target / "vda.qcow2"),
            named(reference, "raw"),
        ]
        done = subprocess.run(compare, check=False, capture_output=True)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode == 1


@pytest.fixture(scope="module")
def documented() -> None:
    """Only the version of Debian 12 is known to behave so."""
    done = subprocess.run([BACKUP, "--version"], check=True, capture_output=True, text=True)
    if done.stdout.strip() != DOCUMENTED:
        pytest.skip(f"virtnbdbackup {done.stdout.strip()} is not the {DOCUMENTED} put down here")


@pytest.fixture
def peer(documented: None, libvirtd: PrivateLibvirtd, vm: VmFactory) -> Iterator[Peer]:
    """A VM with one full backup."""
    test_vm = vm("peer", (DiskSpec(size=32 * MIB),))
    test_vm.start()
    test_vm.write("vda", 0, 16 * MIB, 0x11)
    peer = Peer(libvirtd, test_vm, "peer")
    peer.backup("full")
    yield peer
    shutil.rmtree(peer.folder)


@pytest.fixture(scope="module")
def peer_house(
    documented: None, libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Peer, Path, Path]]:
    """One with a full, an increment, a differential, and two increments.

    With what the disk held at the second increment, and at the end.
    """
    with vms_on(libvirtd, tmp_path_factory.mktemp("peer")) as factory:
        test_vm = factory("peer house", (DiskSpec(size=32 * MIB),))
        test_vm.start()
        test_vm.write("vda", 0, 16 * MIB, 0x11)
        peer = Peer(libvirtd, test_vm, "peers")
        peer.backup("full")
        for number, level in enumerate(("inc", "diff", "inc", "inc")):
            test_vm.write("vda", (number + 1) * MIB, 4 * MIB, 0x22 + number)
            peer.backup(level)
            if number == 2:
                second = test_vm.reference("vda", peer.folder / "second.raw")
        yield peer, second, peer.reference()
        shutil.rmtree(peer.folder)


@pytest.fixture
def peers(peer_house: tuple[Peer, Path, Path]) -> Iterator[tuple[Peer, Path, Path]]:
    """The same, its backups put back afterwards."""
    peer = peer_house[0]
    kept = peer.folder / "kept"
    subprocess.run(["cp", "-a", peer.tool.backups, kept], check=True)
    yield peer_house
    peer.tool.clear()
    kept.rename(peer.tool.backups)


# -- D1: a region that became zero is lost from increments ----------------------------------


def test_d1_what_became_zero_is_zero_in_the_increment(own_world: World) -> None:
    own_world.vm.write("vda", 4 * MIB, 8 * MIB, 0x5A)
    own_world.backup()
    own_world.vm.zero("vda", 5 * MIB, 1 * MIB)
    own_world.vm.discard("vda", 8 * MIB, 2 * MIB)
    made = own_world.backup()
    (disk,) = [disk for disk in made["disks"] if disk["target"] == "vda"]
    assert (disk["method"], disk["zeroed_bytes"]) == ("bitmap", 3 * MIB)
    own_world.assert_restores(list(own_world.references)[-1])


# -- D2: what an interrupted increment was to save is lost ----------------------------------


def test_d2_the_run_after_an_interrupted_increment_saves_its_changes_too(own_world: World) -> None:
    own_world.backup()
    own_world.vm.write("vda", 1 * MIB, 1 * MIB, 0x33)
    own_world.die(Fault("die", "step", "copied vda"))
    own_world.vm.write("vda", 3 * MIB, 1 * MIB, 0x44)
    assert own_world.backup()["parent"] == 0
    own_world.assert_restores(list(own_world.references)[-1])


def test_d2_peer_goes_on_from_data_that_never_arrived(peer: Peer) -> None:
    peer.vm.write("vda", 1 * MIB, 1 * MIB, 0x33)
    peer.tool.backup_that_dies("auto")
    peer.vm.write("vda", 3 * MIB, 1 * MIB, 0x44)
    peer.backup("auto")
    assert peer.restores_wrong_data_with_success(peer.reference())


# -- D3: increments of a VM that is off overwrite each other --------------------------------


def test_d3_each_increment_of_a_vm_that_is_off_is_a_point_of_its_own(own_world: World) -> None:
    own_world.backup()
    own_world.change()
    own_world.backup()
    own_world.change()
    own_world.vm.stop()
    with unchanged(own_world.disks):
        made = own_world.backup()
    assert (made["off"], made["parent"]) == (True, 1)
    for point in own_world.references:
        own_world.assert_restores(point)


def test_d3_peer_overwrites_the_increment_before(peer: Peer) -> None:
    peer.vm.write("vda", 1 * MIB, 1 * MIB, 0x33)
    peer.backup("inc")
    peer.vm.write("vda", 3 * MIB, 1 * MIB, 0x44)
    peer.vm.stop()
    peer.backup("inc")
    assert peer.restores_wrong_data_with_success(peer.reference())


# -- D4: a point that is asked for by name is another one -----------------------------------


def test_d4_each_point_restores_to_its_own_moment(house: World) -> None:
    assert len(house.references) == 3
    for point in house.references:
        house.assert_restores(point)


def test_d4_peer_stops_at_a_differential_of_the_same_name(
    peers: tuple[Peer, Path, Path],
) -> None:
    peer, second, newest = peers
    assert peer.restores_wrong_data_with_success(second, "--until", "virtnbdbackup.2")
    assert not peer.restores_wrong_data_with_success(newest)


# -- D5: a missing increment is not missed --------------------------------------------------


def test_d5_a_missing_increment_is_missed_and_the_next_backup_does_without(world: World) -> None:
    shutil.rmtree(point_directory(world, 1))
    refuses(world, list(world.references)[2])
    world.vm.write("vda", 1 * MIB, 1 * MIB, 0x33)
    assert world.backup(expect=3)["parent"] == 0
    world.assert_restores(list(world.references)[-1])


def test_d5_peer_restores_without_an_increment(peers: tuple[Peer, Path, Path]) -> None:
    peer, _, newest = peers
    peer.data("inc.virtnbdbackup.2").unlink()
    assert peer.restores_wrong_data_with_success(newest)


# -- D6: the order of increments is that of files' times ------------------------------------


def test_d6_times_of_files_mean_nothing(world: World) -> None:
    paths = sorted(path for path in world.store.rglob("*") if path.is_file())
    for number, path in enumerate(paths):  # the oldest point is the newest file
        os.utime(path, (2_000_000_000 - number, 2_000_000_000 - number))
    for point in list(world.references)[1:]:
        world.assert_restores(point)
    assert world.backup()["parent"] == 2
    world.assert_restores(list(world.references)[-1])


def test_d6_peer_restores_in_the_order_of_times(peers: tuple[Peer, Path, Path]) -> None:
    peer, _, newest = peers
    os.utime(peer.data("inc.virtnbdbackup.1"))
    assert peer.restores_wrong_data_with_success(newest)


# -- D7: damaged data is restored -----------------------------------------------------------


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Lose the last 40 bytes: with virtnbdbackup, the mark of the end."""
    path.write_bytes(path.read_bytes()[:-40])


damages = pytest.mark.parametrize("damage", [flip, cut], ids=lambda damage: damage.__name__)


@damages
def test_d7_a_damaged_increment_is_refused(world: World, damage: Callable[[Path], None]) -> None:
    damage(point_directory(world, 1) / "vda.qcow2")
    first, second, third = world.references
    refuses(world, second)
    refuses(world, third)
    world.assert_restores(first)


@pytest.mark.parametrize(("damage", "number"), [(flip, 3), (cut, 1)], ids=["flip", "cut"])
def test_d7_peer_restores_a_damaged_increment(
    peers: tuple[Peer, Path, Path], damage: Callable[[Path], None], number: int
) -> None:
    peer, _, newest = peers
    damage(peer.data(f"inc.virtnbdbackup.{number}"))
    assert peer.restores_wrong_data_with_success(newest)


# -- D8: zeros of a disk that was read as a whole are ignored -------------------------------


def test_d8_a_region_zeroed_before_a_scan_is_zero_in_it(own_world: World) -> None:
    own_world.vm.write("vda", 4 * MIB, 4 * MIB, 0x5A)
    own_world.backup()
    own_world.vm.kill()
    own_world.boot()
    own_world.vm.zero("vda", 5 * MIB, 1 * MIB)
    own_world.vm.discard("vda", 7 * MIB, 1 * MIB)
    made = own_world.backup()
    (disk,) = [disk for disk in made["disks"] if disk["target"] == "vda"]
    assert (made["parent"], disk["method"], disk["zeroed_bytes"]) == (0, "scan", 2 * MIB)
    own_world.assert_restores(list(own_world.references)[-1])
