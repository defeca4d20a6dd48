"""What else dies, fails or is in the way in the middle of a backup."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk, read_only
from tests.support.stopped import stopped_backup
from tests.support.vm import MIB
from tests.support.world import Silent, World, environment
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Hypervisor

MID_COPY = Fault("stop", "progress", "", 3)
FIRST_DISK_COPIED = Fault("stop", "step", "copied vda")


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM that has been backed up and has written since."""
    with closing(World(libvirtd, tmp_path / "w")) as world:
        world.backup()
        world.change()
        yield world


def goes_on(world: World, method: str = "bitmap") -> None:
    """The next backup is the increment that the failed one was to be, and nothing is left."""
    parent = list(world.references)[-1]
    made = world.backup()
    assert made["level"] == "inc"
    assert made["parent"] == int(parent.split("/")[1])
    assert [disk["method"] for disk in made["disks"]] == [method, method]
    world.assert_lists(world.references, verify=False)
    world.assert_restores(list(world.references)[-1])
    world.assert_holds(parent)
    world.assert_tidy(bitmaps=2 if method == "bitmap" else 1)
    world.assert_vm_unharmed()


def world_hypervisor(world: World) -> AbstractContextManager[Hypervisor]:
    """The hypervisor as the product sees it."""
    return Standalone(Place(world.host.uri, None), Silent(), Cancel()).hypervisor()


def undone(world: World) -> None:
    """The failed backup has cleaned up by itself already."""
    world.assert_lists(world.references)
    world.assert_tidy()
    world.assert_vm_unharmed()
    world.change()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_undoes_itself_at_once(world: World, number: int) -> None:
    for position in range(0, 24, 8):
        world.vm.write("vda", position * MIB, 8 * MIB, 0x77)
    with stopped_backup(world, MID_COPY) as backup:
        backup.signal(number)
        assert backup.go_on(expect=130) < 2
    assert "Stopped on request" in backup.err
    undone(world)
    goes_on(world)


def test_a_terminal_that_is_closed_in_mid_copy_does_not_fail_the_backup(world: World) -> None:
    terminal, ours = pty.openpty()
    copies = world.copies()
    arguments = world.arguments("backup", "--json", "--", world.vm.name, faults=[MID_COPY])
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=ours, env=environment(), cwd=world.folder
    ) as process:
        os.close(ours)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        assert b"copy" in os.read(terminal, 4096)  # it was being watched
        os.close(terminal)  # without a signal: it is the terminal of nobody's session
        process.send_signal(signal.SIGCONT)
        made, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    world.references[json.loads(made)["point"]] = copies
    world.change()
    goes_on(world)


def test_the_store_vanishes_in_mid_copy_and_no_job_is_left(world: World) -> None:
    away = world.store.with_name("unplugged")
    with stopped_backup(world, MID_COPY) as backup:
        world.store.rename(away)
        backup.go_on(expect=1)
    assert "left to the next backup" in backup.err
    job = json.loads(world.call("plan", "--json", "--", world.vm.name, expect=1).stdout)
    assert job["error"]["code"] == "store-refused"
    with world_hypervisor(world) as hypervisor:
        assert hypervisor.active_job(world.vm.uuid) is None
    assert {path.name for path in world.disks.iterdir()} == {"vda.qcow2", "vdb.qcow2"}
    assert not list(world.runtime.glob("job-*"))
    world.assert_vm_unharmed()
    away.rename(world.store)
    world.change()
    goes_on(world)


def test_qemu_dies_in_mid_copy(world: World) -> None:
    with stopped_backup(world, MID_COPY) as backup:
        world.vm.kill()
        backup.go_on(expect=0)  # of the VM that is off now
    assert world.vm.state == "shutoff"
    (made,) = {name for _, names in world.chains() for name in names} - set(world.references)
    world.references[made] = world.copies()
    world.assert_lists(world.references)
    world.assert_restores(made)
    world.boot()
    world.change()
    goes_on(world)


def test_libvirtd_dies_in_mid_copy_and_the_point_is_made_all_the_same(world: World) -> None:
    copies = world.copies()
    with stopped_backup(world, MID_COPY) as backup:
        world.host.restart()
        backup.go_on(expect=3)  # QEMU serves the data; only ending the job is left
    (made,) = {name for _, names in world.chains() for name in names} - set(world.references)
    world.references[made] = copies
    world.assert_lists(world.references)
    world.assert_restores(made)
    world.assert_vm_unharmed()
    world.change()
    goes_on(world)


def test_the_power_fails_in_mid_copy(world: World) -> None:
    with stopped_backup(world, MID_COPY):
        world.host.power_cut()
    shutil.rmtree(world.runtime)
    world.host.start()
    world.assert_lists(world.references)
    world.boot()
    world.change()
    goes_on(world, method="scan")


def test_the_vm_is_switched_off_and_on_after_the_backup_died(world: World) -> None:
    world.die(Fault("die", "progress", "", 3))
    world.vm.stop()
    world.boot()
    world.change()
    goes_on(world)


def test_a_failed_first_backup_of_a_vm_that_was_switched_off_then_is_undone_in_its_image(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with closing(World(libvirtd, tmp_path / "w")) as world:
        world.die(Fault("die", "progress", "", 3))
        world.vm.stop()  # now the dead backup's bitmap is in the image for good
        assert world.backup()["off"]
        world.boot()
        world.assert_tidy()
        world.change()
        world.backup()
        world.assert_tidy()


def test_the_store_is_full_in_mid_copy(world: World) -> None:
    roomy = world.store.with_name("roomy")
    world.store.rename(roomy)
    with ram_disk(world.store, 64 * MIB):
        shutil.copytree(roomy, world.store, dirs_exist_ok=True)
        filler = world.store / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(world.store).free - MIB)
        failed = world.call("backup", "--", world.vm.name, expect=1)
        assert "No space left" in failed.stderr
        filler.unlink()
        undone(world)
        goes_on(world)


def test_a_full_that_cannot_fit_is_refused_before_it_is_copied(world: World) -> None:
    world.store = world.folder / "small"
    world.references.clear()
    with ram_disk(world.store, 2 * MIB):
        failed = world.call("backup", "--", world.vm.name, expect=1)
        assert "has 2.0 MiB free" in failed.stderr
        assert world.chains() == []


def test_the_store_turns_read_only_in_mid_copy(world: World) -> None:
    with stopped_backup(world, FIRST_DISK_COPIED) as backup, read_only(world.store):
        backup.go_on(expect=1)
        world.assert_lists(world.references)
        refused = world.call("backup", "--", world.vm.name, expect=1)
        assert "cannot be written to" in refused.stderr
    world.assert_vm_unharmed()
    world.change()
    goes_on(world)


def test_the_working_space_cannot_be_written(world: World) -> None:
    with read_only(world.disks):
        failed = world.call("backup", "--", world.vm.name, expect=1)
    assert "working space" in failed.stderr
    assert str(world.disks) in failed.stderr
    undone(world)
    goes_on(world)


def test_another_process_writes_to_the_store(world: World) -> None:
    with (world.store / "store.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = world.call("backup", "--", world.vm.name, expect=11)
        assert "another process is writing to it" in refused.stderr
        world.assert_lists(world.references)  # reading goes on
    undone(world)
    goes_on(world)


def test_somebody_elses_backup_job_and_checkpoint_are_left_alone(world: World) -> None:
    name = world.vm.name
    socket = world.host.root / "theirs.socket"
    backup = (
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/>"
        f"<disks><disk name='vda' type='file'><scratch file='{world.disks}/theirs'/></disk>"
        "<disk name='vdb' backup='no'/></disks></domainbackup>"
    )
    checkpoint = (
        "<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/>"
        "<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>"
    )
    world.host.call("begin_backup", name, backup, checkpoint)
    refused = world.call("backup", "--", name, expect=11)
    assert "a backup job is running" in refused.stderr
    assert str(socket) in refused.stderr
    assert world.host.call("job", name) != 0
    assert socket.exists()
    world.host.call("abort_job", name)
    world.change()
    made = world.backup()
    assert [disk["method"] for disk in made["disks"]] == ["bitmap", "bitmap"]
    assert world.host.call("checkpoints", name) == ["theirs"]
    assert "theirs" in world.bitmaps()["vda"]
    world.assert_restores(list(world.references)[-1])
