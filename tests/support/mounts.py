"""File systems of the tests' own: small, read-only, or going away."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_LAZY_SIZE = 128 * 1024 * 1024


@contextlib.contextmanager
def ram_disk(place: Path, size: int) -> Iterator[Path]:
    """Mount ``size`` bytes of RAM at ``place``, which is made if need be."""
    place.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "vmb-test", str(place))
    try:
        yield place
    finally:
        _run("umount", "--lazy", str(place))


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[Path]:
    """Have everything under ``place`` read-only; root is not stopped by permissions.

    Files that are open for writing stay so.
    """
    _run("mount", "--bind", str(place), str(place))
    try:
        _run("mount", "-o", "remount,ro,bind", str(place))
        yield place
    finally:
        _run("umount", "--lazy", str(place))


@contextlib.contextmanager
def lazy_disk(image: Path, place: Path) -> Iterator[Path]:
    """Mount an ext4 in ``image`` (made if need be) that writes nothing before it is told to.

    A copy of the image is what a power cut at that moment leaves.
    """
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(_LAZY_SIZE)
        _run("mkfs.ext4", "-q", "-F", str(image))
    place.mkdir(exist_ok=True)
    _run("mount", "-o", "loop,data=writeback,commit=600", str(image), str(place))
    try:
        yield place
    finally:
        _run("umount", "--lazy", str(place))


@contextlib.contextmanager
def block_device(image: Path, size: int) -> Iterator[Path]:
    """Make a block device of ``size`` bytes that keeps its content in a new file."""
    with image.open("wb") as file:
        file.truncate(size)
    command = ["losetup", "--find", "--show", str(image)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        _run("losetup", "--detach", str(device))


@contextlib.contextmanager
def bound(folder: Path, place: Path, *processes: int) -> Iterator[Path]:
    """Have a folder at a second place as well, for us and where these processes live."""
    place.mkdir(exist_ok=True)
    enter = [["nsenter", "--mount", f"--target={pid}"] for pid in processes]
    with contextlib.ExitStack() as stack:
        for prefix in ([], *enter):
            _run(*prefix, "mount", "--bind", str(folder), str(place))
            stack.callback(_run, *prefix, "umount", "--lazy", str(place))
        yield place


@contextlib.contextmanager
def fuse(beneath: Path, place: Path) -> Iterator[Path]:
    """Show a folder at ``place``, whatever is there, by a file system in user space.

    Locks do not pass through it, attributes do: like Unraid's ``/mnt/user``.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no file system in user space (FUSE) can be mounted here: {error}")
    place.mkdir(exist_ok=True)
    _run("bindfs", "-o", "nonempty", str(beneath), str(place))
    try:
        yield place
    finally:
        _run("umount", "--lazy", str(place))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
