"""A VM, a backup folder, and what both must look like: the stage of the end-to-end tests."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from tests.support.faulty import Fault
from tests.support.libvirt_host import LibvirtHost
from tests.support.qemu_img import named, run
from tests.support.vm import MIB, DiskSpec, TestVm

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


class World:
    """One VM with two disks, one store, and a copy of each disk for each point made."""

    def __init__(
        self, host: LibvirtHost, folder: Path, name: str = NAME, *, running: bool = True
    ) -> None:
        self.host = host
        self.folder = folder
        self.disks = folder / "disks: a, b"
        self.store = folder / "store, of: \"x\" 'y'"
        self.runtime = Path(str(host.root / f"runtime-{os.getpid()}-{folder.name[-24:]}"))
        for path in (self.disks, self.store, folder / "references"):
            path.mkdir(parents=True)
        self.vm = TestVm(host, self.disks, name, DISKS)
        self.power = "running" if running else "paused"
        self.vm.start(running=running)
        self.references: dict[str, dict[str, Path]] = {}
        self._chance = random.Random(2026)
        self.change()

    # -- doing --------------------------------------------------------------------------

    def arguments(self, *arguments: str, faults: Sequence[Fault] = ()) -> list[str]:
        """The command line of the product, with faults to happen in it."""
        spec = json.dumps([list(asdict(fault).values()) for fault in faults])
        program = [sys.executable, "-m", "tests.support.faulty", str(self.runtime), spec]
        place = ["--standalone", "--uri", self.host.uri, "--store", str(self.store)]
        return [*program, *place, "--allow-ram-store", *arguments]

    def start(self, *arguments: str, faults: Sequence[Fault] = ()) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            self.arguments(*arguments, faults=faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def call(
        self, *arguments: str, faults: Sequence[Fault] = (), expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that must end with this status."""
        with self.start(*arguments, faults=faults) as process:
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

    def die(self, *faults: Fault, options: Sequence[str] = ()) -> None:
        """Run a backup that is killed by one of the faults."""
        arguments = ("backup", *options, "--", self.vm.name)
        self.call(*arguments, faults=faults, expect=-signal.SIGKILL)

    def points(self) -> list[Json]:
        """The points that the store lists, of this VM and any other."""
        if not any(self.store.glob("store.json")):
            return []
        return cast(list[Json], json.loads(self.call("points", "--json").stdout))

    # -- judging ------------------------------------------------------------------------

    def assert_lists(self, expected: Sequence[str]) -> None:
        """Exactly these points are there, and all are good."""
        found = self.points()
        assert sorted(p["point"] for p in found) == sorted(expected)
        assert [p["problem"] for p in found] == [""] * len(found)
        if found:
            self.call("verify", "--structure", "--", self.vm.name)

    def assert_restores(self, point: str) -> None:
        """The data of a point is right: by our own verify, by a restore, and by QEMU alone."""
        self.call("verify", "--", self.vm.name, point)
        target = self.folder / "restored, here"
        self.call("restore", "--to", str(target), "--", self.vm.name, point)
        chain, seq = point.split("/")
        (directory,) = self.store.glob(f"*/{chain}/{seq}-*")
        for disk, raw in self.references[point].items():
            for image in (target / f"{disk}.qcow2", directory / f"{disk}.qcow2"):
                run("qemu-img", "compare", "-U", named(image), named(raw, "raw"))
        shutil.rmtree(target)

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

    def assert_tidy(self) -> None:
        """Nothing is left of any attempt: in libvirt, in QEMU, beside the disks, in the store."""
        assert self.host.call("job", self.vm.name) == 0
        assert self.host.call("checkpoints", self.vm.name) == []
        points = sorted(self.points(), key=lambda p: str(p["manifest"]["taken"]))
        live = [p["manifest"] for p in points if p["chain_state"] == "live"]
        kept = {m["checkpoint"]["name"] for m in live[-2:]}
        assert self.bitmaps() == {target: kept for target in self.vm.disks}
        images = {path.name for path in self.vm.paths.values()}
        assert {path.name for path in self.disks.iterdir()} == images
        assert not self.runtime.exists() or list(self.runtime.iterdir()) == []
        self._assert_store_tidy(points)

    def _assert_store_tidy(self, points: Sequence[Json]) -> None:
        wanted = {"store.json", "store.lock"}
        for (directory,) in (list(self.store.glob(f"*/{p['point']}-*")) for p in points):
            place = directory.relative_to(self.store)
            manifest = next(p for p in points if directory.match(f"{p['point']}-*"))["manifest"]
            names = ["point.json"]
            names += [d[k] for d in manifest["disks"] for k in ("file", "index")]
            names += [f["name"] for f in manifest["files"]]
            wanted |= {str(place / name) for name in names}
            wanted |= {str(place), str(place.parent), str(place.parent.parent)}
            wanted |= {str(place.parent / "chain.json"), str(place.parent.parent / "vm.json")}
        assert {str(p.relative_to(self.store)) for p in self.store.rglob("*")} == wanted

    def close(self) -> None:
        """End the VM and remove everything."""
        self.vm.kill()
        self.vm.remove()
        shutil.rmtree(self.runtime, ignore_errors=True)
        shutil.rmtree(self.folder)


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
