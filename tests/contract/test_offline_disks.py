"""Disks of VMs that are off, as their images tell: real images, read by QEMU's tools."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.qemu_img import named, opened, run
from vm_babysitter.adapters.image_lock import is_written
from vm_babysitter.adapters.qemu.offline_bitmaps import QemuOfflineBitmaps
from vm_babysitter.adapters.qemu.offline_disks import ImageDisks
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.adapters.real_path import RealPath
from vm_babysitter.domain.blocks import Piece
from vm_babysitter.domain.errors import ImageUnreadable
from vm_babysitter.domain.vm import Disk, DiskKind
from vm_babysitter.ports import OfflineDisk

MIB = 1 << 20
SIZE = 4 * MIB
_FORMAT_OF_BACKING_FILE = bytes.fromhex("e2792aca")  # what its header extension begins with
ODD = "- a: \"b\", 'c' & 日本.qcow2"


@pytest.fixture
def disks() -> ImageDisks:
    return ImageDisks(QemuImageTool(), is_written)


def disk(path: Path, real: str = "qcow2", declared: str = "", *, encrypted: bool = False) -> Disk:
    return Disk(
        target="vda",
        kind=DiskKind.DISK,
        source_type="file",
        source=str(path),
        path=str(path),
        declared_format=declared or real,
        real_format=real,
        virtual_size=SIZE,
        encrypted=encrypted,
    )


def create(path: Path, *options: str, size: int | None = SIZE, format: str = "qcow2") -> Path:
    sizes = [] if size is None else [str(size)]
    run("qemu-img", "create", "-q", "-f", format, *options, "--", str(path), *sizes)
    return path


def write(path: Path, offset: int, pattern: int, length: int = 65536, fmt: str = "qcow2") -> None:
    run("qemu-io", "-c", f"write -P {pattern} {offset} {length}", named(path, fmt))


def content(disks: ImageDisks, found: OfflineDisk) -> bytes:
    """Read all of a disk."""
    with disks.open(found, None) as reader:
        data = bytearray(reader.size)

        def keep(piece: Piece, _: None, memory: memoryview) -> None:
            data[piece.offset : piece.offset + piece.length] = memory

        reader.read([(Piece(i, MIB), None) for i in range(0, reader.size, MIB)], keep)
    return bytes(data)


def of(*parts: tuple[int, int]) -> bytes:
    """A disk with a repeated byte in 64 KiB at each of these offsets."""
    data = bytearray(SIZE)
    for offset, pattern in parts:
        data[offset : offset + 65536] = bytes([pattern]) * 65536
    return bytes(data)


def test_a_qcow2_with_an_odd_name(disks: ImageDisks, tmp_path: Path) -> None:
    path = create(tmp_path / ODD)
    write(path, MIB, 0x11)
    QemuOfflineBitmaps(is_written).add(path, "vmb-x")
    before = path.read_bytes()
    found = disks.look(disk(path))
    (layer,) = found.state.layers
    (bitmap,) = layer.bitmaps
    assert (layer.path, found.images) == (str(path), ((path, "qcow2"),))
    assert (bitmap.name, bitmap.recording, bitmap.inconsistent) == ("vmb-x", True, False)
    assert found.state.identity == f"inode:{path.stat().st_ino}"
    assert content(disks, found) == of((MIB, 0x11))
    with disks.open(found, "vmb-x") as reader:
        assert not any(flag for _, _, flag in reader.dirty_map())
    assert path.read_bytes() == before
    write(path, 2 * MIB, 0x22)
    with disks.open(found, "vmb-x") as reader:
        dirty = [(start, end) for start, end, flag in reader.dirty_map() if flag]
    assert dirty == [(2 * MIB, 2 * MIB + 65536)]


def test_layers_are_followed_as_qemu_follows_them(disks: ImageDisks, tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    base = create(tmp_path / "bases" / "base.img", format="raw")
    write(base, 0, 0x11, fmt="raw")
    middle = create(tmp_path / "m: 'x'.qcow2", "-b", "bases/base.img", "-F", "raw", size=None)
    write(middle, MIB, 0x22)
    top = create(tmp_path / ODD, "-b", str(middle), "-F", "qcow2", size=None)
    write(top, 2 * MIB, 0x33)
    found = disks.look(disk(top))
    assert found.images == ((top, "qcow2"), (middle, "qcow2"), (base, "raw"))
    assert [layer.path for layer in found.state.layers] == [str(p) for p, _ in found.images]
    assert [stamp.path for stamp in found.stamps] == [str(p) for p, _ in found.images]
    assert content(disks, found) == of((0, 0x11), (MIB, 0x22), (2 * MIB, 0x33))


def test_an_image_is_read_as_the_vm_uses_it(disks: ImageDisks, tmp_path: Path) -> None:
    path = create(tmp_path / "a.img")
    write(path, MIB, 0x11)
    found = disks.look(disk(path, "qcow2", "raw"))
    assert found.images == ((path, "raw"),)
    assert found.state.layers[0].bitmaps == ()
    with disks.open(found, None) as reader:
        assert reader.size == path.stat().st_size


@pytest.mark.parametrize("raw", ["on", "off"])
def test_a_data_file_is_part_of_it(disks: ImageDisks, tmp_path: Path, raw: str) -> None:
    data = tmp_path / "data, file.raw"
    escaped = str(data).replace(",", ",,")
    path = create(tmp_path / "a.qcow2", "-o", f"data_file={escaped},data_file_raw={raw}")
    write(path, MIB, 0x11)
    found = disks.look(disk(path))
    assert [stamp.path for stamp in found.stamps] == [str(path), str(data)]
    assert content(disks, found) == of((MIB, 0x11))
    assert not disks.writer(found)


def test_what_only_qemu_could_read_is_refused_with_the_reason(
    disks: ImageDisks, tmp_path: Path
) -> None:
    base = create(tmp_path / "base.qcow2")
    guessed = tmp_path / "guessed.qcow2"
    create(guessed, "-b", str(base), "-F", "qcow2", size=None)
    header = guessed.read_bytes()
    guessed.write_bytes(header.replace(_FORMAT_OF_BACKING_FILE, b"none", 1))
    with pytest.raises(ImageUnreadable, match="only while the VM runs"):
        disks.look(disk(guessed))
    with pytest.raises(ImageUnreadable, match="encrypted"):
        disks.look(disk(base, encrypted=True))
    top = create(tmp_path / "top.qcow2", "-b", str(base), "-F", "qcow2", size=None)
    base.rename(tmp_path / "away")
    with pytest.raises(ImageUnreadable, match=r"base.qcow2.*is not there"):
        disks.look(disk(top))
    with pytest.raises(ImageUnreadable, match="No such file"):
        disks.look(disk(tmp_path / "nothing"))


def test_stamps_behind_fuse_tell_nothing(tmp_path: Path) -> None:
    base = create(tmp_path / "base.qcow2")
    top = create(tmp_path / "top.qcow2", "-b", str(base), "-F", "qcow2", size=None)

    def behind(path: str) -> RealPath:
        return RealPath(path, direct=path != str(base))

    disks = ImageDisks(QemuImageTool(), is_written, behind)
    found = disks.look(disk(top))
    assert [stamp.telling for stamp in found.stamps] == [True, False]
    assert disks.stamps([stamp.path for stamp in found.stamps]) == found.stamps


def test_stamps_tell_every_write(disks: ImageDisks, tmp_path: Path) -> None:
    path = create(tmp_path / "a.qcow2")
    write(path, 0, 0x11)
    found = disks.look(disk(path))
    names = [stamp.path for stamp in found.stamps]
    assert disks.stamps(names) == found.stamps
    content(disks, found)
    assert disks.stamps(names) == found.stamps  # reading does not show
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    write(path, 0, 0x22)
    os.utime(path, ns=times)  # as one does who hides it, or `cp --preserve`
    (now,) = disks.stamps(names)
    (then,) = found.stamps
    assert (now.modified, now.size, now.inode) == (then.modified, then.size, then.inode)
    assert now != then
    path.unlink()
    with pytest.raises(ImageUnreadable):
        disks.stamps(names)


def test_writers_are_seen_and_readers_do_not_count(disks: ImageDisks, tmp_path: Path) -> None:
    base = create(tmp_path / "base.qcow2")
    top = create(tmp_path / "top.qcow2", "-b", str(base), "-F", "qcow2", size=None)
    found = disks.look(disk(top))
    assert disks.writer(found) == ""
    with opened(top, writing=False):
        assert disks.writer(found) == ""
    with opened(top):
        assert disks.writer(found) == str(top)
    with opened(base):
        assert disks.writer(found) == str(base)
    assert disks.writer(found) == ""
    with disks.open(found, None), opened(top):
        pass  # whoever wants to write can, while we read


def layered(folder: Path) -> tuple[Path, Path, Path]:
    """Two bases, and a disk over the first that names it by a relative path."""
    bases = create(folder / "base.qcow2"), create(folder / "other.qcow2")
    return *bases, create(folder / ODD, "-b", "base.qcow2", "-F", "qcow2", size=None)


def test_beneath_a_link_is_what_lies_beside_the_link(disks: ImageDisks, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "vms").mkdir()
    _, _, image = layered(tmp_path / "pool")
    base = create(tmp_path / "vms" / "base.qcow2")
    write(base, MIB, 7)
    link = tmp_path / "vms" / "disk.qcow2"
    link.symlink_to(image)
    found = disks.look(replace(disk(image), source=str(link)))
    assert [path for path, _ in found.images] == [image, base]
    assert content(disks, found) == of((MIB, 7))


def test_what_the_definition_says_of_layers_must_be_what_the_images_say(
    disks: ImageDisks, tmp_path: Path
) -> None:
    base, other, image = layered(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(base)
    told: dict[tuple[tuple[str, str], ...], bool] = {
        (): True,
        ((str(base), "qcow2"),): True,
        ((str(link), "qcow2"), ("", "")): True,
        ((str(other), "qcow2"), ("", "")): False,
        ((str(base), "raw"),): False,
        (("", ""),): False,
        (("nbd:export", "raw"),): False,
        ((str(base), "qcow2"), (str(other), "qcow2")): False,
    }
    for beneath, right in told.items():
        asked = replace(disk(image), beneath=beneath)
        if right:
            assert len(disks.look(asked).images) == 2
        else:
            with pytest.raises(ImageUnreadable, match="names other images beneath it"):
                disks.look(asked)


def test_a_part_of_an_image_is_not_taken_for_all_of_it(disks: ImageDisks, tmp_path: Path) -> None:
    image = create(tmp_path / "x.raw", format="raw")
    with pytest.raises(ImageUnreadable, match="only a part") as caught:
        disks.look(replace(disk(image, "raw"), partial=True))
    assert caught.value.hint == "Back the VM up while it runs."
