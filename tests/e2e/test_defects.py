"""Ways in which the tool that this one replaces loses data: here they are not to be had.

B1 to B15 are named as in ARCHITECTURE.md's table, which says what each is, and which other tests
there are. D12 is a defect of virtnbdbackup, of which others are in ``test_incumbent``.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.stage import newest
from tests.support.table import (
    Table,
    chain_directory,
    goes_on,
    point_directory,
    reboot,
)
from tests.support.vm import MIB, DiskSpec, VmFactory
from tests.support.world import World, unchanged
from vm_babysitter.domain.errors import VmNotFound

DIES = Fault("die", "progress", "", 2)
CONFUSING = ("win", "win10", "win.10", "w.n", "WIN", "my win")


@pytest.fixture(scope="module")
def table(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with closing(Table(libvirtd, tmp_path_factory.mktemp("table"))) as table:
        yield table


@pytest.fixture
def world(table: Table, request: pytest.FixtureRequest) -> Iterator[World]:
    """A VM that is on, with two points, and tracked changes since."""
    with table.case(request.session) as world:
        yield world


def files(world: World) -> set[Path]:
    return {path for path in world.store.rglob("*") if path.is_file()}


# -- making points -----------------------------------------------------------------------------


def test_b2_an_increment_interrupted_before_a_restart_takes_no_point_with_it(world: World) -> None:
    before = files(world)
    world.die(DIES)
    reboot(world)
    goes_on(world, "bitmap", "bitmap", finds="interrupted")
    assert before <= files(world)


@pytest.mark.parametrize(
    ("moment", "finds"), [("begun", "interrupted metadata-left"), ("copy", "interrupted")]
)
def test_b4_a_backup_that_dies_before_its_first_data_is_no_point(
    world: World, moment: str, finds: str
) -> None:
    points = world.chains()[0][1]
    world.die(Fault("die", "step", moment))
    assert world.chains()[0][1] == points
    world.change()
    goes_on(world, "bitmap", "bitmap", finds=finds)
    world.assert_tidy()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage", "finds"),
    [
        ("*.attempt.json", cut, ""),
        ("*.attempt.json", lose, "unreadable"),
        ("000*/point.json", cut, "interrupted unreadable"),
    ],
)
def test_b7_nothing_is_deleted_on_weak_evidence(
    world: World, name: str, damage: Callable[[Path], None], finds: str
) -> None:
    """An interrupted increment, and a list or manifest that cannot be read: all points stay."""
    committed = {path for path in files(world) if path.name != "current.json"}
    world.die(DIES)
    world.change()
    damaged = max(chain_directory(world).glob(name))
    damage(damaged)
    lost = list(world.references)[-1:] if name.endswith("point.json") else []
    for point in lost:
        del world.references[point]
    goes_on(world, "bitmap", "bitmap", finds=finds)
    assert committed - {damaged} <= files(world)


@pytest.mark.parametrize("end", ["killed", "failed"])
def test_b10_nothing_is_deleted_before_a_new_full_is_there(world: World, end: str) -> None:
    before = files(world)
    if end == "killed":
        world.die(DIES, options=["--full"])
    else:
        fault = Fault("fail", "step", "commit")
        world.call("backup", "--full", "--", world.vm.name, faults=[fault], expect=1)
    assert before <= files(world)
    world.change()
    goes_on(world, "bitmap", "bitmap", finds="interrupted" if end == "killed" else "")
    world.backup_here(full=True)
    assert before <= files(world)
    for point in world.references:
        world.assert_holds(point)


# -- bringing them back ------------------------------------------------------------------------


def test_b11_a_restore_that_failed_says_so_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    with ram_disk(tmp_path / "small", 2 * MIB) as place:
        command = ["restore", "--to", str(place / "x"), "--", world.vm.name, newest(world)]
        failed = world.call(*command, expect=1)
        assert failed.stdout == ""
        assert "Error: " in failed.stderr
        assert not list(place.iterdir())
    path = point_directory(world, newest(world)) / "vdb.qcow2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    command[2] = str(tmp_path / "x")
    failed = world.call(*command, expect=12)
    assert "vdb" in failed.stderr
    assert not (tmp_path / "x").exists()
    shutil.rmtree(path.parent)
    del world.references[newest(world)]


def test_b12_part_of_a_name_is_never_taken_for_a_name(
    libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path
) -> None:
    disks = [DiskSpec("vda", size=6 * MIB)]
    with closing(World(libvirtd, tmp_path / "w", CONFUSING[0], disks=disks)) as world:
        own = world.vm
        for number, name in enumerate(CONFUSING):
            world.vm = own if name == own.name else vm(name, disks)
            if world.vm.state == "shutoff":
                world.vm.start()
            world.vm.write("vda", 0, MIB, 0x10 + number)
            world.backup_here()
        world.vm = own
        for number, name in enumerate(CONFUSING):
            target = tmp_path / f"back {number}"
            world.app().restore(target).run(name, "latest", format="raw")
            with (target / "vda.raw").open("rb") as file:
                assert file.read(MIB) == bytes([0x10 + number]) * MIB
        for name in ("wi", "win1", "in", "w", "win.", "win*", "", "my"):
            with pytest.raises(VmNotFound), world.app().backup() as work:
                work.run(name)
            with pytest.raises(VmNotFound):
                world.app().restore(tmp_path / "x").run(name, "latest")
        for command in ("backup", "points"):
            world.call(command, "--", "wi", expect=10)
        assert not (tmp_path / "x").exists()


def test_b13_a_restore_overwrites_nothing(world: World, tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.mkdir()
    (target / "vda.qcow2").write_text("theirs")
    places = [target, world.disks, world.store]
    with unchanged(target, world.store):
        for place in places:
            command = ["restore", "--to", str(place), "--", world.vm.name, newest(world)]
            refused = world.call(*command, expect=2)
            assert "nothing is overwritten" in refused.stderr


def test_b14_the_definition_is_kept_as_it_is_and_no_backup_changes_it(world: World) -> None:
    def definition() -> str:
        return str(world.host.call("xml", world.vm.name, True))

    before = definition()
    assert re.search(r"<memory unit='KiB'>32768<", before)
    world.die(DIES)
    assert definition() == before
    world.backup_here()
    world.vm.stop()
    assert definition() == before
    world.backup_here()
    assert definition() == before
    saved = (point_directory(world, newest(world)) / "domain.xml").read_text()
    assert re.search(r"<memory unit='KiB'>32768<", saved)
    world.assert_holds(newest(world))


# -- a defect of virtnbdbackup -----------------------------------------------------------------


def test_d12_images_of_one_name_in_two_folders_are_two_disks(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    disks = [
        DiskSpec(target, size=6 * MIB, path=folder / "disk.qcow2")
        for target, folder in zip(("vda", "vdb"), folders, strict=True)
    ]
    with closing(World(libvirtd, tmp_path / "w", "twins", disks=disks)) as world:
        world.backup_here()
        world.change()
        goes_on(world, "bitmap", "bitmap")
