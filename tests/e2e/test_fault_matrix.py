"""Who fails, and when: after every pair of them the chain is whole and the next backup exact.

Each case has a backup stand still at a moment, does something to one of its partners, and lets
it go on. A backup that then says that it failed has left no point; one that says that it
succeeded has left one that restores what the disks held when it began, whatever was written
meanwhile. kill -9 of our own process is in ``test_kill``.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import read_only
from tests.support.nbd_proxy import BLOCK_STATUS, READ, Spoil, in_the_way
from tests.support.soak import SOAK
from tests.support.stage import Stage, newest
from tests.support.stopped import stopped_backup
from tests.support.world import World

Disturbance = Callable[[World], AbstractContextManager[None]]


def at(kind: str, name: str = "", nth: int = 1) -> Fault:
    return Fault("stop", kind, name, nth)


BEFORE_JOB = at("step", "begin")
JOB_BEGUN = at("step", "begun")
MID_COPY = at("progress", "", 3)
ONE_COPIED = at("step", "copied vda")
ALL_COPIED = at("step", "commit")
COMMITTED = at("step", "committed")
TIDYING = at("step", "tidy")


@contextmanager
def qemu_is_killed(world: World) -> Iterator[None]:
    world.vm.kill()
    yield


@contextmanager
def vm_is_switched_off(world: World) -> Iterator[None]:
    # While the backup goes on: QEMU ends in good order only if its NBD clients take their data.
    switching = threading.Thread(target=world.vm.stop)
    switching.start()
    yield
    switching.join()


@contextmanager
def libvirtd_restarts(world: World) -> Iterator[None]:
    world.host.restart()
    yield


@contextmanager
def vm_is_off(world: World) -> Iterator[None]:
    # Before the job: a QEMU that is to end while a job begins may lose its bitmaps (a scan).
    world.vm.stop()
    yield


@contextmanager
def libvirtd_is_gone(world: World) -> Iterator[None]:
    world.host.kill()
    yield
    world.host.start()


@contextmanager
def somebody_ends_the_job(world: World) -> Iterator[None]:
    world.host.call("abort_job", world.vm.name)
    yield


@contextmanager
def store_vanishes(world: World) -> Iterator[None]:
    away = world.store.with_name("unplugged")
    world.store.rename(away)
    yield
    away.rename(world.store)


@contextmanager
def store_is_read_only(world: World) -> Iterator[None]:
    with read_only(world.store):
        yield


@dataclass(frozen=True)
class Case:
    """A row of the matrix."""

    what: Disturbance
    when: Fault
    ends: int
    """The exit code: 1 failed and made no point, 3 made one and left some cleaning up.

    0 made one: of the VM that is off now, unless that is all the same to a backup.
    """
    then: str = "bitmap"
    """How the next backup reads: what QEMU had tracked may be lost, what was stored is not."""
    soak: bool = False

    def __str__(self) -> str:
        return f"{self.what.__name__} at {self.when.name or 'mid copy'}"


CASES = [
    # what                      when         ends  then
    Case(qemu_is_killed, BEFORE_JOB, 0),
    Case(qemu_is_killed, JOB_BEGUN, 0, soak=True),
    Case(qemu_is_killed, MID_COPY, 0, soak=True),
    Case(qemu_is_killed, ONE_COPIED, 0, soak=True),
    Case(qemu_is_killed, ALL_COPIED, 3, "scan"),
    Case(qemu_is_killed, COMMITTED, 3, "scan", soak=True),
    Case(qemu_is_killed, TIDYING, 3, "scan", soak=True),
    Case(vm_is_off, BEFORE_JOB, 0, soak=True),
    Case(vm_is_switched_off, MID_COPY, 0),
    Case(vm_is_switched_off, ALL_COPIED, 3),
    Case(vm_is_switched_off, TIDYING, 3, soak=True),
    Case(libvirtd_restarts, BEFORE_JOB, 1),
    Case(libvirtd_restarts, JOB_BEGUN, 1, soak=True),
    Case(libvirtd_restarts, MID_COPY, 3, soak=True),
    Case(libvirtd_restarts, ALL_COPIED, 3, soak=True),
    Case(libvirtd_restarts, COMMITTED, 3),
    Case(libvirtd_restarts, TIDYING, 3, soak=True),
    Case(libvirtd_is_gone, BEFORE_JOB, 1, soak=True),
    Case(libvirtd_is_gone, MID_COPY, 3),
    Case(libvirtd_is_gone, COMMITTED, 3, soak=True),
    Case(somebody_ends_the_job, JOB_BEGUN, 1, soak=True),
    Case(somebody_ends_the_job, MID_COPY, 1),
    Case(somebody_ends_the_job, ALL_COPIED, 0),
    Case(store_vanishes, BEFORE_JOB, 1, soak=True),
    Case(store_vanishes, ONE_COPIED, 1),
    Case(store_vanishes, ALL_COPIED, 1, soak=True),
    Case(store_vanishes, COMMITTED, 3),
    Case(store_is_read_only, BEFORE_JOB, 1, soak=True),
    Case(store_is_read_only, ALL_COPIED, 1, soak=True),
    Case(store_is_read_only, COMMITTED, 3),
]


@pytest.fixture(scope="module")
def stage(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(libvirtd, tmp_path_factory.mktemp("matrix"))
    yield stage
    stage.close()


@pytest.fixture
def world(stage: Stage) -> World:
    """A VM with a chain; each test leaves it fit for the next one."""
    world = stage.enter()
    world.change()
    return world


def note_points(world: World, copies: dict[str, Path], made: int) -> None:
    """Exactly so many points were made, which restore what the disks held then."""
    new = {name for _, names in world.chains() for name in names} - set(world.references)
    assert len(new) == made
    for name in new:
        world.references[name] = copies
        world.assert_restores(name)
    world.assert_lists(world.references)


def goes_on(world: World, method: str = "bitmap") -> None:
    """The next backup builds on the newest point, restores identically, and nothing is left."""
    if world.vm.state == "shutoff":
        world.boot()
    world.assert_vm_unharmed()
    world.change()
    parent = newest(world)
    made = world.backup()
    assert (made["level"], made["parent"]) == ("inc", int(parent.split("/")[1]))
    assert [disk["method"] for disk in made["disks"]] == [method, method]
    assert made["warnings"] == []
    world.assert_lists(world.references, verify=False)
    world.assert_restores(newest(world))
    world.assert_holds(parent)
    world.assert_tidy(bitmaps=1 if method == "scan" else 2)
    world.assert_vm_unharmed()


@pytest.mark.parametrize("case", [case for case in CASES if SOAK or not case.soak], ids=str)
def test_whatever_fails_the_chain_is_whole_and_the_next_backup_exact(
    world: World, stage: Stage, case: Case
) -> None:
    copies = world.copies()
    with stopped_backup(world, case.when) as backup:
        if case.when is not BEFORE_JOB:
            world.change()  # the point does not have it
        with case.what(world):
            backup.go_on(expect=case.ends)
    if "backed up once more" in backup.err:
        copies = world.copies()
    note_points(world, copies, made=int(case.ends != 1))
    goes_on(world, case.then)
    if case.then == "scan":  # the bitmap of the point before that is lost with QEMU, too
        goes_on(world)
    stage.failed = False


# -- the NBD connection to QEMU ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "command", "nth", "says"),
    [
        (Spoil.LOST, READ, 2, "closed the connection"),
        (Spoil.SILENT, READ, 1, "was silent for 3 seconds"),
        (Spoil.SHORT, READ, 2, "closed the connection"),
        (Spoil.REFUSED, READ, 2, "Input/output error"),
        (Spoil.GARBAGE, READ, 1, "a reply starts with 0x00000000"),
        (Spoil.LOST, BLOCK_STATUS, 1, "closed the connection"),
        (Spoil.SILENT, BLOCK_STATUS, 2, "was silent for 3 seconds"),
        (Spoil.REFUSED, BLOCK_STATUS, 1, "Input/output error"),
    ],
)
def test_a_spoilt_connection_to_qemu_costs_the_attempt_and_nothing_else(
    world: World, stage: Stage, spoil: Spoil, command: int, nth: int, says: str
) -> None:
    before = at("step", "copy")
    with stopped_backup(world, before, Fault("", "impatience")) as backup:
        (socket,) = world.runtime.glob("job-*/nbd.socket")
        with in_the_way(socket, spoil, command, nth) as proxy:
            seconds = backup.go_on(expect=1)
            assert proxy.spoiled.is_set()
    assert says in backup.err
    assert seconds < 20, backup.err  # not the 30 that libvirt waits for a QEMU that hangs
    note_points(world, {}, made=0)
    world.assert_tidy()
    goes_on(world)
    stage.failed = False


# -- a disk under the backup folder that cannot keep what it is given --------------------------


@pytest.mark.parametrize(
    ("path", "nth", "made"),
    [
        ("*/*.attempt.json.tmp", 1, 0),
        ("*/vda.qcow2", 1, 0),
        ("*/vdb.index", 1, 0),
        ("*/domain.xml", 1, 0),
        ("*-inc", 1, 0),
        ("*/.point.json.tmp", 1, 0),
        ("*-inc", 2, 1),  # after the rename: the point is there, though it failed to say so
    ],
)
def test_an_fsync_that_fails_is_no_success(
    world: World, stage: Stage, path: str, nth: int, made: int
) -> None:
    copies = world.copies()
    fault = Fault("eio", "fsync", path, nth)
    failed = world.call("backup", "--", world.vm.name, faults=[fault], expect=1)
    assert "Input/output error" in failed.stderr
    note_points(world, copies, made)
    world.assert_tidy(bitmaps=2 + made)
    goes_on(world)
    stage.failed = False
