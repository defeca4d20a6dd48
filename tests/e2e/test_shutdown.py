"""The server is shut down in the middle of a backup: what Unraid tells the plugin, in its order."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.daemon import SLOW, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.served import short_folder
from tests.support.unraid_host import UnraidHost
from tests.support.world import World

BOUND = 25.0
"""Seconds that a hook may take; the daemon has 20 of them."""


@pytest.fixture
def host(libvirtd: PrivateLibvirtd) -> Iterator[UnraidHost]:
    with short_folder() as folder:
        host = UnraidHost(folder / "root", libvirtd.uri)
        host.array("Started")
        with host.disks():
            yield host
            host.rc("stop")


def test_shut_down_in_mid_backup(
    host: UnraidHost, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with closing(World(libvirtd, tmp_path / "w")) as world, ExitStack() as stack:
        stack.callback(host.rc, "stop")
        store = host.pool / "backups"
        store.mkdir()
        world.store.rmdir()
        world.store, world.runtime = store, host.runtime
        assert host.rc("start").code == 0
        host.answers()
        host.api.configure(store={"path": str(store)})
        host.api.learns_of(world.vm.name)
        copies = world.copies()
        first = str(host.api.done("backup", world.vm.uuid)["point"])
        world.references[first] = copies
        world.change()
        job = host.api.submit("backup", world.vm.uuid, limit=SLOW, full=True)
        host.api.reaches(job)

        host.array("Stopping")
        assert host.event("stopping") + host.event("stopping_libvirt") < BOUND
        assert host.pid is None
        assert host.event("unmounting_disks") < 2
        host.assert_disks_unused()
        world.assert_vm_unharmed()

        host.array("Started")
        host.event("disks_mounted")
        host.answers()
        (again,) = until(lambda: host.api.jobs("queued", "waiting", "running"), host.api.jobs)
        assert again["origin"] == "retry"
        host.api.call("POST", f"/jobs/{again['id']}/cancel", {}, expect=202)  # it is a slow one
        host.api.ended(again["id"])
        copies = world.copies()
        second = str(host.api.done("backup", world.vm.uuid)["point"])
        world.references[second] = copies
        host.rc("stop")
        for point in (first, second):
            world.assert_restores(point)
        world.assert_vm_unharmed()
        for name in ("api/api.socket.lock", "daemon.out", "rc.lock"):
            (host.runtime / name).unlink()
        (host.runtime / "api").rmdir()
        world.assert_tidy()
