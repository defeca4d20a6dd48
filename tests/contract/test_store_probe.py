"""Places for backups are tried for real, and left as they were."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.mounts import block_device, fuse, lazy_disk, ram_disk, read_only
from tests.support.world import environment, unchanged
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.adapters.store.local import open_store
from vm_babysitter.adapters.store.probe import LocalProbe
from vm_babysitter.domain.errors import StoreRefused
from vm_babysitter.domain.store_check import Place, Trial, Verdict, judge, overall
from vm_babysitter.ports import DiskPlace, ThisHost

HERE = ThisHost("a" * 32, "tower", "boot")
THERE = ThisHost("b" * 32, "other", "boot")
MIB = 1 << 20


def probe(host: ThisHost = HERE) -> LocalProbe:
    return LocalProbe(host, FakeClock())


def look(path: Path) -> Place:
    """Look at a place that must be afterwards what it was before."""
    before = sorted(path.iterdir())
    place = probe().look(path)
    assert sorted(path.iterdir()) == before
    assert place.left == ""
    return place


def failed(place: Place) -> dict[Trial, str]:
    return {trial: problem for trial, problem in place.trials if problem}


def verdicts(place: Place) -> dict[str, Verdict]:
    return {f.check: f.verdict for f in judge(place) if f.verdict is not Verdict.OK}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own: ext4, with room for a trial of its speed."""
    folder = tmp_path_factory.mktemp("ext4")
    with (folder / "image").open("wb") as file:
        file.truncate(640 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(folder / "image")], check=True)
    with lazy_disk(folder / "image", folder / 'it\'s "a disk", ü') as place:
        yield place


@pytest.fixture
def folder(disk: Path, request: pytest.FixtureRequest) -> Path:
    """An empty folder on that disk."""
    folder = disk / f"{abs(hash(request.node.name))}"
    folder.mkdir()
    return folder


def test_a_disk_is_fit(folder: Path) -> None:
    place = look(folder)
    assert [trial for trial, _ in place.trials] == list(Trial)
    assert failed(place) == {}
    assert (place.filesystem, Path(place.mount)) == ("ext4", folder.parent)
    assert place.write_rate is not None
    assert place.read_rate is not None
    assert verdicts(place).keys() <= {"space", "speed"}  # it is small, this machine may be busy


def test_what_is_there_already_is_not_touched(folder: Path) -> None:
    open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=True, host=HERE)
    with open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=True, host=HERE).lock():
        place = probe().look(folder)  # while a backup is running
    assert (place.is_store, place.store_problem, place.own_lease) == (True, "", True)
    for name in ("document", "locked", "speed", "sparse", "big", "case"):
        (folder / name).write_text("a user's")
    with unchanged(*folder.iterdir()):
        probe(THERE).look(folder)
    assert probe(THERE).look(folder).lease == place.lease
    assert verdicts(probe(THERE).look(folder))["lease"] is Verdict.UNFIT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("torn", "no JSON"),
        ('{"format": 2, "kind": "store"}', "has format 2"),
    ],
)
def test_a_mark_that_is_not_right_is_told(folder: Path, content: str, words: str) -> None:
    (folder / "store.json").write_text(content)
    assert words in look(folder).store_problem


def test_a_damaged_lease_is_told(folder: Path) -> None:
    open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=True, host=HERE)
    (folder / "lease.json").write_text("torn")
    assert "no JSON" in look(folder).lease_problem


def test_other_things_are_told(folder: Path) -> None:
    (folder / "holiday.jpg").touch()
    (folder / "lost+found").mkdir()
    assert look(folder).foreign == ("holiday.jpg",)


def test_what_is_no_folder_is_told(folder: Path) -> None:
    (folder / "file").touch()
    assert verdicts(probe().look(folder / "file")) == {"exists": Verdict.UNFIT}
    assert verdicts(probe().look(folder / "nothing")) == {"exists": Verdict.UNFIT}


def test_disks_of_vms_on_the_same_file_system_are_told(folder: Path, tmp_path: Path) -> None:
    (folder.parent / "vda.img").touch()
    (tmp_path / "vdb.img").touch()
    disks = [
        DiskPlace("vm (vda)", str(folder.parent / "vda.img")),
        DiskPlace("vm (vdb)", str(tmp_path / "vdb.img")),
        DiskPlace("vm (vdc)", "/nowhere"),
        DiskPlace("vm (vdd)", "/dev/null"),
    ]
    assert probe().look(folder, disks).disks_beside == ("vm (vda)",)


def test_memory_is_unfit_unless_that_is_allowed(tmp_path: Path) -> None:
    with ram_disk(tmp_path / "ram", 300 * MIB) as place:
        assert verdicts(look(place))["filesystem"] is Verdict.UNFIT
        allowed = LocalProbe(HERE, FakeClock(), allow_ram=True).look(place)
        assert verdicts(allowed)["filesystem"] is Verdict.WARNING


def test_what_is_mounted_read_only_is_told_and_still_read(folder: Path) -> None:
    open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=True, host=HERE)
    with read_only(folder):
        place = look(folder)
        assert (place.unwritable, place.is_store) == ("it is mounted read-only", True)
        assert verdicts(place)["writable"] is Verdict.UNFIT


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with ram_disk(tmp_path / "full", MIB) as place:
        filler = place / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        found = look(place)
        assert {verdicts(found)["space"], verdicts(found)["filesystem"]} == {Verdict.UNFIT}
        assert "No space left" in (found.unwritable or str(failed(found)))


@contextmanager
def formatted(kind: str, folder: Path, *options: str) -> Iterator[Path]:
    """A file system of another kind, if this kernel has it."""
    place = folder / "place"
    place.mkdir()
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    with block_device(folder / "image", 64 * MIB) as device:
        subprocess.run([f"mkfs.{kind}", str(device)], check=True, capture_output=True)
        mount = ["mount", "-t", kind, *options, str(device), str(place)]
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this kernel has no {kind}: {done.stderr}")
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)


def test_what_vfat_cannot_do_is_found(tmp_path: Path) -> None:
    with formatted("vfat", tmp_path) as place:
        found = look(place)
        assert {Trial.BIG, Trial.SPARSE} <= set(failed(found))
        assert found.case_blind
        assert verdicts(found)["big-files"] is Verdict.UNFIT
        assert overall(judge(found)) is Verdict.UNFIT


def test_a_limit_of_the_size_of_files_is_found(folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    try:
        found = look(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed(found) == {Trial.BIG: "File too large"}


def test_a_file_system_in_user_space_is_told(folder: Path, tmp_path: Path) -> None:
    with fuse(folder, tmp_path / "fuse") as place:
        found = look(place)
        assert found.filesystem.startswith("fuse")
        assert verdicts(found)["fuse"] is Verdict.WARNING
        assert set(failed(found)) <= {Trial.LOCK, Trial.AT_ONCE}


# -- killed half way ------------------------------------------------------------------------------

_CODE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.store import probe
from vm_babysitter.ports import ThisHost
probe._speed = lambda folder: os.kill(os.getpid(), getattr(signal, sys.argv[3]))
probe.LocalProbe(ThisHost(sys.argv[2], "x", ""), SystemClock()).look(Path(sys.argv[1]))
"""


def begun(folder: Path, host: ThisHost, end: str) -> "subprocess.Popen[bytes]":
    """A check that gets a signal in the middle."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, str(folder), host.id, end], env=environment()
    )
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    return process


def checks(folder: Path) -> list[str]:
    return sorted(path.name[:19] for path in folder.glob(".vmb-check-*"))


def test_what_a_killed_check_left_is_removed_by_the_next_of_this_host_alone(folder: Path) -> None:
    for host in (HERE, THERE):
        assert begun(folder, host, "SIGKILL").wait() == -signal.SIGKILL
    assert checks(folder) == [".vmb-check-aaaaaaaa", ".vmb-check-bbbbbbbb"]
    (folder / ".vmb-check-mine").mkdir()
    (folder / ".vmb-check-aaaaaaaa-00000g").touch()
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "file").touch()
    (folder / ".vmb-check-aaaaaaaa-0000ff").symlink_to(elsewhere)
    place = probe().look(folder)
    assert checks(folder) == [
        ".vmb-check-aaaaaaaa",
        ".vmb-check-aaaaaaaa",
        ".vmb-check-bbbbbbbb",
        ".vmb-check-mine",
    ]
    assert (elsewhere / "file").exists()
    assert place.foreign == ()
    assert failed(place) == {}


def test_the_folder_of_a_check_that_is_alive_stays(folder: Path) -> None:
    process = begun(folder, HERE, "SIGSTOP")
    try:
        probe().look(folder)
        assert checks(folder) == [".vmb-check-aaaaaaaa"]
    finally:
        process.kill()
        process.wait()
    look_again = probe().look(folder)
    assert (checks(folder), look_again.left) == ([], "")


# -- taking over ----------------------------------------------------------------------------------


def test_taking_over_says_who_had_it(folder: Path) -> None:
    with pytest.raises(StoreRefused, match="no backup folder"):
        probe().take_over(folder)
    open_store(folder, FakeClock(), Qcow2Writer, digest_file, create=True, host=HERE)
    assert probe().take_over(folder) is None
    assert probe().take_over(folder) is None
    had = probe(THERE).take_over(folder)
    assert had is not None
    assert had.host_name == "tower"
    now = StoreLease(folder, HERE, FakeClock().now).read()
    assert now is not None
    assert now.host_name == "other"
    (folder / "lease.json").write_text("torn")
    assert probe().take_over(folder) is None
    assert look(folder).own_lease
