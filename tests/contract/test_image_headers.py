"""Headers of images in the backup folder: told from wrong ones, and put back or left alone."""

import errno
import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.points import point_disk
from tests.support.qemu_img import named, run
from vm_babysitter.adapters.fingerprint import fingerprints
from vm_babysitter.adapters.qemu.compression import Compression, Zlib, Zstd
from vm_babysitter.adapters.qemu.image_headers import FileImageHeaders
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store import documents
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.errors import Cancelled, Damaged
from vm_babysitter.domain.point import Point, PointDisk

MIB = 1 << 20
GOLDEN = Path(__file__).parents[1] / "data" / "format-1"
HEADERS = FileImageHeaders()
SOAK = os.environ.get("VMB_SOAK") == "1"


def image(
    path: Path,
    size: int = MIB,
    parent: str | None = None,
    compression: Compression | None = None,
    blocks: int = 3,
) -> PointDisk:
    """Write an image whose first blocks hold data; return what the manifest says of it."""
    backing = None if parent is None else f"../{parent}/vda.qcow2"
    writer = Qcow2Writer(path, size, backing, parent and "qcow2", compression)
    data = memoryview(b"x" * BLOCK_SIZE * 3)
    for first in range(0, blocks, 3):
        writer.map_data(first, writer.append(data, list(fingerprints(data))), 3)
    made = writer.finish()
    return replace(
        point_disk(parent=parent, size=size),
        file_size=made.size,
        digest=made.digest,
        compression=made.compression,
    )


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for name in ("000000-full", "000001-inc"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def disk(chain: Path) -> PointDisk:
    image(chain / "000000-full" / "vda.qcow2")
    return image(chain / "000001-inc" / "vda.qcow2", parent="000000-full")


@pytest.fixture
def path(chain: Path, disk: PointDisk) -> Path:
    assert disk.backing
    return chain / "000001-inc" / "vda.qcow2"


@pytest.mark.parametrize("compression", [None, Zstd(), Zlib()])
@pytest.mark.parametrize("parent", [None, "000000-full"])
@pytest.mark.parametrize("size", [3 * BLOCK_SIZE, MIB, 5 * MIB + 512, 1 << 42])
def test_what_was_written_is_what_is_expected(
    tmp_path: Path, size: int, parent: str | None, compression: Compression | None
) -> None:
    path = tmp_path / "vda.qcow2"
    disk = image(path, size, parent, compression)
    before = path.read_bytes()
    assert HEADERS.problem(path, disk) == ""
    assert HEADERS.mend(path, disk)
    path.write_bytes(bytes(CLUSTER) + before[CLUSTER:])
    assert HEADERS.problem(path, disk) == "it is no qcow2 image"
    assert HEADERS.mend(path, disk)
    assert path.read_bytes() == before


@pytest.mark.skipif(not SOAK, reason="writes files of up to 5 GiB; make soak")
@pytest.mark.parametrize("clusters", [32_700, 32_763, 32_766, 32_769, 65_535, 80_001])
def test_a_file_of_any_length_has_one_right_header(tmp_path: Path, clusters: int) -> None:
    path = tmp_path / "vda.qcow2"
    blocks = clusters // 3 * 3
    disk = image(path, blocks * BLOCK_SIZE, blocks=blocks)
    assert HEADERS.problem(path, disk) == ""
    erase(path)
    assert HEADERS.mend(path, disk)
    assert digest_file(path) == disk.digest
    path.unlink()


def test_images_of_the_first_version_are_what_is_expected(tmp_path: Path) -> None:
    count = 0
    for manifest in GOLDEN.rglob("point.json"):
        point = documents.read(manifest, "point", Point)
        for disk in point.disks:
            path = tmp_path / "image"
            path.write_bytes(gzip.decompress((manifest.parent / f"{disk.file}.gz").read_bytes()))
            assert HEADERS.problem(path, disk) == ""
            count += 1
    assert count > 2


def rebase(path: Path) -> None:
    run("qemu-img", "rebase", "-u", "-b", "../000009-inc/vda.qcow2", "-F", "qcow2", str(path))


def unlink(path: Path) -> None:
    run("qemu-img", "rebase", "-u", "-b", "", str(path))


def grow(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(24)
        file.write((2 * MIB).to_bytes(8, "big"))


def tear(path: Path) -> None:
    """As a write of a header that was cut off would leave it."""
    with path.open("r+b") as file:
        file.write(b"\0" * 1000)


def erase(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * CLUSTER)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rebase, "it builds on '../000009-inc/vda.qcow2', not on '../000000-full/vda.qcow2'"),
        (unlink, "it builds on None, not on '../000000-full/vda.qcow2'"),
        (grow, "its header is not what was written"),
        (tear, "it is no qcow2 image"),
        (erase, "it is no qcow2 image"),
    ],
)
def test_a_wrong_header_is_told_and_put_back(
    path: Path, disk: PointDisk, damage: Callable[[Path], None], words: str
) -> None:
    before = path.read_bytes()
    damage(path)
    damaged = path.read_bytes()
    assert damaged != before
    assert HEADERS.problem(path, disk) == words
    assert path.read_bytes() == damaged  # a look writes nothing
    read: list[int] = []
    assert HEADERS.mend(path, disk, read.append)
    assert sum(read) == disk.file_size
    assert path.read_bytes() == before
    assert HEADERS.problem(path, disk) == ""
    assert digest_file(path) == disk.digest
    run("qemu-img", "check", named(path))


@settings(max_examples=30)
@given(place=st.integers(0, 4095), bit=st.integers(0, 7))
def test_any_flipped_bit_that_a_header_tells_is_found_and_put_back(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "vda.qcow2"
    disk = image(path, parent="000000-full")
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    assert HEADERS.problem(path, disk)
    assert HEADERS.mend(path, disk)
    assert digest_file(path) == disk.digest


@pytest.mark.parametrize("damage", [rebase, None])
def test_an_image_with_other_damage_is_left_as_it_is(
    path: Path, disk: PointDisk, damage: Callable[[Path], None] | None
) -> None:
    if damage is not None:
        damage(path)
    content = bytearray(path.read_bytes())
    content[CLUSTER + 100] ^= 1
    path.write_bytes(content)
    assert not HEADERS.mend(path, disk)
    assert path.read_bytes() == content


def test_stopping_it_leaves_the_image_as_it_is(path: Path, disk: PointDisk) -> None:
    rebase(path)
    before = path.read_bytes()

    def stop(_amount: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        HEADERS.mend(path, disk, stop)
    assert path.read_bytes() == before


def test_an_image_that_is_too_short_or_gone(path: Path, disk: PointDisk) -> None:
    path.write_bytes(path.read_bytes()[:50])
    assert HEADERS.problem(path, disk)
    assert not HEADERS.mend(path, disk)
    path.unlink()
    for look in (HEADERS.problem, HEADERS.mend):
        with pytest.raises(Damaged):
            look(path, disk)
    path.mkdir()
    with pytest.raises(Damaged, match="it is no file"):
        HEADERS.problem(path, disk)


def test_an_image_that_its_medium_cannot_give_back_is_not_mended(
    path: Path, disk: PointDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with path.open("r+b") as file:
        file.write(bytes(CLUSTER))

    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    assert not HEADERS.mend(path, disk)
