"""A VM in every state that libvirt knows: how it is backed up, and that it stays as it is."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from tests.support import boot
from tests.support.faulty import Fault
from tests.support.guest import wait_until
from tests.support.libvirt_host import LibvirtRefused, Worker
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.nbd_server import nbdkit
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec
from tests.support.world import World

NAME = "- a VM 'asleep' & co"
SIZE = 8 * MIB
SECOND_DRIVE = 0x81


@pytest.fixture(scope="module")
def house(
    libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, int]]:
    """A VM that can get into any state, backed up once, and the server of its second disk.

    Each write to that disk fails, and QEMU is told to pause the VM then.
    """
    folder = tmp_path_factory.mktemp("states") / "w"
    broken = ["--filter=error", "memory", "1M", "error-pwrite-rate=100%"]
    with nbdkit(libvirtd.root, *broken) as (socket, child):
        devices = [boot.PANIC_DEVICE, _network_disk(socket)]
        disks = [DiskSpec(size=SIZE)]
        with closing(World(libvirtd, folder, NAME, devices=devices, disks=disks)) as world:
            world.vm.stop()
            world.vm.define(boot.able(str(libvirtd.call("xml", NAME, True))))
            world.boot()
            world.backup(expect=3)  # that disk is not backed up
            yield world, child.pid


def _network_disk(socket: str) -> str:
    return (
        "<disk type='network' device='disk'>"
        "<driver name='qemu' type='raw' error_policy='stop'/>"
        f"<source protocol='nbd'><host transport='unix' socket={quoteattr(socket)}/></source>"
        "<target dev='vdc' bus='virtio'/></disk>"
    )


@pytest.fixture
def world(house: tuple[World, int]) -> Iterator[World]:
    """The same VM for each test, paused before its first instruction."""
    world, _ = house
    yield world
    world.power = "paused"
    with suppress(LibvirtRefused):
        world.vm.stop()
    world.boot()


def state_of(world: World) -> str:
    return str(world.host.call("state_now", NAME))


def enter(world: World, code: bytes, state: str) -> None:
    """Have the guest do something after which the VM is in this state."""
    world.vm.write_bytes("vda", 0, code)
    world.vm.resume()
    wait_until(lambda: state_of(world) == state)
    world.power = state


def status(world: World) -> object:
    with world.vm.monitor() as qmp:
        return qmp.execute("query-status")


def restores(world: World) -> None:
    """The newest point and the one before restore what the disk held."""
    for point in list(world.references)[-2:]:
        world.assert_restores(point)


STATES: dict[str, tuple[bytes, str, str]] = {
    "running": (boot.idles(), "running", "no guest agent"),
    "suspended by the guest": (boot.suspends(), "pmsuspended", "suspended by the guest"),
    "crashed": (boot.panics(), "crashed", "crashed"),
    "paused by a disk error": (boot.writes(SECOND_DRIVE), "paused", "paused"),
}


@pytest.mark.parametrize(("code", "state", "word"), STATES.values(), ids=STATES)
def test_a_vm_is_backed_up_in_any_state_and_stays_in_it(
    world: World, code: bytes, state: str, word: str
) -> None:
    enter(world, code, state)
    before = status(world)
    made = world.backup()
    assert [disk["method"] for disk in made["disks"]] == ["bitmap"]
    assert word in made["quiesce_note"]
    assert (state_of(world), status(world)) == (state, before)
    world.assert_tidy()
    restores(world)


def test_a_suspended_guest_wakes_up_after_its_backup(world: World) -> None:
    enter(world, boot.suspends(), "pmsuspended")
    world.backup()
    world.host.call("wake", NAME)
    wait_until(lambda: state_of(world) == "running")


def test_a_backup_of_a_crashed_vm_that_is_killed_is_undone_by_the_next(world: World) -> None:
    enter(world, boot.panics(), "crashed")
    world.die(Fault("die", "progress"))
    world.vm.write("vda", MIB, 4096, 0x5C)
    assert [disk["method"] for disk in world.backup()["disks"]] == ["bitmap"]
    assert state_of(world) == "crashed"
    world.assert_tidy()
    restores(world)


@contextmanager
def shutting_down(house: tuple[World, int]) -> Iterator[dict[str, Path]]:
    """The guest has powered off; QEMU cannot end, because a disk does not answer.

    Yields what the disks hold.
    """
    world, server = house
    world.vm.write_bytes("vda", 0, boot.powers_off())
    reference = world.copies()
    os.kill(server, signal.SIGSTOP)
    try:
        world.vm.resume()
        wait_until(lambda: state_of(world) == "shutting down")
        yield reference
    finally:
        os.kill(server, signal.SIGCONT)


def test_a_vm_that_is_shutting_down_is_waited_for_and_then_backed_up(
    house: tuple[World, int], world: World
) -> None:
    with shutting_down(house) as reference:
        refused = world.call("plan", "--", NAME, expect=11)
        assert "it is shutting down" in refused.stderr
        process = world.start("backup", "--json", "--", NAME)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert state_of(world) == "shutting down"
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    made = json.loads(out)
    assert made["manifest"]["off"]
    world.references[made["point"]] = reference
    assert state_of(world) == "shutoff"
    restores(world)


@contextmanager
def saving(world: World, folder: Path) -> Iterator[None]:
    """The VM's memory is being saved into a pipe that nobody reads; in the end that fails."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    problems: list[str] = []

    def save(worker: Worker) -> None:
        try:
            worker.call("save", NAME, str(pipe))
        except LibvirtRefused as error:
            problems.append(str(error))

    with Worker(world.host.uri, folder / "worker.log") as worker:
        thread = threading.Thread(target=save, args=[worker])
        thread.start()
        reader = os.open(pipe, os.O_RDONLY)
        try:
            wait_until(lambda: world.host.call("job_now", NAME) != 0)
            yield
        finally:
            os.close(reader)
            thread.join(30)
            assert len(problems) == 1


def test_a_vm_whose_memory_is_being_saved_is_busy(world: World, tmp_path: Path) -> None:
    enter(world, boot.idles(), "running")
    with saving(world, tmp_path):
        for verb in ("backup", "plan"):
            refused = world.call(verb, "--", NAME, expect=11)
            assert "a migration, save or dump is running" in refused.stderr
    wait_until(lambda: state_of(world) == "running")
    assert [disk["method"] for disk in world.backup()["disks"]] == ["bitmap"]
    assert state_of(world) == "running"
    world.assert_tidy()
    assert newest(world)
    restores(world)
