"""What a user is told by a real daemon, through the notify script's stand-in and a web hook."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.demo.listener import Listener
from tests.support import notify_stand_in
from tests.support.daemon import DaemonProcess, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, DiskSpec, VmFactory

NAME = 'My "VM" & co $(touch x)'


@pytest.fixture
def daemon(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[DaemonProcess]:
    with closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon:
        notify_stand_in.install(daemon.root)
        yield daemon


def test_a_failure_is_told_once_and_a_success_waits_for_the_summary(
    daemon: DaemonProcess, vm: VmFactory
) -> None:
    good, broken = vm("good one", disks=[DiskSpec(size=MIB)]), vm(NAME, disks=[DiskSpec(size=MIB)])
    with Listener() as listener:
        daemon.write_settings(notify={"webhook": listener.address})
        daemon.start()
        daemon.api.learns_of(broken.name)
        broken.paths["vda"].unlink()
        assert daemon.api.done("backup", good.uuid)["result"] == "ok"
        failed = daemon.api.ended(daemon.api.submit("backup", broken.uuid))
        assert failed["state"] == "failed"
        message = listener.wait()
        assert message["severity"] in {"warning", "alert"}
        assert NAME in message["subject"]
        assert "vda" in message["text"], message
        (kept,) = until(lambda: notify_stand_in.archived(daemon.root))
        assert kept["importance"] == message["severity"]
        assert "My 'VM' & co $(touch x)" in kept["subject"]
        assert "good one" not in str(kept)
        tried = daemon.api.call("POST", "/notify/test", {})
        assert {one["channel"]: one["sent"] for one in tried} == {
            "unraid": True,
            "webhook": True,
            "health": False,
        }
        assert "This is a test" in listener.wait()["text"]
        daemon.kill()
        daemon.start()
        daemon.api.idle()
        assert len(notify_stand_in.archived(daemon.root)) == 2
