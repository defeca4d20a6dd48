"""Our qcow2 files where the file system fails: never complete, never somebody else's damage."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.layers import content, shrinking
from tests.support.qemu_img import run
from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.compression import Compression, Zlib, Zstd
from vm_babysitter.adapters.qemu.qcow2_format import CLUSTER
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer
from vm_babysitter.domain.blocks import BLOCK_SIZE
from vm_babysitter.domain.errors import StoreFailed

MIB = 1 << 20
TIB = 1 << 40


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    yield folder
    run("umount", "--lazy", folder)  # a failed test may leave a file open


def test_a_full_disk_fails_the_append_and_everything_after(tiny: Path) -> None:
    writer = Qcow2Writer(tiny / "vda.qcow2", 4 * MIB)
    data = memoryview(content("x", MIB))
    writer.map_data(0, writer.append(data[: 8 * BLOCK_SIZE], list(fingerprints(data))[:8]), 8)
    with pytest.raises(StoreFailed, match="No space left") as caught:
        writer.append(data, list(fingerprints(data)))
    assert caught.value.path == str(tiny / "vda.qcow2")
    writer.map_data(8, 9, 16)
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()
    writer.discard()


def test_a_failed_append_is_not_forgotten_when_space_comes_back(tiny: Path) -> None:
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(950_000))
    writer = Qcow2Writer(tiny / "vda.qcow2", 2 * BLOCK_SIZE)
    data = content("x", 2 * BLOCK_SIZE)
    with pytest.raises(StoreFailed):
        writer.append(memoryview(data), list(fingerprints(data)))
    ballast.unlink()
    writer.map_data(0, 1, 2)
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()


@pytest.mark.parametrize("room", range(1, 6))
def test_a_disk_that_is_full_at_the_metadata_fails_the_finish(tiny: Path, room: int) -> None:
    (tiny / "ballast").write_bytes(bytes(MIB - room * CLUSTER))
    writer = Qcow2Writer(tiny / "vda.qcow2", BLOCK_SIZE)
    data = content("x")
    writer.map_data(0, writer.append(memoryview(data), [fingerprint(data)]), 1)
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()
    writer.discard()


def pack(writer: Qcow2Writer, first: int) -> int:
    """Append and map 8 blocks, of which half shrink by half. Returns the block after them."""
    data = b"".join(shrinking(n, (32000, 64000)[n % 2]) for n in range(first, first + 8))
    writer.map_data(first, writer.append(memoryview(data), list(fingerprints(data))), 8)
    return first + 8


def test_a_full_disk_fails_the_append_of_compressed_blocks_and_the_finish(tiny: Path) -> None:
    writer = Qcow2Writer(tiny / "vda.qcow2", 8 * MIB, compression=Zstd())
    assert pack(writer, pack(writer, 0)) == 16
    with pytest.raises(StoreFailed, match="No space left") as caught:
        pack(writer, 16)
    assert caught.value.path == str(tiny / "vda.qcow2")
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()
    writer.discard()


def test_a_failed_append_of_compressed_blocks_is_not_forgotten_when_space_comes_back(
    tiny: Path,
) -> None:
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(850_000))
    writer = Qcow2Writer(tiny / "vda.qcow2", 8 * BLOCK_SIZE, compression=Zlib())
    with pytest.raises(StoreFailed):
        pack(writer, 0)
    ballast.unlink()
    writer.map_data(0, 0, 8)  # as if the caller had not noticed
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()


@pytest.mark.parametrize("room", range(1, 6))
def test_a_disk_that_is_full_at_the_cluster_being_packed_or_later_fails_the_finish(
    tiny: Path, room: int
) -> None:
    (tiny / "ballast").write_bytes(bytes(MIB - room * CLUSTER))
    writer = Qcow2Writer(tiny / "vda.qcow2", BLOCK_SIZE, compression=Zstd())
    data = shrinking("x", 100)
    writer.map_data(0, writer.append(memoryview(data), [fingerprint(data)]), 1)
    with pytest.raises(StoreFailed, match="No space left"):
        writer.finish()
    writer.discard()


def test_a_folder_that_is_gone_fails_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="No such file") as caught:
        Qcow2Writer(tmp_path / "gone" / "vda.qcow2", 512)
    assert caught.value.path == str(tmp_path / "gone" / "vda.qcow2")


@pytest.mark.parametrize("way", [lambda: None, Zstd])
def test_discarding_under_running_writes_harms_no_other_file(
    tmp_path: Path, way: Callable[[], Compression | None]
) -> None:
    """A late write must not land in the file that gets the same descriptor next."""
    data = memoryview(content("x", 2 * MIB - BLOCK_SIZE) + shrinking("x", 9000))
    hashes = list(fingerprints(data))
    for attempt in range(20):
        writer = Qcow2Writer(tmp_path / f"{attempt}.qcow2", 4 * TIB, compression=way())
        started = Event()

        def keep_writing(writer: Qcow2Writer = writer, started: Event = started) -> None:
            try:
                while True:
                    writer.append(data, hashes)
                    started.set()
            except ValueError:
                pass

        threads = [Thread(target=keep_writing) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        writer.discard()
        with (tmp_path / f"victim{attempt}").open("w+b") as victim:
            for thread in threads:
                thread.join()
            assert victim.read() == b""
        (tmp_path / f"{attempt}.qcow2").unlink()
