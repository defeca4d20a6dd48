"""A bitmap's adding or removing that is cut off anywhere: content is whole, and a retry works."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.nbd_server import alive, wait_until
from tests.support.qemu_img import info, named, run
from tests.support.world import environment
from tests.support.write_log import apply, logging_image, read_log
from vm_babysitter.adapters.qemu import img
from vm_babysitter.adapters.qemu.offline_bitmaps import QemuOfflineBitmaps
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.domain.errors import Busy

MIB = 1 << 20
SIZE = 8 * MIB
HEALTHY, BROKEN = frozenset({"auto"}), frozenset({"auto", "in-use"})
BOTH = {"ours", "foreign"}
"""The bitmaps that were there before."""
MARKED = [(2 * MIB, 3 * MIB)]
"""What each of them has marked."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with content, a layer below, and two bitmaps with marks."""
    base, path = tmp_path / "base", tmp_path / "vda.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, str(SIZE))
    run("qemu-io", "-c", "write -P 1 0 1M", named(base))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", path)
    run("qemu-io", "-c", "write -P 2 512k 1M", "-c", "write -z 6M 1M", named(path))
    for name in ("ours", "foreign"):
        run("qemu-img", "bitmap", "--add", named(path), name)
    run("qemu-io", "-c", "write -P 3 2M 1M", named(path))
    return path


@pytest.fixture
def reference(image: Path, tmp_path: Path) -> Path:
    """What it holds."""
    run("qemu-img", "convert", "-O", "raw", named(image), tmp_path / "reference")
    return tmp_path / "reference"


def flags_of(image: Path) -> dict[str, frozenset[str]]:
    return dict(img.info(image).bitmaps)


def marked(image: Path, name: str) -> list[tuple[int, int]]:
    with QemuImageTool().open_for_reading([(image, "qcow2")], name) as reader:
        return [(r.start, r.end) for r in reader.dirty_map() if r.flag]


def assert_whole(image: Path, reference: Path) -> None:
    """The content is what it was, and nothing is worse than a leaked cluster."""
    done = subprocess.run(
        ["qemu-img", "check", "-q", named(image)], check=False, capture_output=True, text=True
    )
    assert done.returncode in {0, 3}, done.stdout
    run("qemu-img", "compare", named(image), named(reference, "raw"))
    assert info(image)["backing-filename"] == "base"


# -- each write of qemu-img -------------------------------------------------------------------


@pytest.mark.parametrize(("what", "name"), [("--add", "new"), ("--remove", "ours")])
def test_killed_at_any_write_it_leaves_content_whole_and_no_bitmap_wrong(
    image: Path, reference: Path, tmp_path: Path, what: str, name: str
) -> None:
    played, copy = tmp_path / "played", tmp_path / "copy"
    shutil.copyfile(image, played)
    run("qemu-img", "bitmap", what, logging_image(image, tmp_path / "log"), name)
    writes = list(read_log(tmp_path / "log"))
    assert len(writes) > 8
    others = BOTH - {name}
    states: list[dict[str, frozenset[str]]] = []
    for number, write in enumerate(writes, start=1):
        apply(write, played)
        assert_whole(played, reference)
        flags = flags_of(played)
        # For the moment in which QEMU changes their list it takes the list as a whole out.
        assert not flags or others <= flags.keys() <= others | {name}
        assert set(flags.values()) <= {HEALTHY, BROKEN}
        states.append(flags)
        for trusted in others & flags.keys():
            if flags[trusted] == HEALTHY:
                assert marked(played, trusted) == MARKED, "a bitmap that is trusted is wrong"
        if number % 4 == 0 or number == len(writes):
            shutil.copyfile(played, copy)
            _go_on(copy, name)
            assert_whole(copy, reference)
    assert played.read_bytes() == image.read_bytes(), "the log is not what was done"
    assert states[-1] == flags_of(image)
    assert set(states[-1].values()) == {HEALTHY}
    assert (name in states[-1]) is (what == "--add")


def _go_on(image: Path, name: str) -> None:
    """Do what a next run does: remove what is left of it and what is damaged, and add anew."""
    bitmaps = QemuOfflineBitmaps()
    broken = {other for other, flags in flags_of(image).items() if flags == BROKEN}
    for left in {name, *broken}:
        bitmaps.remove(image, left)
    bitmaps.add(image, "newer")
    assert flags_of(image)["newer"] == HEALTHY
    assert set(flags_of(image).values()) == {HEALTHY}
    run("qemu-io", "-c", "write -P 3 2M 64k", named(image))
    assert marked(image, "newer") == [(2 * MIB, 2 * MIB + 65536)]


def test_killed_at_any_time_it_leaves_content_whole(
    image: Path, reference: Path, tmp_path: Path
) -> None:
    chance, copy = random.Random(4), tmp_path / "copy"
    statuses = []
    shutil.copyfile(image, copy)
    began = time.monotonic()
    run("qemu-img", "bitmap", "--add", named(copy), "new")
    seconds = time.monotonic() - began
    for number in range(24):
        shutil.copyfile(image, copy)
        what = ("--add", "new") if number % 2 else ("--remove", "ours")
        with subprocess.Popen(["qemu-img", "bitmap", what[0], named(copy), what[1]]) as program:
            time.sleep(chance.uniform(0, seconds) if number else 0)
            program.kill()
        statuses.append(program.returncode)
        assert_whole(copy, reference)
        assert flags_of(copy).keys() in (set(), {"foreign"}, BOTH, {*BOTH, "new"})
    assert -signal.SIGKILL in statuses


# -- kill -9 of ours --------------------------------------------------------------------------

_CALL = """
import sys
from pathlib import Path
from vm_babysitter.adapters.qemu.offline_bitmaps import QemuOfflineBitmaps
getattr(QemuOfflineBitmaps(), sys.argv[1])(Path(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize(("what", "name"), [("add", "new"), ("remove", "ours")])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_qemu_img_goes_on_to_its_end_when_we_are_killed(
    image: Path, reference: Path, tmp_path: Path, what: str, name: str, number: int
) -> None:
    """It would leave all bitmaps of the image in use, other programs' too."""
    stand_in, pid = tmp_path / "bin" / "qemu-img", tmp_path / "pid"
    stand_in.parent.mkdir()
    real = shutil.which("qemu-img")
    wait = f'[ "$1" != bitmap ] || {{ echo $$ >"{pid}"; sleep 0.5; }}'
    stand_in.write_text(f'#!/bin/sh\n{wait}\nexec {real} "$@"\n')
    stand_in.chmod(0o755)
    here = environment()
    here["PATH"] = os.pathsep.join([str(stand_in.parent), here["PATH"]])
    argv = [sys.executable, "-c", _CALL, what, str(image), name]
    with subprocess.Popen(argv, env=here, stderr=subprocess.DEVNULL) as ours:
        wait_until(lambda: pid.exists() and pid.read_text() != "")
        ours.send_signal(number)
        ours.wait(10)
    wait_until(lambda: not alive(int(pid.read_text())))
    wanted = BOTH ^ {name}
    assert flags_of(image) == dict.fromkeys(wanted, HEALTHY)
    assert_whole(image, reference)


# -- a VM that is started in the same moment --------------------------------------------------


def test_image_is_never_written_by_us_and_by_its_vm_at_once(image: Path) -> None:
    """Whoever comes second fails; what both did, one after the other, is all there."""
    chance, bitmaps = random.Random(8), QemuOfflineBitmaps()
    added, started = 0, 0
    for number in range(1, 13):
        name, pattern = f"b{number}", f"0x{number:x}"
        write = [f"write -P {pattern} {number * 64}k 64k", f"write -P {pattern} 5M 64k"]
        argv = ["qemu-io", "-c", write[0], "-c", "sleep 20", "-c", write[1], named(image)]
        delay = chance.uniform(0, 0.12)
        script = ["sh", "-c", f'sleep {delay:.3f}; exec "$@"', "sh", *argv]
        with subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as vm:
            try:
                bitmaps.add(image, name)
                ours = True
            except Busy:
                ours = False
        its = vm.returncode == 0
        assert img.check(image) == ""
        flags = flags_of(image)
        assert set(flags.values()) == {HEALTHY}
        assert not ours or name in flags
        if its:
            for offset in (f"{number * 64}k", "5M"):
                read = run("qemu-io", "-r", "-c", f"read -P {pattern} {offset} 64k", named(image))
                assert "verification failed" not in read
        added, started = added + ours, started + its
        bitmaps.remove(image, name)
    assert added, "none of ours came through"
    assert started, "no VM came through"
