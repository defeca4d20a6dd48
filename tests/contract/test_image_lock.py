"""Who has an image open: asked of real programs, and without being in anybody's way."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.mounts import fuse
from tests.support.nbd_server import wait_until
from tests.support.qemu_img import run
from tests.support.vm import EMULATOR
from vm_babysitter.adapters.image_lock import is_written, writers
from vm_babysitter.domain.errors import ImageUnreadable

SIZE = "8M"
NBD = ["qemu-nbd", "--persistent"]
VM = [EMULATOR, "-display", "none", "-nodefaults", "-S"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "vda.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, SIZE)
    return path


@contextmanager
def running(path: Path, *argv: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, from the moment on when it has ``path`` open for good."""
    with ended(argv) as program:
        wait_until(lambda: program.poll() is not None or _serves(program.pid, path))
        yield program


@contextmanager
def ended(
    argv: Sequence[str | Path], stdin: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that is killed at the end, also of a test that fails."""
    with subprocess.Popen(argv, stdin=stdin) as program:
        try:
            yield program
        finally:
            program.kill()


def _serves(pid: int, path: Path) -> bool:
    """Whether a process has a file open, and a socket in its folder that somebody can find."""
    try:
        files = [str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return str(path) in files and (path.parent / "socket").is_socket()


def nbd(path: Path, *options: str) -> list[str | Path]:
    return [*NBD, "--socket", path.parent / "socket", *options]


def emulated(path: Path, drive: str) -> list[str | Path]:
    monitor = f"unix:{path.parent / 'socket'},server=on,wait=off"
    return [*VM, "-qmp", monitor, "-drive", f"file={path},format=qcow2,if=virtio{drive}"]


SHARED = "driver=qcow2,force-share=on,read-only=on,file.driver=file,file.filename="
PROGRAMS: dict[str, tuple[bool, str]] = {
    "a VM": (True, "vm"),
    "a VM that only reads": (False, "vm-ro"),
    "qemu-nbd": (True, "nbd"),
    "qemu-nbd that only reads": (False, "nbd-ro"),
    "a reader that shares with writers": (False, "shared"),
}


def command(kind: str, path: Path) -> Sequence[str | Path]:
    return {
        "vm": emulated(path, ""),
        "vm-ro": emulated(path, ",read-only=on"),
        "nbd": nbd(path, "--format=qcow2", str(path)),
        "nbd-ro": nbd(path, "--read-only", "--format=qcow2", str(path)),
        "shared": nbd(path, "--read-only", "--image-opts", f"{SHARED}{path}"),
    }[kind]


@pytest.mark.parametrize(("writes", "kind"), PROGRAMS.values(), ids=PROGRAMS)
def test_program_is_seen_if_it_writes(image: Path, writes: bool, kind: str) -> None:
    with running(image, *command(kind, image)) as program:
        assert program.poll() is None
        assert is_written(image) is writes
        assert [holder.pid for holder in writers(image)] == ([program.pid] if writes else [])
    assert not is_written(image)
    assert writers(image) == ()


def test_writer_of_a_raw_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "raw.img"
    path.write_bytes(bytes(1 << 20))
    with running(path, *nbd(path, "--format=raw", str(path))):
        assert is_written(path)


def test_writer_of_a_block_device_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "raw.img"
    path.write_bytes(bytes(1 << 20))
    device = Path(run("losetup", "--find", "--show", path).strip())
    try:
        assert not is_written(device)
        socket = tmp_path / "socket"
        argv = [*NBD, f"--socket={socket}", "--format=raw", str(device)]
        with ended(argv) as program:
            wait_until(lambda: socket.is_socket() and is_written(device))
            assert [holder.pid for holder in writers(device)] == [program.pid]
    finally:
        run("losetup", "--detach", str(device))


def test_program_that_is_not_of_qemu_is_seen_by_its_open_file(image: Path) -> None:
    with image.open("rb") as file, ended(["sleep", "60"], file):
        assert writers(image) == ()
    with image.open("r+b") as rw, ended(["sleep", "60"], rw) as writer:
        rw.close()
        wait_until(lambda: [holder.program for holder in writers(image)] == ["sleep"])
        assert [str(holder) for holder in writers(image)] == [f"sleep (process {writer.pid})"]
        assert not is_written(image)


def test_writer_through_a_file_system_in_user_space_shows_by_its_server(
    image: Path, tmp_path: Path
) -> None:
    (tmp_path / "user").mkdir()
    place = tmp_path / "user" / "share"
    with fuse(tmp_path, place):
        shown = place / image.name
        with running(shown, *nbd(shown, "--format=qcow2", str(shown))):
            assert is_written(shown)
            assert not is_written(image), "if its lock were seen, the other look were not needed"
            assert [holder.program for holder in writers(image)] == ["bindfs"]


def test_image_that_is_not_there_says_so(tmp_path: Path) -> None:
    for ask in (is_written, writers):
        with pytest.raises(ImageUnreadable, match="No such file"):
            ask(tmp_path / "nope")


def test_asking_is_in_nobodys_way(image: Path) -> None:
    stop = threading.Event()
    asked: list[bool] = []

    def ask() -> None:
        while not stop.is_set():
            asked.append(is_written(image))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(30):
            run("qemu-io", "-f", "qcow2", "-c", f"write -P {number} 0 64k", image)
        with running(image, *command("vm", image)) as vm:
            assert vm.poll() is None
    finally:
        stop.set()
        thread.join()
    assert {True, False} == set(asked)
