"""A VM, a backup folder, and what both must look like: the stage of the end-to-end tests."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

from tests.support.faulty import Fault
from tests.support.forked import Command, start
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.vm import MIB, DiskSpec, TestVm
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.catalog import point_name
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.ports import ThisHost

KIB = 1024
NAME = "- \"ü:ñ\", 'x' & 日本 $(touch x)"
TARGETS = ("vda", "vdb")
DISKS = (
    DiskSpec("vda", size=32 * MIB),
    DiskSpec("vdb", size=16 * MIB + 512, cluster_size=4 * KIB),
)
_REPOSITORY = Path(__file__).parents[2]
_SECONDS = 60
Json = dict[str, Any]


class Silent:
    """An observer that nobody listens to."""

    def step(self, name: str) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


class World:
    """One VM with two disks, one store, and a copy of each disk for each point made."""

    def __init__(
        self,
        host: PrivateLibvirtd,
        folder: Path,
        name: str = NAME,
        *,
        running: bool = False,
        devices: Sequence[str] = (),
        nvram: Path | None = None,
        disks: Sequence[DiskSpec] = DISKS,
    ) -> None:
        self.host = host
        self.folder = folder
        self.disks = folder / "disks: a, b"
        self.store = folder / "store, of: \"x\" 'y'"
        self.runtime = self._runtime_on(host)
        for path in (self.disks, self.store, folder / "references"):
            path.mkdir(parents=True)
        self.vm = TestVm(host, self.disks, name, disks, devices, nvram)
        self.power = "running" if running else "paused"
        self.boot()
        self.allow_ram = True
        self.machine: ThisHost | None = None
        """The machine that our commands take for theirs; None for the one it is."""
        self.path = ""
        """The PATH of our commands, empty for that of the tests."""
        self.references: dict[str, dict[str, Path]] = {}
        self._chance = random.Random(2026)
        self.change()

    # -- doing --------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the VM; one that runs takes seconds of a processor for its firmware."""
        self.vm.start(running=self.power == "running")

    def move_to(self, host: PrivateLibvirtd) -> None:
        """Go on at another host; the store is the same."""
        self.host, self.runtime = host, self._runtime_on(host)
        self.vm.move_to(host)

    def _runtime_on(self, host: PrivateLibvirtd) -> Path:
        return host.root / f"runtime-{os.getpid()}-{self.folder.name[-24:]}"

    def arguments(self, *arguments: str, faults: Sequence[Fault] = ()) -> list[str]:
        """The command line of the product, with faults to happen in it."""
        if self.machine is not None:
            machine = (self.machine.id, self.machine.name, self.machine.boot_id)
            faults = [*faults, Fault("be", "host", "|".join(machine))]
        spec = json.dumps([list(asdict(fault).values()) for fault in faults])
        program = [sys.executable, "-m", "tests.support.faulty", str(self.runtime), spec]
        place = ["--standalone", "--uri", self.host.uri, "--store", str(self.store)]
        return [*program, *place, *(["--allow-ram-store"] if self.allow_ram else []), *arguments]

    def start(
        self,
        *arguments: str,
        faults: Sequence[Fault] = (),
        stdout: IO[str] | int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a command, in the folder of this world."""
        return subprocess.Popen(
            self.arguments(*arguments, faults=faults),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
            cwd=self.folder,
        )

    def fork(
        self, *arguments: str, faults: Sequence[Fault] = (), stdout: IO[str] | int = subprocess.PIPE
    ) -> Command:
        """Start a command as ``start`` does, in half a second less; it is no child of the tests."""
        return start(
            "tests.support.faulty",
            self.arguments(*arguments, faults=faults)[3:],
            self._environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )

    def _environment(self) -> dict[str, str]:
        return environment() | ({"PATH": self.path} if self.path else {})

    def call(
        self, *arguments: str, faults: Sequence[Fault] = (), expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that must end with this status."""
        with self.fork(*arguments, faults=faults) as process:
            out, err = process.communicate(timeout=_SECONDS)
        assert process.returncode == expect, f"{arguments}: {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def change(self) -> None:
        """Write, zero and discard on both disks, as a guest does; every write must work."""
        chance = self._chance
        for target, spec in self.vm.disks.items():
            for _ in range(3):
                offset = chance.randrange(0, spec.size - 512 * KIB, 512)
                self.vm.write(target, offset, chance.randrange(512, 256 * KIB, 512), 0x5A)
            block = chance.randrange(0, spec.size // MIB - 4) * MIB
            self.vm.write_bytes(target, block, chance.randbytes(3 * MIB))
            self.vm.zero(target, chance.randrange(0, spec.size - MIB, 4 * KIB), 200 * KIB)
            self.vm.discard(target, chance.randrange(0, spec.size - MIB, 64 * KIB), 256 * KIB)

    def copies(self) -> dict[str, Path]:
        """Copy what the disks hold now."""
        number = len(list((self.folder / "references").iterdir()))
        folder = self.folder / "references" / f"{number:03d}"
        folder.mkdir()
        return {t: self.vm.reference(t, folder / f"{t}.raw") for t in self.vm.disks}

    def backup(self, *arguments: str, expect: int = 0) -> Json:
        """Make a point, and remember what it must restore to. Returns its manifest."""
        copies = self.copies()
        done = self.call("backup", *arguments, "--json", "--", self.vm.name, expect=expect)
        made = json.loads(done.stdout)
        self.references[made["point"]] = copies
        return cast(Json, made["manifest"])

    def backup_here(self, *, full: bool = False, track_snapshots: bool = False) -> Point:
        """Do as ``backup`` does, in this process, which takes half the time."""
        copies = self.copies()
        with self.app().backup() as work:
            made = work.run(self.vm.name, force_full=full, track_snapshots=track_snapshots)
        self.references[f"{made.chain}/{made.point.seq:06d}"] = copies
        return made.point

    def die(self, *faults: Fault, options: Sequence[str] = ()) -> dict[str, Path]:
        """Run a backup that one of the faults kills. Returns what the disks held then."""
        copies = self.copies()
        arguments = ("backup", *options, "--", self.vm.name)
        self.call(*arguments, faults=faults, expect=-signal.SIGKILL)
        return copies

    def chains(self) -> list[tuple[Chain, Sequence[str]]]:
        """The chains of all VMs in the store, with the names of their committed points."""
        if not any(self.store.glob("*.json")) and not any(self.store.glob("*/*/")):
            return []
        store = self.app().store()
        chains = [chain for vm in store.vms() for chain in store.chains(vm.uuid)]
        return [(c, [point_name(c, p.point.seq) for p in c.points]) for c in chains]

    def diagnosed(self) -> Diagnosed:
        """What is found of the VM and its backups."""
        with self.app().diagnoser() as diagnoser:
            return diagnoser.diagnose(self.vm.name)

    # -- judging ------------------------------------------------------------------------

    def assert_lists(self, expected: Iterable[str], *, verify: bool = True) -> None:
        """Exactly these points are there; with ``verify`` the files of all are complete."""
        found = self.chains()
        assert sorted(name for _, names in found for name in names) == sorted(expected)
        assert not any(chain.broken or chain.unreadable for chain, _ in found)
        if verify and any(names for _, names in found):
            for result in self.app().verify().all(self.vm.name, structure_only=True):
                assert result.good, result

    def assert_restores(self, point: str) -> None:
        """The data of a point is right: by our own verify, by a restore, and by QEMU alone."""
        assert self.app().verify().one(self.vm.name, point).good
        target = self.folder / "restored, here"
        self.app().restore(target).run(self.vm.name, point, format="qcow2")
        self._compare(point, target)
        shutil.rmtree(target)
        self.assert_holds(point)

    def assert_holds(self, point: str) -> None:
        """QEMU alone finds in a point what the disks held."""
        chain, seq = point.split("/")
        # Those of VMs that had another UUID before, too; several VMs may have series of one moment.
        found = list(self.store.glob(f"*/{chain}/{seq}-*/"))
        own = [path for path in found if path.parent.parent.name.endswith(self.vm.uuid[:8])]
        (directory,) = found if len(found) == 1 else own
        self._compare(point, directory)

    def _compare(self, point: str, directory: Path) -> None:
        for disk, raw in self.references[point].items():
            qcow2 = directory / f"{disk}.qcow2"
            image = named(qcow2) if qcow2.exists() else named(qcow2.with_suffix(".raw"), "raw")
            run("qemu-img", "compare", image, named(raw, "raw"))

    def app(self) -> Standalone:
        """The product, in this process."""
        place = Place(
            self.host.uri,
            self.store,
            allow_ram_store=True,
            runtime=self.runtime,
            host=self.machine,
        )
        return Standalone(place, Silent(), Cancel())

    def assert_vm_unharmed(self) -> None:
        """The VM is in the state it was in, and its disks have seen no error."""
        assert self.vm.state == self.power
        with self.vm.monitor() as qmp:
            for block in cast(list[Json], qmp.execute("query-block")):
                assert block.get("io-status", "ok") == "ok"

    def bitmaps(self) -> dict[str, set[str]]:
        """The bitmaps that QEMU has on each disk's image."""
        with self.vm.monitor() as qmp:
            nodes = cast(list[Json], qmp.execute("query-named-block-nodes"))
        found: dict[str, set[str]] = {}
        for target in self.vm.disks:
            names = [
                bitmap["name"]
                for node in nodes
                if node["drv"] == "qcow2" and str(self.vm.paths[target]) in _file(node["file"])
                for bitmap in node.get("dirty-bitmaps", [])
            ]
            found[target] = set(names)
        return found

    def assert_tidy(self, *, bitmaps: int = 2) -> None:
        """Nothing is left of any attempt: in libvirt, in QEMU, beside the disks, in the store.

        ``bitmaps``: how many of the newest points have one; QEMU loses them when it is killed.
        """
        assert self.host.call("job", self.vm.name) == 0
        assert self.host.call("checkpoints", self.vm.name) == []
        chains = [chain for chain, _ in self.chains()]
        points = [s.point for c in chains if c.state == "live" for s in c.points]
        points.sort(key=lambda point: point.taken)
        made = [point.checkpoint for point in points if point.checkpoint]
        assert self.bitmaps() == {
            t: {c.bitmap(t) for c in [c for c in made if t in c.disks][-bitmaps:]}
            for t in self.vm.disks
        }
        assert not list(self.runtime.glob("*"))
        images = {path.name for path in self.vm.paths.values() if path.parent == self.disks}
        assert {path.name for path in self.disks.iterdir()} == images
        self.assert_store_tidy()

    def assert_store_tidy(self) -> None:
        """All that is in the store is what the manifests name."""
        chains = [chain for chain, _ in self.chains()]
        wanted = {"store.json", "store.lock", "lease.json"}
        for chain in chains:
            (place,) = (
                path.relative_to(self.store) for path in self.store.glob(f"*/{chain.directory}")
            )
            wanted |= {str(place), str(place / "chain.json")}
            wanted |= {str(place / "current.json")} if chain.noted else set()
            wanted |= {str(place.parent), str(place.parent / "vm.json")}
            wanted |= {str(place.parent / "seen.json")}
            for point in (stored.point for stored in chain.points):
                names = ["", "point.json", *(file.name for file in point.files)]
                names += [name for disk in point.disks for name in (disk.file, disk.index)]
                wanted |= {str(place / point.directory / name) for name in names}
        assert {str(p.relative_to(self.store)) for p in self.store.rglob("*")} == wanted

    def close(self) -> None:
        """End the VM and remove everything."""
        with contextlib.suppress(FileNotFoundError, ConnectionError):
            self.vm.kill()
        self.vm.remove()
        shutil.rmtree(self.runtime, ignore_errors=True)
        shutil.rmtree(self.folder)


Listing = dict[str, tuple[int, int, str]]


def listing(*folders: Path) -> Listing:
    """Everything in these folders: size, time of the last change, and digest of the content."""
    found: Listing = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            state = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (state.st_size, state.st_mtime_ns, digest)
    return found


@contextlib.contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    """Nothing in these folders is made, removed or written meanwhile; missing ones stay so."""
    there = [folder for folder in folders if folder.is_dir()]
    missing = [folder for folder in folders if not folder.exists()]
    before = listing(*there)
    yield
    assert listing(*there) == before
    assert not [str(folder) for folder in missing if folder.exists()]


def environment() -> dict[str, str]:
    """The environment of our commands, whatever is set where the tests run."""
    places = os.pathsep.join([str(_REPOSITORY / "backend"), str(_REPOSITORY)])
    return {**os.environ, "PYTHONPATH": places, "PYTHONWARNINGS": "error"}


def _file(name: str) -> str:
    """A file name as QEMU reports it, JSON descriptions read."""
    if not name.startswith("json:"):
        return name
    description = json.loads(name.removeprefix("json:"))
    while "filename" not in description:
        description = description["file"]
    return cast(str, description["filename"])
