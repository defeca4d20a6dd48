"""QEMU's own tools as the judge of files that we wrote."""

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict


class MapEntry(TypedDict):
    """One range as ``qemu-img map`` tells it."""

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: NotRequired[int]


def run(*argv: str | Path) -> str:
    """Run a program that must succeed. Returns what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv} -> {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def named(path: Path, format: str = "qcow2") -> str:
    """Name an image so that no character of its path means anything."""
    file = {"driver": "file", "filename": str(path.absolute())}
    return "json:" + json.dumps({"driver": format, "file": file})


def assert_clean(path: Path) -> None:
    """Fail if ``qemu-img check`` finds an error or a leaked cluster."""
    report = json.loads(run("qemu-img", "check", "--output=json", named(path)))
    assert report["check-errors"] == 0
    assert not report.keys() & {"corruptions", "leaks"}
    assert report["image-end-offset"] == path.stat().st_size


def assert_same(image: Path, raw: Path) -> None:
    """Fail unless ``image`` (qcow2) reads as ``raw`` does, sizes included."""
    assert info(image)["virtual-size"] == raw.stat().st_size
    run("qemu-img", "compare", named(image), named(raw, "raw"))


def image_map(path: Path) -> list[MapEntry]:
    """Return the allocation of an image and what lies beneath it."""
    entries: list[MapEntry] = json.loads(run("qemu-img", "map", "--output=json", named(path)))
    return entries


def info(path: Path) -> dict[str, object]:
    """Return what ``qemu-img info`` says."""
    found: dict[str, object] = json.loads(run("qemu-img", "info", "--output=json", named(path)))
    return found


@contextmanager
def opened(image: Path, *, writing: bool = True) -> Iterator[None]:
    """Some program of QEMU's has an image open."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        address = f"{folder}/s"
        options = ["-f", "qcow2", "-t", "-k", address, *([] if writing else ["-r"])]
        with subprocess.Popen(["qemu-nbd", *options, "--", str(image)]) as process:
            try:
                while not _greets(address):
                    assert process.poll() is None, "it did not start"
                yield
                process.terminate()  # it listens to that once it has greeted somebody
                process.wait(timeout=20)
            finally:
                process.kill()


def _greets(address: str) -> bool:
    """Whether the server answers; it has the image open only then."""
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(address)
            return peer.recv(8) == b"NBDMAGIC"
        except OSError:
            return False
