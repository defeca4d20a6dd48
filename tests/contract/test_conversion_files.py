"""Images that are converted: QEMU kept from them for a moment, nothing overwritten or mistaken."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.nbd_server import wait_until
from tests.support.qemu_img import named
from tests.support.shares import UnraidMounts, unraid_mounts
from vm_babysitter.adapters.conversion_files import LocalConversionFiles
from vm_babysitter.adapters.image_lock import is_written
from vm_babysitter.adapters.real_path import RealPath
from vm_babysitter.domain.errors import Busy, ConversionFailed, Damaged, NotConverted
from vm_babysitter.domain.vm import Vm
from vm_babysitter.ports import DiskSource

FILES = LocalConversionFiles()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "-a 'b', c:d.img"
    path.write_bytes(bytes(1 << 20))
    return path


def written_by_qemu(image: Path) -> str:
    """Have QEMU write to an image; return what it complains of."""
    argv = ["qemu-io", "-c", "write -P 1 0 512", named(image, "raw")]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stderr


@contextmanager
def opened_by_qemu(image: Path) -> Iterator[None]:
    argv = ["qemu-nbd", "-t", "-k", str(image.with_name("s")), named(image, "raw")]
    with subprocess.Popen(argv) as server:
        try:
            wait_until(lambda: is_written(image))
            yield
        finally:
            server.terminate()


def test_qemu_is_kept_from_writing_for_as_long_as_the_fence_stands(image: Path) -> None:
    before = image.stat()
    with FILES.fence(str(image)):
        assert 'Failed to get "write" lock' in written_by_qemu(image)
        assert image.stat() == before
        read = ["qemu-io", "-r", "-U", "-c", "read 0 512", str(image)]
        subprocess.run(read, check=True, capture_output=True)
        with FILES.fence(str(image)):  # a fence is no writer
            pass
    assert written_by_qemu(image) == ""


def test_where_qemu_writes_already_there_is_no_fence(image: Path) -> None:
    with opened_by_qemu(image):
        with pytest.raises(Busy, match="open for writing"), FILES.fence(str(image)):
            pytest.fail("there was one")
        assert "qemu-nbd" in FILES.writer(str(image))
    assert FILES.writer(str(image)) == ""


def test_only_one_has_a_claim(image: Path) -> None:
    with FILES.claim(str(image)), pytest.raises(Busy), FILES.claim(str(image)):
        pytest.fail("two have")
    with FILES.claim(str(image)), FILES.claim("another"):
        pass


def test_a_name_that_is_taken_is_not_given(image: Path) -> None:
    other = image.with_name("other")
    for there in (lambda: other.write_bytes(b"mine"), lambda: other.symlink_to("nowhere")):
        there()
        with pytest.raises(ConversionFailed, match="File exists"):
            FILES.place(str(image), str(other))
        assert image.exists()
        other.unlink()
    FILES.place(str(image), str(other))
    assert (image.exists(), other.stat().st_nlink) == (False, 1)


def test_only_plain_files_are_removed(image: Path) -> None:
    link, folder = image.with_name("link"), image.with_name("folder")
    link.symlink_to(image)
    folder.mkdir()
    for path in (link, folder, image.with_name("nothing")):
        FILES.remove(str(path))
    assert (link.is_symlink(), folder.is_dir(), image.exists()) == (True, True, True)
    FILES.remove(str(image))
    assert not image.exists()


def test_a_link_in_the_place_of_a_new_file_leads_to_nothing(image: Path) -> None:
    """Others may write to the folder of the images, too."""
    victim, link = image.with_name("victim"), image.with_name("link")
    victim.touch(0o600)
    link.symlink_to(victim)
    image.chmod(0o666)
    with pytest.raises(ConversionFailed):
        FILES.dress(str(link), str(image))
    assert victim.stat().st_mode & 0o777 == 0o600


def test_a_note_that_is_no_plain_file_is_not_waited_for(image: Path) -> None:
    pipe = image.with_name("pipe")
    os.mkfifo(pipe)
    link = image.with_name("link")
    link.symlink_to(image)
    for path in (pipe, link):
        with pytest.raises(Damaged, match="no plain file"):
            FILES.read_note(str(path))
    assert FILES.read_note(str(image.with_name("nothing"))) is None


def test_every_write_changes_what_is_told_of_a_file(image: Path) -> None:
    seen = [FILES.look(str(image))]
    with image.open("r+b") as file:
        file.write(b"x")
    seen.append(FILES.look(str(image)))
    os.utime(image, ns=(0, image.stat().st_mtime_ns))
    image.chmod(0o600)
    seen.append(FILES.look(str(image)))
    assert None not in seen
    assert len({found.mark for found in seen if found}) == 3
    assert FILES.look(str(image / "x")) is None


class Share(House):
    """The disk's definition names it in a share; it lies on a pool."""

    def __init__(self, mounts: UnraidMounts, folder: Path) -> None:
        super().__init__(folder)
        self.mounts = mounts
        self.files._resolve = self.resolve
        self.shown = mounts.shown(self.raw)
        self.vm.disks["vda"].path = str(self.shown)
        describe = self.vm.describe
        self.vm.describe = lambda: self.resolved(describe())  # type: ignore[method-assign]

    def resolve(self, path: str) -> RealPath:
        """Unraid's shfs knows where each file lies; here the file has to say so."""
        real = self.mounts.cache / Path(path).relative_to(self.mounts.user)
        if real.exists():
            self.mounts.locate(real)
        return self.mounts.resolve(path)

    def resolved(self, vm: Vm) -> Vm:
        (disk,) = vm.disks
        place = self.resolve(disk.source)
        return replace(vm, disks=(replace(disk, path=place.path, direct=place.direct),))


def test_the_new_image_is_made_on_the_pool_and_named_in_the_share(tmp_path: Path) -> None:
    with unraid_mounts(tmp_path / "mnt") as mounts:
        folder = mounts.cache / "domains"
        folder.mkdir()
        house = Share(mounts, folder)
        result = house.convert()
        assert (result.image, result.kept) == (str(mounts.shown(house.new)), str(house.shown))
        assert house.source == DiskSource(str(mounts.shown(house.new)), "qcow2")
        assert house.new.exists()
        house.back()
        assert house.source == DiskSource(str(house.shown), "raw")


def test_an_image_that_cannot_be_found_beneath_the_share_is_left_alone(tmp_path: Path) -> None:
    with unraid_mounts(tmp_path / "mnt") as mounts:
        folder = mounts.cache / "domains"
        folder.mkdir()
        house = Share(mounts, folder)
        mounts.locate(house.raw, "elsewhere")
        house.resolve = mounts.resolve  # type: ignore[method-assign]
        with pytest.raises(NotConverted, match="lies in a share"):
            house.convert()
        assert list(folder.iterdir()) == [house.raw]
