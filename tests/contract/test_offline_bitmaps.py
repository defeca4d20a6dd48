"""Bitmaps in images of VMs that are off: the fake and ``qemu-img`` alike."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.hypervisor import FakeHypervisor
from tests.support.fakes.offline import FakeOfflineBitmaps
from tests.support.mounts import ram_disk
from tests.support.qemu_img import info, named, opened, run
from tests.support.shares import UnraidMounts, unraid_mounts
from vm_babysitter.adapters import image_lock
from vm_babysitter.adapters.qemu import img
from vm_babysitter.adapters.qemu.offline_bitmaps import QemuOfflineBitmaps
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.domain.errors import (
    Busy,
    CommandFailed,
    ImageRefused,
    ImageUnreadable,
    NotEnoughSpace,
)
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.ports import OfflineBitmaps

MIB = 1 << 20
SIZE = 8 * MIB
NAMES = ("vmb-0000000a-000000-aaaaaa-vda", "-x", "--help", "a, b: \"c\" 'd' {e}", "日本 ü")
HEALTHY, BROKEN = frozenset({"auto"}), frozenset({"auto", "in-use"})


class Bench(Protocol):
    """Images, and bitmaps in them."""

    @property
    def bitmaps(self) -> OfflineBitmaps: ...

    def image(self, format: str = "qcow2", compat: str = "1.1") -> Path:
        """Make one."""

    def names(self, image: Path) -> set[str]:
        """Return the names of its bitmaps, all of which are healthy."""

    def in_use(self, image: Path) -> AbstractContextManager[None]:
        """Have the VM of an image run."""


class FakeImages:
    """The fake."""

    def __init__(self) -> None:
        self.hypervisor = FakeHypervisor()
        self.bitmaps = FakeOfflineBitmaps(self.hypervisor)

    def image(self, format: str = "qcow2", compat: str = "1.1") -> Path:
        vm = self.hypervisor.add("vm", FakeDisk(format=format, compat=compat))
        vm.state = PowerState.OFF
        return Path(vm.disks["vda"].path)

    def names(self, image: Path) -> set[str]:
        (disk,) = (d for vm in self.hypervisor.machines.values() for d in vm.disks.values())
        assert all(b.stored and not b.inconsistent for b in disk.layers[0].bitmaps.values())
        return set(disk.layers[0].bitmaps)

    @contextmanager
    def in_use(self, image: Path) -> Iterator[None]:
        (vm,) = self.hypervisor.machines.values()
        vm.start()
        yield
        vm.stop()


class RealImages:
    """``qemu-img``, with images of odd names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / '-a "b" , c:d é %s\'{}'
        self.folder.mkdir()
        self.bitmaps = QemuOfflineBitmaps()

    def image(self, format: str = "qcow2", compat: str = "1.1") -> Path:
        path = self.folder / f"-vda: x,y={{z}}.{format}"
        options = ["-o", f"compat={compat}"] if format == "qcow2" else []
        run("qemu-img", "create", "-q", "-f", format, *options, "--", path, str(SIZE))
        return path

    def names(self, image: Path) -> set[str]:
        return {name for name, flags in flags_of(image).items() if flags == HEALTHY}

    @contextmanager
    def in_use(self, image: Path) -> Iterator[None]:
        with opened(image):
            yield


def flags_of(image: Path) -> dict[str, frozenset[str]]:
    return dict(img.info(image).bitmaps)


def assert_sound(image: Path) -> None:
    """Neither errors nor leaked clusters; the file may end with clusters that are free again."""
    assert img.check(image) == ""


class OfflineBitmapsContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        raise NotImplementedError

    def test_bitmap_that_is_added_is_there_until_it_is_removed(self, bench: Bench) -> None:
        image = bench.image()
        for name in NAMES:
            bench.bitmaps.add(image, name)
        assert bench.names(image) == set(NAMES)
        for number, name in enumerate(NAMES, start=1):
            bench.bitmaps.remove(image, name)
            assert bench.names(image) == set(NAMES[number:])

    def test_bitmap_of_a_name_that_is_there_is_not_added(self, bench: Bench) -> None:
        image = bench.image()
        bench.bitmaps.add(image, "b")
        with pytest.raises(ImageRefused, match="already"):
            bench.bitmaps.add(image, "b")
        assert bench.names(image) == {"b"}

    def test_bitmap_that_is_not_there_is_removed_already(self, bench: Bench) -> None:
        image = bench.image()
        bench.bitmaps.remove(image, "b")
        with bench.in_use(image):
            bench.bitmaps.remove(image, "b")

    def test_image_that_is_in_use_is_left_alone(self, bench: Bench) -> None:
        image = bench.image()
        bench.bitmaps.add(image, "old")
        with bench.in_use(image):
            with pytest.raises(Busy):
                bench.bitmaps.add(image, "new")
            with pytest.raises(Busy):
                bench.bitmaps.remove(image, "old")
        assert bench.names(image) == {"old"}
        bench.bitmaps.add(image, "new")
        bench.bitmaps.remove(image, "old")
        assert bench.names(image) == {"new"}

    @pytest.mark.parametrize(("format", "compat"), [("raw", ""), ("qcow2", "0.10"), ("vdi", "")])
    def test_image_that_holds_no_bitmaps_gets_none(
        self, bench: Bench, format: str, compat: str
    ) -> None:
        image = bench.image(format, compat)
        with pytest.raises(ImageRefused, match="version 3"):
            bench.bitmaps.add(image, "b")
        bench.bitmaps.remove(image, "b")

    def test_missing_image_is_named(self, bench: Bench) -> None:
        missing = bench.image().with_name("missing")
        for change in (bench.bitmaps.add, bench.bitmaps.remove):
            with pytest.raises(ImageUnreadable, match="No such file") as caught:
                change(missing, "b")
            assert caught.value.path == str(missing)


class TestFake(OfflineBitmapsContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return FakeImages()


class TestQemuImg(OfflineBitmapsContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return RealImages(tmp_path)


# -- what only real images meet -------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return RealImages(tmp_path).image()


def raw_add(image: Path, *names: str) -> None:
    for name in names:
        run("qemu-img", "bitmap", "--add", named(image), name)


def break_bitmaps(image: Path) -> None:
    """Kill a writer, which leaves all bitmaps in use."""
    done = subprocess.run(["qemu-io", "-c", "sigraise 9", named(image)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_bitmap_records_from_now_on(image: Path) -> None:
    raw_add(image, "older")
    run("qemu-io", "-c", "write -P 1 0 64k", named(image))
    QemuOfflineBitmaps().add(image, "b")
    run("qemu-io", "-c", "write -P 2 4M 64k", named(image))
    wanted = {"b": [(4 * MIB, 4 * MIB + 65536)]}
    wanted["older"] = [(0, 65536), *wanted["b"]]
    for name, ranges in wanted.items():
        with QemuImageTool().open_for_reading([(image, "qcow2")], name) as reader:
            assert [(r.start, r.end) for r in reader.dirty_map() if r.flag] == ranges
    assert_sound(image)


def test_damaged_bitmaps_are_removed_and_in_nobodys_way(image: Path) -> None:
    raw_add(image, "old", "foreign")
    break_bitmaps(image)
    assert flags_of(image) == {"old": BROKEN, "foreign": BROKEN}
    QemuOfflineBitmaps().add(image, "new")
    QemuOfflineBitmaps().remove(image, "old")
    assert flags_of(image) == {"new": HEALTHY, "foreign": BROKEN}


def test_bitmap_that_does_not_record_stays_so(image: Path) -> None:
    raw_add(image, "foreign")
    run("qemu-img", "bitmap", "--disable", named(image), "foreign")
    before = flags_of(image)
    QemuOfflineBitmaps().add(image, "new")
    QemuOfflineBitmaps().remove(image, "new")
    assert flags_of(image) == before == {"foreign": frozenset()}


def test_layers_below_are_not_needed_and_the_link_to_them_stays(image: Path) -> None:
    top = image.with_name("top, 2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "./" + image.name, "-F", "qcow2", top)
    image.rename(image.with_name("away"))
    before = info(top)["backing-filename"], info(top)["backing-filename-format"]
    QemuOfflineBitmaps().add(top, "b")
    assert (info(top)["backing-filename"], info(top)["backing-filename-format"]) == before
    assert flags_of(top) == {"b": HEALTHY}


def test_reader_that_does_not_share_makes_it_busy(image: Path) -> None:
    with (
        opened(image, writing=False),
        pytest.raises(Busy, match="has it open"),
    ):
        QemuOfflineBitmaps().add(image, "b")
    assert flags_of(image) == {}


def test_reader_that_shares_is_in_nobodys_way(image: Path) -> None:
    with QemuImageTool().open_for_reading([(image, "qcow2")]):
        QemuOfflineBitmaps().add(image, "b")
    assert flags_of(image) == {"b": HEALTHY}


def test_program_that_is_not_of_qemu_and_writes_makes_it_busy(image: Path) -> None:
    with image.open("r+b"), pytest.raises(Busy, match=str(os.getpid())):
        QemuOfflineBitmaps().add(image, "b")
    assert flags_of(image) == {}


def test_writer_that_comes_meanwhile_by_a_way_without_locks_is_no_success(image: Path) -> None:
    asked: list[Path] = []

    def is_written(path: Path) -> bool:
        asked.append(path)
        return len(asked) > 1

    with pytest.raises(Busy):
        QemuOfflineBitmaps(is_written).add(image, "b")
    assert len(asked) == 2


def test_image_on_a_full_file_system_is_left_alone(tmp_path: Path) -> None:
    """QEMU would lose all bitmaps, and end as if nothing had happened."""
    with ram_disk(tmp_path / "small", 12 * MIB) as folder:
        image = RealImages(folder).image()
        raw_add(image, "old")
        for change in (QemuOfflineBitmaps().add, QemuOfflineBitmaps().remove):
            with pytest.raises(NotEnoughSpace):
                change(image, "old" if change.__name__ == "remove" else "new")
        assert flags_of(image) == {"old": HEALTHY}


def test_space_that_ends_all_the_same_is_an_error_and_harms_no_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ram_disk(tmp_path / "small", 64 * MIB) as folder:
        image = RealImages(folder).image()
        run("qemu-io", "-c", "write -P 7 1M 1M", named(image))
        raw_add(image, "old")
        reference = tmp_path / "reference"
        run("qemu-img", "convert", "-O", "raw", named(image), reference)

        taken = folder / "fill"  # between our look at the space and qemu-img
        with monkeypatch.context() as patched:
            take = f"dd if=/dev/zero of={taken} bs=64k 2>/dev/null"
            prepend_qemu_img(patched, tmp_path / "bin", take)
            with pytest.raises(CommandFailed, match="No space left"):
                QemuOfflineBitmaps().add(image, "new")
        taken.unlink()
        run("qemu-img", "compare", named(image), named(reference, "raw"))
        assert_sound(image)
        assert flags_of(image) == {"old": BROKEN}
        QemuOfflineBitmaps().remove(image, "old")
        QemuOfflineBitmaps().add(image, "newer")
        assert flags_of(image) == {"newer": HEALTHY}


def prepend_qemu_img(patched: pytest.MonkeyPatch, folder: Path, command: str) -> None:
    """Have a shell command run before each ``qemu-img bitmap``."""
    folder.mkdir()
    script = folder / "qemu-img"
    real = shutil.which("qemu-img")
    script.write_text(f'#!/bin/sh\n[ "$1" != bitmap ] || {command}\nexec {real} "$@"\n')
    script.chmod(0o755)
    patched.setenv("PATH", str(folder), prepend=os.pathsep)


# -- behind a file system in user space, where locks do not hold -----------------------------


@pytest.fixture(scope="module")
def unraid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnraidMounts]:
    with unraid_mounts(tmp_path_factory.mktemp("mnt")) as mounts:
        yield mounts


@pytest.fixture
def vdisk(unraid: UnraidMounts, request: pytest.FixtureRequest) -> Path:
    """An image in the pool, with a bitmap; it does not say where it lies."""
    folder = unraid.cache / str(abs(hash(request.node.name)))
    folder.mkdir()
    path = RealImages(folder).image()
    raw_add(path, "old")
    return path


@pytest.mark.parametrize("held", [False, True])
def test_image_that_cannot_be_found_beneath_is_not_written(
    unraid: UnraidMounts, vdisk: Path, held: bool
) -> None:
    bitmaps, shown = QemuOfflineBitmaps(resolve=unraid.resolve), unraid.shown(vdisk)
    with ExitStack() as stack:
        if held:
            stack.enter_context(opened(vdisk))
        before = vdisk.read_bytes()
        for change, name in ((bitmaps.add, "new"), (bitmaps.remove, "old")):
            with pytest.raises(ImageRefused, match="FUSE") as caught:
                change(shown, name)
            assert caught.value.path == str(shown)
        bitmaps.remove(shown, "not there")
        assert vdisk.read_bytes() == before


def test_image_that_is_found_beneath_is_written_when_nobody_has_it_open(
    unraid: UnraidMounts, vdisk: Path
) -> None:
    unraid.locate(vdisk)
    bitmaps, shown = QemuOfflineBitmaps(resolve=unraid.resolve), unraid.shown(vdisk)
    with opened(vdisk):
        for change, name in ((bitmaps.add, "new"), (bitmaps.remove, "old")):
            with pytest.raises(Busy):
                change(shown, name)
    assert flags_of(vdisk) == {"old": HEALTHY}
    bitmaps.add(shown, "new")
    bitmaps.remove(shown, "old")
    assert flags_of(vdisk) == {"new": HEALTHY}
    assert_sound(vdisk)


def test_writer_through_the_share_makes_the_image_beneath_busy(
    unraid: UnraidMounts, vdisk: Path
) -> None:
    unraid.locate(vdisk)
    bitmaps, shown = QemuOfflineBitmaps(resolve=unraid.resolve), unraid.shown(vdisk)
    with opened(shown):
        assert not image_lock.is_written(vdisk)
        with pytest.raises(Busy, match="bindfs"):
            bitmaps.add(shown, "new")
    assert set(flags_of(vdisk)) == {"old"}
