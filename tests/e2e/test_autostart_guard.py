"""The fail-safe of the autostart with a real libvirtd, virsh, and a daemon that comes and goes."""

import os
from contextlib import closing
from pathlib import Path

from tests.conftest import private_root
from tests.support.autostart_host import AutostartHost
from tests.support.daemon import DaemonProcess, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, TestVm, VmFactory

SMALL = (DiskSpec("vda", size=MIB),)


def begun(vm: TestVm) -> int:
    """When the VM's QEMU was started, in the kernel's ticks."""
    stat = Path(f"/proc/{vm.pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def test_vms_come_up_in_order_without_the_daemon(libvirtd: PrivateLibvirtd, vm: VmFactory) -> None:
    router, broken, db = (vm(name, disks=SMALL) for name in ("router", "broken", "db"))
    broken.paths["vda"].unlink()
    db.start()
    with private_root() as root:
        host = AutostartHost(root / "host")
        gone = "e0000000-1111-4222-8333-444444444444"
        third = vm("third", disks=SMALL)
        listed = [(third, "third"), (broken, "broken"), (db, "db"), (router, "router")]
        host.write_list((gone, 0, "gone"), *((each.uuid, 0, name) for each, name in listed))
        done = host.run(PATH=os.environ["PATH"], VMB_URI=libvirtd.uri, VMB_SECOND="5")
        assert done.stderr == ""
        assert host.markers() == {
            gone: "failed",
            third.uuid: "done",
            broken.uuid: "failed",
            db.uuid: "done",
            router.uuid: "done",
        }
        [told] = host.told()
    assert third.state == router.state == "running"
    assert begun(third) < begun(router)
    assert told.subject == "2 VMs did not start"
    assert "Started: third, router." in told.text
    assert "gone: libvirt has no such VM" in told.more
    assert "vda.qcow2" in told.more


def test_the_daemon_and_the_script_take_turns(
    libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path
) -> None:
    """First the daemon does it alone, later the script by its copy of the list; neither twice."""
    first, second = vm("its 'first', ü", disks=SMALL), vm("second", disks=SMALL)
    with private_root() as root, closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon:
        host = AutostartHost(root / "host")
        host.runtime = daemon.runtime
        places = {
            "PATH": os.environ["PATH"],
            "VMB_URI": libvirtd.uri,
            "VMB_RUNTIME": str(daemon.runtime),
            "VMB_SOCKET": str(daemon.api.socket),
            "VMB_CONFIG": str(daemon.folder),
        }
        daemon.write_settings(autostart={"vms": [{"vm": second.name}, {"vm": first.uuid}]})
        daemon.start()
        until(lambda: daemon.settings.with_name("autostart.tsv").exists())
        host.run(**places, VMB_SECOND="50")
        assert host.markers() == {first.uuid: "done", second.uuid: "done"}
        assert begun(second) <= begun(first)
        assert host.told() == []
        daemon.kill()

        first.stop()
        second.stop()
        host.libvirtd_starts(1_764_007_000)
        host.run(**places)
        assert first.state == second.state == "running"
        assert host.markers() == {first.uuid: "done", second.uuid: "done"}
        [told] = host.told()
        assert f"Started: second, {first.name}." in told.text

        first.stop()  # by its user
        daemon.start()
        host.run(**places, VMB_SECOND="50")
        assert (first.state, second.state) == ("shutoff", "running")
        assert len(host.told()) == 1
