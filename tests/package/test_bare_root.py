"""The package in a root that holds only what Unraid has: libraries, command, daemon, backups."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.package.conftest import Built
from tests.support.bare_root import LIBVIRT, OPENSSL, BareRoot
from tests.support.daemon import DaemonProcess, back_up, in_care_of, until
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.world import World

HOME = "usr/local/vm-babysitter"
_STORE = Path(__file__).parents[1] / "data/format-1"
_QEMU_MODULES = Path("/usr/lib/x86_64-linux-gnu/qemu")
"""Debian's QEMU is in pieces; Unraid's is in one."""
COMMAND = "/usr/local/sbin/vm-babysitter"
PYTHON = f"/{HOME}/python/bin/python3.11"
_MODULES = "import _bz2, _ctypes, _hashlib, _lzma, _sqlite3, _ssl, _uuid, pyexpat, zlib"
_MAPPED = """
import re, ssl, hashlib, sqlite3, uuid, ctypes, lzma, bz2
print(ssl.OPENSSL_VERSION, hashlib.new("sha256", b"x").hexdigest()[:8])
print(sorted(set(re.findall(r"/\\S+[.]so[.]?\\S*", open("/proc/self/maps").read()))))
"""


class InstalledDaemon(DaemonProcess):
    """The daemon as the package brings it, in a bare root that sees the libvirtd and the VMs."""

    def __init__(self, bare: BareRoot, host: PrivateLibvirtd, folder: Path) -> None:
        super().__init__(host, folder)
        self.bare = bare
        self.bound = (host.root, folder.parent, _QEMU_MODULES)

    def start(self) -> float:
        words = {
            "--settings": self.settings,
            "--state": self.state,
            "--runtime": self.runtime,
            "--uri": self.host.uri,
        }
        options = [str(word) for pair in words.items() for word in pair]
        command = [COMMAND, "--socket", str(self.api.socket), "serve", *options]
        self._process = self.bare.start(
            *command, "--allow-ram-store", printed=self._printed, bound=self.bound
        )
        until(self.api.alive, lambda: self._printed.read_text() + self.log())
        return 0.0

    def cli(self, *arguments: str) -> str:
        command = [COMMAND, "--socket", str(self.api.socket), *arguments]
        return self.bare.call(*command, bound=self.bound)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> BareRoot:
    """A root with libvirt and OpenSSL of this machine, and the package."""
    bare = BareRoot(tmp_path_factory.mktemp("bare") / "root", [*LIBVIRT, *OPENSSL])
    bare.have_program("qemu-system-x86_64")
    bare.install(built.package)
    return bare


def linked(bare: BareRoot) -> set[str]:
    """The libraries of which our copy is used."""
    return {path.name for path in (bare.root / HOME / "python/lib").glob("*.so*")}


def test_there_is_no_qemu_nbd_and_no_python_but_ours(installed: BareRoot) -> None:
    names = [path.name for path in installed.root.rglob("*") if path.is_file()]
    assert "qemu-nbd" not in names
    assert [name for name in names if name.startswith("python")] == ["python3.11"]


def test_the_command_helps_whatever_the_environment_says(installed: BareRoot) -> None:
    broken = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONSTARTUP": "/x"}
    assert "Usage: vm-babysitter" in installed.call(COMMAND, "--help", environment=broken)
    assert installed.call(COMMAND, "--version", environment={"LC_ALL": "C"}).strip()


def test_every_module_of_the_program_can_be_imported(installed: BareRoot) -> None:
    script = f"""
import pkgutil, importlib, sys, vm_babysitter
names = [m.name for m in pkgutil.walk_packages(vm_babysitter.__path__, "vm_babysitter.")]
for name in names:
    if not name.endswith("__main__"): importlib.import_module(name)
import libvirt, libvirt_qemu, lxml.etree, zstandard, blake3, tzdata, requests
assert all(p.startswith("/{HOME}/") for p in sys.path), sys.path
print(len(names))
"""
    assert int(installed.call(PYTHON, "-B", "-P", "-c", script)) > 100


def test_nothing_is_written_to_where_it_is_installed(installed: BareRoot) -> None:
    home = installed.root / HOME
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    installed.call(COMMAND, "points", "--help")
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    backend = home / "backend/vm_babysitter"
    compiled = {p.name.partition(".")[0] for p in (backend / "__pycache__").iterdir()}
    assert compiled >= {p.stem for p in backend.glob("*.py")}


def test_libraries_of_the_system_come_first(installed: BareRoot) -> None:
    assert not linked(installed) & {*OPENSSL, "libz.so.1", "libffi.so.8"}
    said = installed.call(PYTHON, "-B", "-c", _MAPPED)
    assert "/lib/x86_64-linux-gnu/libcrypto.so.3" in said
    assert "lib-fallback/libcrypto" not in said


def test_ours_are_used_where_the_system_has_none(built: Built, tmp_path: Path) -> None:
    bare = BareRoot(tmp_path / "root")
    for name in ("qemu-img", "bash"):
        assert (bare.root / "usr/bin" / name).exists()
    for name in ("libz.so.1", "libffi.so.8"):
        bare.library(name).unlink(missing_ok=True)  # qemu-img has brought them
    bare.install(built.package)
    assert linked(bare) == {p.name for p in (bare.root / HOME / "python/lib-fallback").iterdir()}
    said = bare.call(PYTHON, "-B", "-c", _MAPPED)
    assert "OpenSSL 3." in said
    assert "libcrypto.so.3" in said
    assert "/lib/x86_64-linux-gnu/libcrypto" not in said
    bare.call(PYTHON, "-B", "-c", _MODULES)
    # Backups are read where there is no libvirt at all.
    shutil.copytree(_STORE, bare.root / "tmp/store")
    said = bare.call(COMMAND, "--standalone", "--store", "/tmp/store", "points", "--json")
    assert json.loads(said)


def test_each_library_is_chosen_by_itself_and_anew_each_time(built: Built, tmp_path: Path) -> None:
    bare = BareRoot(tmp_path / "root")
    bare.unpack(built.package)
    fallback = {p.name for p in (bare.root / HOME / "python/lib-fallback").iterdir()}
    bare.library("libz.so.1").unlink(missing_ok=True)
    for name in sorted(fallback):
        _stand_in(bare.library(name), name)
        bare.call("/bin/sh", "install/doinst.sh")
        present = {other for other in fallback if bare.library(other).exists()}
        assert linked(bare) == fallback - present, name
        bare.library(name).unlink()
    # With the root somewhere else, as package tools with ROOT=… run it.
    subprocess.run(["sh", "install/doinst.sh"], cwd=bare.root, check=True)
    assert linked(bare) == {other for other in fallback if not bare.library(other).exists()}


def _stand_in(path: Path, name: str) -> None:
    command = ["gcc", "-shared", f"-Wl,-soname,{name}", "-o", str(path), "-x", "c", "/dev/null"]
    subprocess.run(command, check=True)


@pytest.fixture
def daemon(
    installed: BareRoot, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> Iterator[InstalledDaemon]:
    with closing(InstalledDaemon(installed, libvirtd, tmp_path / "d")) as daemon:
        daemon.write_settings()
        yield daemon


def test_the_daemon_makes_backups_of_a_real_vm(
    daemon: InstalledDaemon, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with closing(World(libvirtd, tmp_path / "w")) as world:
        in_care_of(daemon, world)
        daemon.start()
        daemon.api.learns_of(world.vm.name)
        points = [back_up(daemon, world, compress=True)]
        world.change()
        points.append(back_up(daemon, world))
        assert [p["point"] for p in daemon.api.of_vm(world.vm.uuid, "/points")] == points
        # A VM that is off is read without qemu-nbd, and what is verified is, too.
        world.vm.stop()
        world.power = "shutoff"
        points.append(back_up(daemon, world, full=True))
        assert daemon.cli("verify", world.vm.uuid)
        assert json.loads(daemon.cli("status", "--json"))["fine"]
        for point in points:
            world.assert_restores(point)
        assert daemon.terminate() < 20
