"""Converting a raw disk: what it makes, what it refuses, and what comes in between."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.converting import SPEC, RawWorld
from tests.support.faulty import Fault
from tests.support.libvirt_host import LibvirtRefused
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.qemu_img import info, named, run
from tests.support.soak import SOAK
from tests.support.stopped import Stopped, stopped_command
from tests.support.vm import MIB, DiskSpec, TestVm
from tests.support.world import unchanged

SOME = ["copy", "switch"]
STEPS = ["look", *SOME, *(["compare", "name"] if SOAK else [])]
NAMES = ['a "b", c:d; $(x).img', "-größe 日本", *(["json:{x}.RAW", "old.qcow2"] if SOAK else [])]


@pytest.fixture(scope="module")
def house(
    libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RawWorld]:
    with closing(RawWorld(libvirtd, tmp_path_factory.mktemp("convert") / "w")) as world:
        yield world


@pytest.fixture
def world(house: RawWorld) -> Iterator[RawWorld]:
    yield house
    house.reset()


@contextlib.contextmanager
def stopped(world: RawWorld, *fault: str | int) -> Iterator[Stopped]:
    """Start a conversion and wait until it stands still at a moment."""
    arguments = ("convert", "--", world.vm.name, "vda")
    with stopped_command(world, *arguments, faults=[Fault("stop", *fault)]) as still:  # type: ignore[arg-type]
        yield still


# -- what it makes --------------------------------------------------------------------------


def test_only_format_and_file_of_the_disk_change_and_going_back_restores_them(
    world: RawWorld,
) -> None:
    world.raw.chmod(0o640)
    os.chown(world.raw, 1234, 4321)
    said = json.loads(world.convert("--json"))
    assert (said["image"], said["kept"]) == (str(world.new), str(world.raw))
    was, now = world.original.splitlines(), world.definition().splitlines()
    changed = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
    assert [
        a.replace("'raw'", "'qcow2'").replace("vda.raw'", "vda.qcow2'") for a, _ in changed
    ] == [b for _, b in changed]
    assert len(changed) == 2
    state = world.new.stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (1234, 4321, 0o640)
    world.assert_converted()
    world.undo()
    assert world.definition() == world.original


def test_the_next_backups_go_on_in_the_same_chain(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with closing(RawWorld(libvirtd, tmp_path / "w", "chain")) as world:
        world.boot()
        first = world.backup()
        world.vm.stop()
        world.convert()
        world.source()
        world.boot()
        compared = world.backup()
        world.change()
        tracked = world.backup()
        for point, method in ((compared, "scan"), (tracked, "bitmap")):
            assert (point["level"], point["chain_id"]) == ("inc", first["chain_id"])
            assert point["disks"][0]["method"] == method
        assert compared["disks"][0]["written_bytes"] == 0
        world.vm.stop()
        assert "all that would be lost" in world.undo(expect=1)
        assert world.source()[1] == "qcow2"
        world.undo("--lose-changes")
        assert world.source() == (world.raw, "raw")
        world.boot()
        back = world.backup()
        assert (back["level"], back["disks"][0]["method"]) == ("inc", "scan")
        world.assert_lists(world.references)
        for name in world.references:
            world.assert_holds(name)


@pytest.mark.parametrize("name", NAMES)
def test_names_mean_nothing(world: RawWorld, name: str) -> None:
    path = world.disks / name
    shutil.copyfile(world.held, path)
    world.vm.paths["vda"] = path
    world.vm.define_again()
    world.convert()
    new, format = world.source()
    assert (new.parent, new.suffix, format) == (path.parent, ".qcow2", "qcow2")
    world.assert_data()
    world.undo()
    assert world.source() == (path, "raw")


def test_holes_stay_holes_and_any_size_will_do(world: RawWorld) -> None:
    with world.raw.open("r+b") as file:
        file.truncate(0)
        file.seek(5 * MIB)
        file.write(b"x" * 100)
        file.truncate(100 * MIB + 100)
    world.convert()
    assert world.new.stat().st_blocks * 512 < MIB
    assert info(world.new)["virtual-size"] == 100 * MIB + 512
    run("qemu-img", "compare", named(world.new), named(world.raw, "raw"))


# -- what it refuses ------------------------------------------------------------------------


def paused(world: RawWorld) -> None:
    world.vm.start()


def saved(world: RawWorld) -> None:
    world.vm.start()
    world.host.call("managed_save", world.vm.name)


def snapshot(world: RawWorld) -> None:
    words = "<name>of yesterday</name><state>shutoff</state><creationTime>1700000000</creationTime>"
    xml = f"<domainsnapshot>{words}{world.original}</domainsnapshot>"
    world.host.call("snapshot", world.vm.name, xml, 1)


def hard_link(world: RawWorld) -> None:
    world.raw.with_name("also").hardlink_to(world.raw)


def symbolic_link(world: RawWorld) -> None:
    world.raw.rename(world.raw.with_name("real.img"))
    world.raw.symlink_to("real.img")


def taken(world: RawWorld) -> None:
    world.new.write_bytes(b"mine")


def foreign_note(world: RawWorld) -> None:
    world.note.write_bytes(b"mine")


def qcow2_inside(world: RawWorld) -> None:
    world.raw.unlink()
    run("qemu-img", "create", "-f", "qcow2", str(world.raw), "1M")


REFUSALS: list[tuple[Callable[[RawWorld], None], int, str]] = [
    (paused, 1, "the VM is paused; it has to be off"),
    (saved, 1, "libvirt has saved the VM's memory"),
    (snapshot, 1, "has snapshots, which name its images: of yesterday"),
    (hard_link, 1, "has 2 names (hard links)"),
    (symbolic_link, 1, "is a link or no plain file"),
    (taken, 1, "which the new image is to be called, exists"),
    (foreign_note, 12, "it is no JSON"),
    (qcow2_inside, 1, "uses its image"),
]


@pytest.mark.parametrize(
    ("prepare", "code", "says"), REFUSALS, ids=lambda x: getattr(x, "__name__", "")
)
def test_what_is_not_fit_is_refused_and_left_alone(
    world: RawWorld, prepare: Callable[[RawWorld], None], code: int, says: str
) -> None:
    prepare(world)
    before = world.definition()
    with unchanged(world.disks):
        assert says in world.convert(expect=code)
    assert world.definition() == before
    if prepare in {saved, snapshot}:
        world.vm.undefine()
        world.vm.define(world.original)
    if prepare is symbolic_link:
        world.raw.unlink()


def test_a_disk_that_does_not_exist_is_a_wrong_value(world: RawWorld) -> None:
    done = world.call("convert", "--", world.vm.name, "vdz", expect=2)
    assert "DISK: 'vdz' is no disk" in done.stderr
    assert "It has vda, vdb." in done.stderr
    assert "is qcow2 already" in world.call("convert", "--", world.vm.name, "vdb", expect=1).stderr


def test_an_image_that_somebody_else_uses_is_refused(world: RawWorld) -> None:
    """By another path to the same file, or as the base of its own image."""
    other = world.folder / "other"
    other.mkdir(exist_ok=True)
    (other / "link").symlink_to(world.raw)
    overlay = other / "overlay.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", str(world.raw), str(overlay))
    for path, format in ((other / "link", "raw"), (overlay, "qcow2")):
        vm = TestVm(world.host, other, "other", (DiskSpec("vdc", size=MIB),))
        vm.paths["vdc"] = path
        vm.disks["vdc"] = DiskSpec("vdc", format)
        vm.define_again()
        try:
            assert "is used by disk 'vdc' of VM 'other', too" in world.convert(expect=1)
        finally:
            vm.remove()
            shutil.rmtree(other / "vdc.qcow2", ignore_errors=True)
            (other / "vdc.qcow2").unlink(missing_ok=True)
    with world.raw.open("r+b"):
        assert "has it open for writing" in world.convert(expect=11)
    world.assert_raw()


# -- what comes in between ------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_vm_that_is_started_meanwhile_goes_on_with_its_raw_image(
    world: RawWorld, step: str
) -> None:
    with stopped(world, "step", step) as still:
        world.vm.start()
        world.vm.write("vda", 0, 4096, 0x77)
        still.go_on(expect=1)
    assert "the VM is paused; it has to be off" in still.err
    assert world.definition() == world.original
    world.vm.stop()
    assert world.left() == set()
    assert world.raw.read_bytes()[:4096] == b"\x77" * 4096


@pytest.mark.parametrize("step", SOME)
def test_what_a_vm_wrote_meanwhile_is_not_lost(world: RawWorld, step: str) -> None:
    with stopped(world, "step", step) as still:
        world.vm.start()
        world.vm.write("vda", 0, 4096, 0x78)
        world.vm.stop()
        still.go_on(expect=11)
    assert "was written to meanwhile" in still.err
    assert (world.definition(), world.left()) == (world.original, set())
    assert world.raw.read_bytes()[:4096] == b"\x78" * 4096


def test_a_vm_that_is_started_in_the_moment_of_the_switch_does_not_start_with_the_old_image(
    world: RawWorld,
) -> None:
    with stopped(world, "call", "virDomain.updateDeviceFlags") as still:
        with pytest.raises(LibvirtRefused, match="lock"):
            world.vm.start()
        still.go_on(expect=11)  # the try has changed the image's owner for a moment
    assert (world.definition(), world.left()) == (world.original, set())
    world.assert_data()


def test_a_vm_that_is_started_after_the_switch_runs_on_the_new_image(world: RawWorld) -> None:
    with stopped(world, "step", "look again") as still:
        world.vm.start()
        world.vm.write("vda", 0, 4096, 0x79)
        still.go_on(expect=0)
    world.vm.stop()
    assert world.source() == (world.new, "qcow2")
    assert world.raw.read_bytes() == world.held.read_bytes()


def test_if_the_old_image_was_written_after_the_switch_the_definition_names_it_again(
    world: RawWorld,
) -> None:
    with stopped(world, "step", "look again") as still:
        with world.raw.open("r+b") as file:
            file.write(b"new")
        still.go_on(expect=11)
    assert "its definition names that again" in still.err
    assert (world.definition(), world.left()) == (world.original, set())
    assert world.raw.read_bytes()[:3] == b"new"


def test_asked_to_stop_it_leaves_nothing(world: RawWorld) -> None:
    with stopped(world, "progress", "", 2) as still:
        still.signal(signal.SIGINT)
        still.go_on(expect=130)
    world.assert_raw()


def fill(path: Path) -> None:
    """Take all the space there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(MIB))


def test_too_little_space_is_seen_before_and_running_out_of_it_leaves_nothing(
    world: RawWorld,
) -> None:
    with ram_disk(world.folder / "small", 48 * MIB) as place:
        path = place / "disk.img"
        path.write_bytes(os.urandom(SPEC.size))
        world.vm.paths["vda"] = path
        world.vm.define_again()
        with (place / "filler").open("wb") as filler:
            filler.write(bytes(10 * MIB))
        assert "are needed" in world.convert(expect=1)
        (place / "filler").unlink()
        with stopped(world, "progress", "", 2) as still:
            fill(place / "filler")
            still.go_on(expect=1)
        assert "No space left on device" in still.err or "are needed" in still.err
        assert {p.name for p in place.iterdir()} == {"disk.img", "filler"}
        assert world.source() == (path, "raw")


# -- going back -----------------------------------------------------------------------------


def test_going_back_is_refused_without_the_old_image_or_a_note_of_ours(world: RawWorld) -> None:
    assert "there is no note" in world.undo(expect=1)
    world.convert()
    world.vm.start()
    assert "it has to be off" in world.undo(expect=1)
    world.vm.stop()
    moved = world.raw.rename(world.folder / "moved")
    assert "is not there" in world.undo(expect=1)
    moved.rename(world.raw)
    text = world.note.read_text()
    world.note.write_text(text.replace("vda.raw", "vdb.raw"))
    assert "does not match its digest" in world.undo(expect=12)
    assert world.source() == (world.new, "qcow2")
    done = world.call("convert", "--lose-changes", world.vm.uuid, "vda", expect=2)
    assert "goes with --undo only" in done.stderr
