"""Snapshots, block jobs, saved memory and rolled-back storage around backups.

Whatever is done to the layers of a disk between two points, every point restores exactly.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from lxml import etree

from tests.support.faulty import Fault
from tests.support.guest import wait_until
from tests.support.libvirt_host import LibvirtRefused, Worker
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.soak import SOAK
from tests.support.stage import newest
from tests.support.stopped import stopped_backup
from tests.support.vm import MIB, DiskSpec
from tests.support.world import World

NAME = "- 'snapshots', & co"
SIZE = 8 * MIB
SLOW = 1 * MIB
"""Bytes per second: a block job lasts some seconds, if nobody hurries it."""
DISK_ONLY_NO_METADATA = 16 | 4
OVERLAYS = ("vdisk1.S20261124qcow2", "vdisk1.S20261125qcow2")
"""As Unraid's pages name them, without a dot."""


@dataclass
class House:
    """A VM with one disk whose layers come and go."""

    world: World
    base: Path

    @property
    def definition(self) -> str:
        return str(self.world.host.call("xml", NAME, True))

    def method(self, *, agreed: bool = False) -> str:
        """Change something, back up, and return how the disk was read."""
        self.change()
        return self.method_now(agreed=agreed)

    def method_now(self, *, agreed: bool = False) -> str:
        (disk,) = self.world.backup_here(track_snapshots=agreed).disks
        return str(disk.method)

    def change(self) -> None:
        self.world.change()

    def snapshot(self, name: str) -> None:
        """Put an overlay on top, as Unraid's pages do."""
        overlay = self.base.with_name(name)
        text = (
            "<domainsnapshot><disks><disk name='vda' snapshot='external'>"
            f"<driver type='qcow2'/><source file={quoteattr(str(overlay))}/></disk></disks>"
            "</domainsnapshot>"
        )
        self.world.host.call("snapshot", NAME, text, DISK_ONLY_NO_METADATA)
        self.world.vm.paths["vda"] = overlay

    def commit(self) -> None:
        """Merge all layers into the lowest."""
        self.world.host.call("commit", NAME, "vda")
        self.world.host.call("pivot", NAME, "vda")
        self._is_base_again()

    def pull(self) -> None:
        """Copy all layers into the top one."""
        self.world.host.call("begin_pull", NAME, "vda", 0)
        wait_until(lambda: self.world.host.call("block_job", NAME, "vda") == 0)
        assert len(self.layers()) == 1
        for name in ("vdisk1.img", *OVERLAYS):
            if name != self.world.vm.paths["vda"].name:
                self.base.with_name(name).unlink(missing_ok=True)

    def revert(self) -> None:
        """Go back to the lowest layer by hand: new definition, overlays unlinked."""
        self.world.vm.stop()
        self.world.vm.define(self.original)
        self._is_base_again()
        self.world.boot()

    def _is_base_again(self) -> None:
        self.world.vm.paths["vda"] = self.base
        for name in OVERLAYS:
            self.base.with_name(name).unlink(missing_ok=True)

    @property
    def original(self) -> str:
        """The definition with the disk as it was in the beginning."""
        domain = etree.fromstring(self.definition)
        (disk,) = domain.findall("devices/disk")
        source, driver = disk.find("source"), disk.find("driver")
        assert source is not None
        assert driver is not None
        source.set("file", str(self.base))
        driver.set("type", self.world.vm.disks["vda"].format)
        for element in disk.findall("backingStore"):
            disk.remove(element)
        return etree.tostring(domain, encoding="unicode")

    def layers(self) -> list[object]:
        with self.world.vm.monitor() as qmp:
            (block,) = [b for b in qmp.execute("query-block") if b.get("inserted")]  # type: ignore[attr-defined]
        found, image = [], block["inserted"]["image"]
        while image is not None:
            found.append(image["filename"])
            image = image.get("backing-image")
        return found

    @contextmanager
    def off(self) -> Iterator[None]:
        """The VM is off in the context."""
        self.world.vm.stop()
        yield
        self.world.boot()

    def restores_all(self) -> None:
        for point in self.world.references:
            self.world.assert_holds(point)
        self.world.assert_restores(newest(self.world))
        self.world.assert_vm_unharmed()


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[MakeHouse]:
    worlds: list[World] = []

    def make(format: str = "qcow2", *, running: bool = False) -> House:
        base = tmp_path / "it's: ü" / "vdisk1.img"  # libvirt makes no snapshot where a comma is
        base.parent.mkdir()
        disk = DiskSpec("vda", format, size=SIZE, path=base)
        worlds.append(World(libvirtd, tmp_path / "w", NAME, disks=[disk], running=running))
        house = House(worlds[0], base)
        worlds[0].disks = base.parent
        worlds[0].backup_here()
        return house

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    """One with a qcow2 disk, paused, and one point."""
    return make_house()


# -- external snapshots -------------------------------------------------------------------------

COMMIT, PULL, REVERT = House.commit, House.pull, House.revert
ENDS = [
    ("raw", "on", COMMIT, ["scan", "scan"]),
    ("qcow2", "off", COMMIT, ["scan", "bitmap"]),
    ("raw", "off", PULL, ["bitmap", "bitmap"]),
    ("qcow2", "on", PULL, ["bitmap", "bitmap"]),
    ("raw", "off", REVERT, ["scan", "scan"]),
    ("qcow2", "on", REVERT, ["scan", "bitmap"]),
]


@pytest.mark.parametrize(
    ("format", "power", "end", "after"), ENDS, ids=lambda v: getattr(v, "__name__", None)
)
def test_two_snapshots_in_a_row_and_their_end(
    make_house: MakeHouse, format: str, power: str, end: Callable[[House], None], after: list[str]
) -> None:
    house = make_house(format)
    for overlay in OVERLAYS:
        house.change()
        if power == "on":
            house.snapshot(overlay)
        else:
            with house.off():
                house.snapshot(overlay)
        assert house.method() == "scan"
    assert len(house.layers()) == 3
    assert house.method() == "bitmap"
    house.change()
    end(house)
    assert [house.method(), house.method()] == after
    assert len(house.layers()) == 1
    if after[-1] == "scan":
        assert house.world.bitmaps() == {"vda": set()}
    else:
        house.world.assert_tidy()
    house.restores_all()


# -- internal snapshots ---------------------------------------------------------------------------


@pytest.mark.parametrize("power", ["on", "off"])
def test_going_back_to_an_internal_snapshot_works_from_the_next_backup_on(
    house: House, power: str
) -> None:
    world, host = house.world, house.world.host
    assert house.method() == "bitmap"
    if power == "off":
        world.vm.stop()
    host.call("internal_snapshot", NAME, "S1")
    if power == "off":
        world.boot()
    assert house.method() == "scan"  # and takes the change tracking out of the image
    assert world.bitmaps() == {"vda": set()}
    if power == "off":
        world.vm.stop()
    host.call("revert", NAME, "S1")
    if power == "off":
        assert world.vm.state == "shutoff"
        world.boot()
    assert house.method_now() == "scan"
    assert house.method() == "scan"
    host.call("delete_snapshot", NAME, "S1")
    assert [house.method(), house.method()] == ["scan", "bitmap"]
    world.assert_tidy()
    house.restores_all()


@pytest.mark.parametrize("state", ["on", "off"])
def test_going_back_before_the_next_backup_fails_and_there_is_a_way_out(
    house: House, state: str
) -> None:
    """Libvirt ends QEMU first and learns then that it cannot: the VM is off, its disk as it was."""
    world, host = house.world, house.world.host
    assert house.method() == "bitmap"
    host.call("internal_snapshot", NAME, "S1")
    snapshot = world.copies()["vda"]
    house.change()
    disk = world.copies()["vda"]
    with pytest.raises(LibvirtRefused, match="Device has active dirty bitmaps"):
        host.call("revert", NAME, "S1")
    assert world.vm.state == "shutoff"
    run("qemu-img", "compare", named(house.base), named(disk, "raw"))
    if state == "on":
        world.boot()
    assert house.method_now() == "scan"
    host.call("revert", NAME, "S1")
    run("qemu-img", "compare", "-U", named(house.base), named(snapshot, "raw"))
    assert house.method_now() == "scan"
    house.restores_all()


def test_change_tracking_of_an_off_vm_can_be_removed_by_hand(house: House) -> None:
    world = house.world
    with house.off():
        world.host.call("internal_snapshot", NAME, "S1")
        with pytest.raises(LibvirtRefused, match="active dirty bitmaps"):
            world.host.call("revert", NAME, "S1")
        info = run("qemu-img", "info", named(house.base))
        (name,) = [line.split()[-1] for line in info.splitlines() if "name: vmb-" in line]
        run("qemu-img", "bitmap", "--remove", named(house.base), name)
        world.host.call("revert", NAME, "S1")
    assert house.method() == "scan"
    house.restores_all()


def test_who_agrees_keeps_change_tracking_beside_internal_snapshots(house: House) -> None:
    world, host = house.world, house.world.host
    host.call("internal_snapshot", NAME, "S1")
    assert [house.method(agreed=True), house.method(agreed=True)] == ["bitmap", "bitmap"]
    assert len(world.bitmaps()["vda"]) == 2
    with house.off(), pytest.raises(LibvirtRefused, match="active dirty bitmaps"):
        host.call("revert", NAME, "S1")
    assert [house.method(agreed=True), house.method(agreed=True)] == ["scan", "bitmap"]
    assert house.method() == "scan"  # not any more
    host.call("revert", NAME, "S1")
    assert house.method() == "scan"
    house.restores_all()


# -- while a backup runs --------------------------------------------------------------------------


@contextmanager
def waiting(house: House, folder: Path, *call: object) -> Iterator[list[str]]:
    """The user asks libvirt for something meanwhile. Yields the errors, complete at the end."""
    errors: list[str] = []

    def ask(worker: Worker) -> None:
        try:
            worker.call(str(call[0]), *call[1:])
        except LibvirtRefused as error:
            errors.append(str(error))

    with Worker(house.world.host.uri, folder / "worker.log") as worker:
        worker.call("ping")
        thread = threading.Thread(target=ask, args=[worker])
        thread.start()
        try:
            yield errors
        finally:
            thread.join(60)


def test_a_snapshot_asked_for_during_a_backup_waits_for_its_end(
    house: House, tmp_path: Path
) -> None:
    house.change()
    copies = house.world.copies()
    overlay = house.base.with_name(OVERLAYS[0])
    text = (
        "<domainsnapshot><disks><disk name='vda' snapshot='external'>"
        f"<source file={quoteattr(str(overlay))}/></disk></disks></domainsnapshot>"
    )
    snapshot = ("snapshot", NAME, text, DISK_ONLY_NO_METADATA)
    with stopped_backup(house.world, Fault("stop", "step", "copy")) as backup:
        with waiting(house, tmp_path, *snapshot) as errors:
            time.sleep(0.5)
            assert not overlay.exists()
            backup.go_on(expect=0)
        assert errors == []
    house.world.references[house.world.chains()[0][1][-1]] = copies
    house.world.vm.paths["vda"] = overlay
    assert len(house.layers()) == 2
    assert house.method() == "scan"
    house.commit()
    assert house.method() == "scan"
    house.world.assert_tidy()
    house.restores_all()


def test_saving_the_memory_during_a_backup_waits_for_its_end(house: House, tmp_path: Path) -> None:
    house.change()
    copies = house.world.copies()
    with stopped_backup(house.world, Fault("stop", "step", "copy")) as backup:
        with waiting(house, tmp_path, "managed_save", NAME) as errors:
            time.sleep(0.5)
            assert house.world.host.call("state_now", NAME) == "paused"
            backup.go_on(expect=0, or_else=3)  # the VM may be off before all is cleaned up
        assert errors == []
    house.world.references[house.world.chains()[0][1][-1]] = copies
    assert house.world.vm.state == "shutoff"
    house.world.boot()
    assert house.method() == "bitmap"
    house.restores_all()


@pytest.mark.skipif(not SOAK, reason="libvirt waits 30 seconds before it refuses; make soak")
def test_after_30_seconds_libvirt_refuses_and_nothing_has_changed(
    house: House, tmp_path: Path
) -> None:
    house.world.vm.write("vda", 0, 3 * MIB, 0x3D)
    with house.world.start("backup", "--limit", "64K", "--", NAME) as process:
        wait_until(lambda: any(house.world.disks.glob("*.scratch")))
        with waiting(house, tmp_path, "managed_save", NAME) as errors:
            pass
        assert "cannot acquire state change lock" in errors[0]
        process.communicate(timeout=120)
        assert process.returncode == 0
    house.world.assert_vm_unharmed()
    house.world.assert_tidy()


def test_a_block_job_asked_for_during_a_backup_is_refused_at_once(house: House) -> None:
    house.change()
    copies = house.world.copies()
    with stopped_backup(house.world, Fault("stop", "step", "copy")) as backup:
        other = house.base.with_name("other.img")
        with pytest.raises(LibvirtRefused, match="job"):
            house.world.host.call("begin_copy", NAME, "vda", str(other), "qcow2", 0)
        assert not other.exists()
        backup.go_on(expect=0)
    house.world.references[house.world.chains()[0][1][-1]] = copies
    house.world.assert_tidy()
    house.restores_all()


# -- while a block job runs -----------------------------------------------------------------------


def test_a_backup_is_refused_while_a_block_job_runs_and_goes_on_after_it(house: House) -> None:
    world, host = house.world, house.world.host
    world.vm.write("vda", 0, SIZE, 0x77)
    house.snapshot(OVERLAYS[0])
    world.vm.write("vda", 0, SIZE - MIB, 0x78)
    other = house.base.with_name("vdisk2, copied.img")
    jobs: dict[str, tuple[str, *tuple[object, ...]]] = {
        "copy": ("begin_copy", NAME, "vda", str(other), "qcow2", SLOW),
        "commit": ("begin_commit", NAME, "vda", SLOW),
        "pull": ("begin_pull", NAME, "vda", SLOW),
    }
    for name, job in jobs.items():
        host.call(*job)
        refused = world.call("backup", "--", NAME, expect=11)
        assert "a block job (snapshot commit, copy or pull) is running" in refused.stderr
        assert "on disk vda" in refused.stderr
        assert "a block job" in world.call("plan", "--", NAME).stdout
        if name == "commit":
            host.call("cancel_block_job", NAME, "vda")
            continue
        host.call("hurry", NAME, "vda")
        if name == "copy":
            host.call("pivot", NAME, "vda")
            world.vm.paths["vda"].unlink()
            world.vm.paths["vda"] = other
            assert house.method() == "scan"
            assert house.method() == "bitmap"
            house.snapshot(OVERLAYS[1])
        else:
            wait_until(lambda: host.call("block_job", NAME, "vda") == 0)
    assert house.method() == "scan"
    assert house.method() == "bitmap"
    house.restores_all()


# -- saved memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("managed", [False, True], ids=["save", "managed save"])
def test_a_vm_goes_on_from_its_saved_memory_with_its_change_tracking(
    house: House, tmp_path: Path, managed: bool
) -> None:
    world, host = house.world, house.world.host
    for _ in range(2):
        house.change()
        if managed:
            host.call("managed_save", NAME)
            world.boot()
        else:
            host.call("save", NAME, str(tmp_path / "memory"))
            host.call("restore", str(tmp_path / "memory"))
        assert house.method() == "bitmap"
    world.assert_tidy()
    house.restores_all()


# -- storage that was rolled back -----------------------------------------------------------------


def put_back(copy: Path, image: Path) -> None:
    """Give an image an older content; it stays the same file, as with a snapshot of ZFS."""
    with copy.open("rb") as source, image.open("r+b") as target:
        target.truncate()
        shutil.copyfileobj(source, target)


def test_storage_is_rolled_back_to_before_the_first_backup(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    disk = DiskSpec("vda", size=SIZE)
    with closing(World(libvirtd, tmp_path / "w", NAME, disks=[disk])) as world:
        house, copy = House(world, world.vm.paths["vda"]), tmp_path / "copy"
        with house.off():
            shutil.copyfile(house.base, copy)
        assert [house.method(), house.method()] == ["full", "bitmap"]
        with house.off():
            put_back(copy, house.base)
        assert [house.method(), house.method()] == ["scan", "bitmap"]
        world.assert_tidy()
        house.restores_all()


def test_storage_is_rolled_back_to_a_failed_attempt(house: House, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    house.change()
    house.world.die(Fault("die", "progress"))
    with house.off():
        shutil.copyfile(house.base, copy)
    assert house.method() == "bitmap"
    with house.off():
        put_back(copy, house.base)
    assert [house.method(), house.method()] == ["bitmap", "bitmap"]
    house.world.assert_tidy()
    house.restores_all()


def test_an_image_is_replaced_by_a_copy_of_itself(house: House, tmp_path: Path) -> None:
    with house.off():
        copy = house.base.with_name("copy")
        shutil.copyfile(house.base, copy)
        copy.rename(house.base)
    assert [house.method(), house.method()] == ["scan", "bitmap"]
    house.world.assert_tidy()
    house.restores_all()


def test_a_disk_moves_to_another_file_while_the_vm_runs(house: House) -> None:
    other = house.base.with_name("vdisk 2.img")
    house.change()
    house.world.host.call("begin_copy", NAME, "vda", str(other), "qcow2", 0)
    house.world.host.call("pivot", NAME, "vda")
    house.base.unlink()
    house.world.vm.paths["vda"] = other
    assert [house.method(), house.method()] == ["scan", "bitmap"]
    with house.off():
        pass
    assert house.method() == "bitmap"
    house.world.assert_tidy()
    house.restores_all()


def test_a_vm_can_be_removed_without_any_flag_and_defined_again(house: House) -> None:
    assert house.method() == "bitmap"
    with house.off():
        definition = house.definition
        house.world.host.call("undefine_plainly", NAME)
        house.world.vm.define(definition)
    assert house.method() == "bitmap"
    house.restores_all()
