"""An update from one version of the package to the next, its daemon at work, and back again."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from build import documents
from tests.package.conftest import Built
from tests.package.test_plugin_file import PUBLISHER
from tests.support import next_version
from tests.support.bare_root import LIBVIRT, OPENSSL, BareRoot
from tests.support.daemon import SLOW, Api, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import lazy_disk
from tests.support.plugin_manager import PluginManager
from tests.support.served import short_folder
from tests.support.world import World

_PROGRAMS = ("cp", "cut", "flock", "qemu-system-x86_64", "setsid")
_QEMU_MODULES = Path("/usr/lib/x86_64-linux-gnu/qemu")
_RC = "/etc/rc.d/rc.vm-babysitter"
_BOUND = 25
"""Seconds that a daemon has to end in."""


class Server:
    """An Unraid server with a libvirtd, a started array of one pool, and nothing else."""

    def __init__(self, folder: Path, libvirtd: PrivateLibvirtd) -> None:
        self.bare = BareRoot(folder / "root", [*LIBVIRT, *OPENSSL])
        for name in _PROGRAMS:
            self.bare.have_program(name)
        self.bare.bound = (libvirtd.root, folder / "w", _QEMU_MODULES)
        self.manager = PluginManager(self.bare)
        root = self.bare.root
        (root / "var/run").symlink_to("../run")
        (root / "run/libvirt").symlink_to(libvirtd.root / "run")
        for name, text in {
            "boot/config/pools/cache.cfg": "",
            "var/local/emhttp/var.ini": 'fsState="Started"\n',
        }.items():
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text(text)
        (root / "mnt").mkdir()
        self.pool = root / "mnt/cache"
        self.runtime = folder / "w/run"  # QEMU, which runs outside, makes sockets there
        self.bare.environment = {"VMB_RUNTIME": str(self.runtime)}
        self.settings = self.manager.flash / "settings.json"
        self.api = Api(self.runtime / "api/api.socket")

    @property
    def pid(self) -> str:
        return (self.runtime / "daemon.pid").read_text()

    @property
    def version(self) -> str:
        return str(self.api.get("/openapi.json")["info"]["version"])

    def log(self) -> str:
        return (self.pool / "system/vm-babysitter/vm-babysitter.log").read_text()

    def stop(self) -> None:
        if (self.bare.root / _RC[1:]).exists():
            self.bare.call(_RC, "stop")


@pytest.fixture
def server(libvirtd: PrivateLibvirtd, built: Built) -> Iterator[Server]:
    with short_folder() as folder:
        (folder / "w").mkdir()
        server = Server(folder, libvirtd)
        server.manager.flash.mkdir()
        shutil.copy(built.package, server.manager.flash)
        with lazy_disk(folder / "pool.image", server.pool):
            for name in ("system", "backups"):
                (server.pool / name).mkdir()
            try:
                yield server
            finally:
                server.stop()


@pytest.fixture
def newer(built: Built, server: Server, tmp_path: Path) -> Path:
    plg = next_version.make(built.package, tmp_path / "next", PUBLISHER)
    (package,) = plg.parent.glob("*.txz")
    url = f"https://example.org/releases/{next_version.VERSION}/{package.name}"
    server.manager.web[url] = package.read_bytes()
    return plg


def test_from_one_version_to_the_next_and_back_with_a_backup_that_runs(
    built: Built, server: Server, newer: Path, libvirtd: PrivateLibvirtd
) -> None:
    older = built.document(documents.PLG)
    first = {
        "version": 1,
        "vms": {"groups": {"of mine": []}},
        "a key of nobody": {"kept": True},
        "store": {"path": "/mnt/cache/backups"},
    }
    with closing(World(libvirtd, server.bare.root.parent / "w/vm")) as world:
        world.store.rmdir()
        world.store, world.runtime = server.pool / "backups", server.runtime
        server.settings.write_text(json.dumps(first))
        server.manager.install(older)
        until(lambda: server.api.vm_in_status(world.vm.name), lambda: server.api.get("/system"), 10)
        assert server.version != next_version.VERSION
        points = [_backed_up(server, world)]
        text, pid = server.settings.read_text(), server.pid
        world.change()
        slow = server.api.submit("backup", world.vm.uuid, limit=SLOW, full=True)
        server.api.reaches(slow)

        server.manager.install(newer)
        assert server.pid != pid
        assert server.version == next_version.VERSION
        assert server.api.job(slow)["state"] == "interrupted"
        world.assert_vm_unharmed()
        (again,) = until(lambda: server.api.jobs("queued", "waiting", "running"), server.api.jobs)
        assert (again["origin"], again["vm"]) == ("retry", world.vm.name)
        server.api.call("POST", f"/jobs/{again['id']}/cancel", {}, expect=202)  # it is a slow one
        server.api.ended(again["id"])
        points.append(_backed_up(server, world))
        assert server.settings.read_text() == text  # of version 1, until something is changed
        groups = server.api.get("/settings")["settings"]["vms"]["groups"]
        assert groups == {"of mine": [], next_version.ADDED: []}
        server.api.configure(backup={"compress": True})
        now = json.loads(server.settings.read_text())
        assert now["version"] == next_version.SETTINGS
        assert now["vms"]["groups"] == groups
        assert now["a key of nobody"] == {"kept": True}
        assert (server.settings.with_name("settings.json.version-1")).read_text() == text

        # Unraid refuses an older version. Who removes the newer one first has settings that it
        # does not know: they are not touched, and nothing is done without them.
        kept = server.settings.read_text()
        server.manager.remove()
        shutil.copy(built.package, server.manager.flash)
        server.manager.install(older)
        assert server.version != next_version.VERSION
        said = server.api.part("settings")
        assert "settings.json.version-1, kept beside it" in said["text"] + said["hint"]
        assert server.settings.read_text() == kept
        server.settings.write_text(text)  # as the message says; else it is seen within a minute
        server.bare.call(_RC, "restart")
        assert server.api.part("settings")["state"] == "ok"
        server.api.learns_of(world.vm.name)
        points.append(_backed_up(server, world))
        server.stop()
        for point in points:
            world.assert_restores(point)
        world.assert_vm_unharmed()
        assert "Traceback" not in server.log()


def _backed_up(server: Server, world: World) -> str:
    copies = world.copies()
    point = str(server.api.done("backup", world.vm.uuid)["point"])
    world.references[point] = copies
    return point
