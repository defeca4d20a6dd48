"""VMs are started in order by a real daemon with a real libvirtd."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import DaemonProcess, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, TestVm, VmFactory
from tests.support.world import Json

SMALL = [DiskSpec(size=MIB)]
MANY = 50 if os.environ.get("VMB_SOAK") == "1" else 5


@pytest.fixture
def daemon(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[DaemonProcess]:
    with closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon:
        yield daemon


def list_is(daemon: DaemonProcess, *vms: Json, **more: Any) -> None:
    daemon.write_settings(store={"path": ""}, autostart={"vms": list(vms), **more})


def begin(daemon: DaemonProcess, run: str | None = "boot-1") -> Json:
    found: Json = daemon.api.call("POST", "/autostart/runs", {"run": run}, expect=202)
    return found


def marks(daemon: DaemonProcess) -> dict[str, str]:
    return {one["vm"]: one["mark"] for one in daemon.api.get("/autostart")["run"]["vms"]}


def finished(daemon: DaemonProcess) -> dict[str, str]:
    ended = lambda: daemon.api.get("/autostart")["run"]["state"] == "finished"  # noqa: E731
    until(ended, daemon.log, seconds=60 + 6 * MANY)
    return marks(daemon)


def begun(vm: TestVm) -> int:
    """Return when the QEMU of a VM was started, in ticks since the boot."""
    return int(Path(f"/proc/{vm.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def told(daemon: DaemonProcess) -> list[str]:
    events = daemon.api.get("/events")
    return [e["subject"] for e in events if e["kind"].startswith("autostart-")]


def test_three_vms_in_order_with_waits_and_one_that_does_not_start(
    daemon: DaemonProcess, vm: VmFactory
) -> None:
    router, dns, mail, broken = (
        vm(name, disks=SMALL) for name in ("-x", 'My "VM" & co', "größe", "broken")
    )
    broken.paths["vda"].unlink()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        list_is(
            daemon,
            {"vm": mail.uuid, "delay": 1},
            {"vm": "broken", "tries": 1},
            {"vm": dns.name, "wait_for": ["vm:größe"]},
            {"vm": "-x", "wait_for": [f"tcp:127.0.0.1:{port}", 'vm:My "VM" & co']},
        )
        daemon.start()
        assert begin(daemon)["state"] == "running"
        until(lambda: dns.state == "running")
        until(lambda: "nothing answers at 127.0.0.1" in str(daemon.api.get("/autostart")["run"]))
        assert router.state == "shutoff"
        server.listen()
        assert finished(daemon) == {
            "größe": "done",
            "broken": "failed",
            'My "VM" & co': "done",
            "-x": "done",
        }
        assert begun(mail) < begun(dns) < begun(router)
        assert told(daemon) == ["VM broken did not start"]
        router.kill()
        assert begin(daemon)["state"] == "finished"  # the array start is told again
        copy = daemon.settings.parent / "autostart.tsv"
        until(copy.exists)  # looked at every few seconds
        lines = copy.read_text().splitlines()
        assert lines[0] == "# vm-babysitter autostart 1"
        assert lines[1:] == [
            f"{mail.uuid}\t1\tgröße",
            f"{broken.uuid}\t0\tbroken",
            f'{dns.uuid}\t0\tMy "VM" & co',
            f"{router.uuid}\t0\t-x",
        ]
        assert router.state == "shutoff"
        begin(daemon, None)  # but a user may have it started
        until(lambda: router.state == "running")


@pytest.mark.timeout(120 + 6 * MANY)
def test_killed_in_the_middle_the_next_daemon_goes_on(daemon: DaemonProcess, vm: VmFactory) -> None:
    names = [f"vm {number}" for number in range(MANY)]
    machines = [vm(name, disks=SMALL) for name in names]
    list_is(daemon, *({"vm": name} for name in names))
    daemon.start()
    begin(daemon)
    until(lambda: machines[1].state == "running")
    daemon.kill()
    time.sleep(0.1)
    daemon.start()
    assert set(finished(daemon).values()) == {"done"}
    order = [begun(machine) for machine in machines]
    assert order == sorted(order)
    assert told(daemon) == []
    # A libvirtd that restarts is no start of the VM service.
    machines[0].kill()
    daemon.host.restart()
    until(lambda: daemon.api.part("libvirt")["state"] == "ok")
    daemon.kill()
    daemon.start()
    time.sleep(0.5)
    assert machines[0].state == "shutoff"


def test_a_vms_own_autostart_is_taken_over_and_given_back(
    daemon: DaemonProcess, vm: VmFactory
) -> None:
    machine = vm('My "VM" & co', disks=SMALL)
    machine.host.call("set_autostart", machine.name, True)
    list_is(daemon, {"vm": machine.uuid})
    daemon.start()
    daemon.api.learns_of(machine.name)

    def listed() -> Json:
        (one,) = daemon.api.get("/autostart")["vms"]
        return dict(one)

    assert (listed()["own"], listed()["taken"]) == (True, False)
    assert "comes up at once" in listed()["note"]
    path = f"/vms/{machine.uuid}/autostart"
    daemon.api.call("POST", path, {"take_over": True})
    assert (listed()["own"], listed()["taken"], listed()["note"]) == (False, True, "")
    xml = str(machine.host.call("xml", machine.name, True))
    machine.undefine()
    machine.define(xml)  # as Unraid's form does
    machine.host.call("set_autostart", machine.name, True)
    assert "on again" in listed()["note"]
    daemon.api.call("POST", path, {"take_over": True})
    machine.undefine()
    machine.define(xml)
    taken = daemon.api.get("/settings")["settings"]["autostart"]["taken"]
    daemon.api.configure(autostart={"vms": [], "taken": taken})
    until(lambda: daemon.api.get("/settings")["settings"]["autostart"]["taken"] == [])
    daemon.api.configure(autostart={"vms": [{"vm": machine.uuid}]})
    assert listed()["own"] is True
