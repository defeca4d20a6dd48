"""The daemon on a real libvirtd: set up, backups, cancelled, stopped, VMs and libvirtd that go."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon import SLOW, DaemonProcess, back_up, in_care_of, states, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import DiskSpec, VmFactory
from tests.support.world import World

NAMES = ('My "VM" & co', "-x", "日本 ü ' $(touch x)", "Windows 11; a\\b%20, 2")
STOPPED_WITHIN = 20.0
STOPPED_AT_WORST = 25.0
"""Where it waits in vain for a libvirt that stands still: 18 seconds, and then it goes."""
NOTICED_WITHIN = 5.0


@pytest.fixture
def daemon(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon that knows of its backup folder."""
    with closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon:
        daemon.write_settings()
        yield daemon


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path, daemon: DaemonProcess) -> Iterator[World]:
    with closing(World(libvirtd, tmp_path / "w")) as world:
        yield in_care_of(daemon, world)


def test_it_is_set_up_and_backs_up_and_tells_of_it(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with (
        closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon,
        closing(World(libvirtd, tmp_path / "w")) as world,
    ):
        in_care_of(daemon, world)
        daemon.start()
        api = daemon.api
        assert api.part("store")["state"] == "waits"
        assert not api.get("/status")["fine"]
        refused = api.call("POST", "/jobs", {"kind": "backup", "vm": world.vm.uuid}, expect=503)
        assert "No backup folder is set up" in str(refused)

        api.configure(store={"path": str(daemon.store)}, backup={"compress": True})
        first = back_up(daemon, world)
        world.change()
        second = back_up(daemon, world)

        jobs = api.jobs()
        assert [job["kind"] for job in jobs] == ["backup", "backup"]
        assert states(jobs) == ["done", "done"]
        assert "increment" in jobs[0]["summary"]
        assert second in api.log(jobs[0]["id"])
        until(lambda: (api.vm_in_status(world.vm.name) or {}).get("newest") == second)
        status = api.get("/status")
        assert status["fine"], status
        assert [point["point"] for point in api.of_vm(world.vm.uuid, "/points")] == [first, second]
        kept = api.get("/settings")["settings"]["store"]
        assert kept["id"]
        daemon.terminate()
        daemon.start()
        assert states(api.jobs()) == ["done", "done"]
        for point in (first, second):
            world.assert_restores(point)
        world.assert_vm_unharmed()
        world.assert_tidy()


@pytest.mark.parametrize("name", NAMES)
def test_vms_may_be_called_anything(
    name: str, libvirtd: PrivateLibvirtd, tmp_path: Path, daemon: DaemonProcess
) -> None:
    with closing(World(libvirtd, tmp_path / "w", name, disks=[DiskSpec("vda")])) as world:
        in_care_of(daemon, world)
        daemon.start()
        daemon.api.learns_of(name)
        copies = world.copies()
        point = daemon.api.done("backup", name)["point"]
        world.references[point] = copies
        assert [one["point"] for one in daemon.api.of_vm(name, "/points")] == [point]
        assert daemon.api.of_vm(name)["name"] == name
        target = tmp_path / "restored"
        daemon.api.done("restore", name, point="latest", to=str(target), format="qcow2")
        world._compare(point, target)
        assert daemon.api.done("verify", name)["result"] == "ok"


def test_a_cancelled_backup_leaves_the_chain_clean(daemon: DaemonProcess, world: World) -> None:
    daemon.start()
    first = back_up(daemon, world)
    world.change()
    number = daemon.api.submit("backup", world.vm.uuid, limit=SLOW, full=True)
    daemon.api.reaches(number)
    daemon.api.call("POST", f"/jobs/{number}/cancel", expect=202)
    assert daemon.api.ended(number)["state"] == "cancelled"
    daemon.api.idle()
    world.assert_lists([first])
    world.assert_vm_unharmed()
    world.assert_tidy()
    second = back_up(daemon, world)
    for point in (first, second):
        world.assert_restores(point)
    world.assert_tidy()


def test_a_job_that_has_not_begun_never_begins_if_it_is_cancelled(
    daemon: DaemonProcess, world: World, vm: VmFactory
) -> None:
    other = vm("second in line")
    daemon.start()
    daemon.api.learns_of(other.name)
    running = daemon.api.submit("backup", world.vm.uuid, limit=SLOW)
    daemon.api.reaches(running)
    queued = daemon.api.submit("backup", other.name)
    daemon.api.call("POST", f"/jobs/{queued}/cancel", expect=202)
    found = daemon.api.job(queued)
    assert (found["state"], found["started"]) == ("cancelled", None)
    daemon.api.call("POST", f"/jobs/{running}/cancel", expect=202)
    daemon.api.ended(running)
    assert daemon.api.of_vm(other.name, "/points") == []


def test_stopped_in_a_backup_it_ends_soon_and_goes_on_after_the_next_start(
    daemon: DaemonProcess, world: World
) -> None:
    daemon.start()
    first = back_up(daemon, world)
    world.change()
    daemon.api.configure(backup={"limit": SLOW})
    number = daemon.api.submit("backup", world.vm.uuid, full=True)
    daemon.api.reaches(number)
    assert daemon.terminate() < STOPPED_WITHIN
    world.assert_lists([first])
    world.assert_vm_unharmed()
    world.assert_tidy()
    daemon.write_settings()
    copies = world.copies()
    daemon.start()
    daemon.api.idle()
    interrupted, again = sorted(daemon.api.jobs(), key=lambda job: int(job["id"]))[1:]
    assert interrupted["state"] == "interrupted"
    assert (again["state"], again["options"]) == ("done", interrupted["options"])
    world.references[again["point"]] = copies
    for point in (first, again["point"]):
        world.assert_restores(point)
    world.assert_tidy()


def test_what_happens_to_vms_is_noticed(daemon: DaemonProcess, vm: VmFactory) -> None:
    daemon.start()
    api, host = daemon.api, daemon.host

    def state(name: str) -> str:
        return str((api.vm_in_status(name) or {"state": "unknown"})["state"])

    def becomes(name: str, wanted: str) -> None:
        until(lambda: state(name) == wanted, lambda: (state(name), daemon.log()), NOTICED_WITHIN)

    until(lambda: api.part("libvirt")["state"] == "ok")
    one = vm("it comes")
    becomes("it comes", "off")
    one.start()
    becomes("it comes", "paused")
    one.resume()
    becomes("it comes", "running")
    one.stop()
    becomes("it comes", "off")
    host.call("rename", "it comes", "and goes")
    becomes("and goes", "off")
    assert state("it comes") == "unknown"
    host.call("undefine", "and goes")
    becomes("and goes", "unknown")
    one.name = "and goes"
    kinds = [event["kind"] for event in api.get("/events")]
    assert kinds == ["vm-gone", "vm-renamed", "vm-appeared"]


def test_a_vm_that_is_gone_keeps_its_points(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    daemon.start()
    with closing(World(libvirtd, tmp_path / "w", "soon gone")) as world:
        in_care_of(daemon, world)
        daemon.api.learns_of("soon gone")
        point = back_up(daemon, world)
        world.vm.stop()
        world.vm.undefine()
        until(lambda: (daemon.api.vm_in_status("soon gone") or {"state": ""})["state"] is None)
        assert [p["point"] for p in daemon.api.of_vm("soon gone", "/points")] == [point]
        target = tmp_path / "restored"
        daemon.api.done("restore", "soon gone", point=point, to=str(target), format="qcow2")
        world._compare(point, target)
        shutil.rmtree(target)


def test_libvirtd_may_restart_while_nothing_is_done(daemon: DaemonProcess, world: World) -> None:
    daemon.start()
    first = back_up(daemon, world)
    daemon.host.kill()
    until(lambda: daemon.api.part("libvirt")["state"] == "waits")
    number = daemon.api.submit("backup", world.vm.uuid)
    until(lambda: daemon.api.job(number)["state"] == "waiting")
    assert daemon.api.job(number)["waits_for"]
    daemon.host.start()
    world.references[daemon.api.ended(number)["point"]] = world.copies()
    assert daemon.api.part("libvirt")["state"] == "ok"
    assert first in world.references
    assert len(world.references) == 2
    for point in world.references:
        world.assert_restores(point)
    world.assert_tidy()


def test_libvirtd_may_restart_in_a_backup(daemon: DaemonProcess, world: World) -> None:
    daemon.start()
    first = back_up(daemon, world)
    world.change()
    number = daemon.api.submit("backup", world.vm.uuid, limit=1 << 20, full=True)
    daemon.api.reaches(number)
    daemon.host.restart()
    ended = daemon.api.ended(number)
    assert ended["state"] in {"done", "failed"}
    second = back_up(daemon, world)
    world.assert_vm_unharmed()
    for point in (first, second):
        world.assert_restores(point)
    world.assert_tidy()


def test_libvirtd_may_stand_still(daemon: DaemonProcess, world: World) -> None:
    daemon.start()
    first = back_up(daemon, world)
    world.change()
    copies = world.copies()
    pid = int((daemon.host.root / "libvirtd.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        number = daemon.api.submit("backup", world.vm.uuid)
        until(lambda: daemon.api.part("libvirt")["state"] == "waits")
        assert daemon.api.get("/status")["vms"]  # nobody who asks waits for libvirt
        assert daemon.api.job(number)["state"] in {"waiting", "running", "failed", "queued"}
    finally:
        os.kill(pid, signal.SIGCONT)
    ended = daemon.api.ended(number)
    if ended["state"] != "done":
        ended = daemon.api.done("backup", world.vm.uuid)
    world.references[ended["point"]] = copies
    for point in (first, ended["point"]):
        world.assert_restores(point)
    world.assert_vm_unharmed()
    world.assert_tidy()


def test_stopped_while_libvirtd_stands_still_in_a_backup(
    daemon: DaemonProcess, world: World
) -> None:
    daemon.start()
    first = back_up(daemon, world)
    daemon.api.configure(backup={"limit": SLOW})
    number = daemon.api.submit("backup", world.vm.uuid, full=True)
    daemon.api.reaches(number)
    pid = int((daemon.host.root / "libvirtd.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(60)
        assert time.monotonic() - begun < STOPPED_AT_WORST
    finally:
        os.kill(pid, signal.SIGCONT)
    daemon.write_settings()
    daemon.start()
    daemon.api.idle()
    world.assert_vm_unharmed()
    world.assert_restores(first)
    second = back_up(daemon, world)
    world.assert_restores(second)
    world.assert_tidy()
