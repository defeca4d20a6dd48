"""The world of the chaos ring: a libvirt, VMs, a backup folder, and what is known of them."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

from tests.chaos.machine import KIB, MIB, Machine
from tests.chaos.power import LazyDisk
from tests.chaos.program import Shifted
from tests.chaos.words import Broken
from tests.support.faulty import Fault
from tests.support.forked import Command, start
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import DiskSpec
from tests.support.world import Silent, environment
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.point import Point, checkpoint_prefix
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import Observer, StoredVm, ThisHost

SECONDS = 90
STORE_SIZE, DISKS_SIZE = 1024 * MIB, 1024 * MIB
Key = tuple[str, str, int, str]
"""A point: UUID of its VM, directory of its chain, number, nonce."""
Disks = dict[str, Path]
"""Copies of what disks held, by target."""


@dataclass(eq=False)
class Reference:
    """A point that was committed, and what it must restore to."""

    key: Key
    disks: Disks
    directory: Path
    parent: "Reference | None"
    made: str
    """How it came about, in words."""

    @property
    def name(self) -> str:
        return f"{self.key[1]}/{self.key[2]:06d}"

    @property
    def lineage(self) -> "Iterator[Reference]":
        """The point and all it builds on."""
        point: Reference | None = self
        while point is not None:
            yield point
            point = point.parent


@dataclass
class House:
    """Everything; a context manager that removes all of it."""

    seed: int
    stats: Counter[str] = field(default_factory=Counter)
    shift: timedelta = timedelta()
    """How wrong our clock is."""

    def __post_init__(self) -> None:
        chance = Random(self.seed)
        self.root = Path(tempfile.mkdtemp(prefix="vmb", dir="/tmp"))
        self.folder = self.root / "chaos, with: \"x\" 'y'"
        self.folder.mkdir()
        self.spares = self._make("spares")
        self._copies = self._make("references")
        self._count = self._boots = 0
        self.backups = LazyDisk(self.root / "backups.ext4", self.folder / "backups", STORE_SIZE)
        self.disks = LazyDisk(self.root / "disks.ext4", self.folder / "disks", DISKS_SIZE)
        self.store = self.backups.place / "store"
        self.store.mkdir()
        self.host = PrivateLibvirtd(self.root)
        self.runtime = self.root / "our runtime"
        self.host.start()
        self.machines = [
            Machine(self.host, self.disks.place / name, name, _some_disks(chance))
            for name in ("one & only", "- two")[: 1 + (chance.random() < 0.3)]
        ]
        self.references: dict[Key, Reference] = {}
        self.gone: set[Key] = set()
        """Points whose folder the story took away."""
        self.damaged: dict[Path, Path] = {}
        """Files of points that are not what was written, and copies of what they were."""
        self.renamed: dict[Path, Path] = {}
        """Folders of points that got another name, and that name."""
        self.foreign: set[Path] = set()
        """What others put into the store."""
        self.sync()

    def _make(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    # -- the world ----------------------------------------------------------------------

    def sync(self) -> None:
        """Have all that was done until now survive a power cut."""
        self.backups.sync()
        self.disks.sync()

    def power_cut(self) -> None:
        """Everything dies; what was in RAM is gone."""
        self.host.power_cut()
        self._forget_ram()
        self.disks.cut()
        self.backups.cut()
        for machine in self.machines:
            for target in machine.vm.disks:
                machine.measure(target)  # a resize may be lost with it
        self.host.start()

    def reboot(self) -> None:
        """The host shuts down and starts again; QEMUs that still run end in good order."""
        self.host.shut_down()
        self._forget_ram()
        for disk in (self.disks, self.backups):
            disk.unmount()
            disk.mount()
        self.host.start()

    def _forget_ram(self) -> None:
        self._boots += 1
        for machine in self.machines:
            machine.power = "shutoff"
        for name in ("checkpoint", "snapshot"):
            shutil.rmtree(self.host.root / "lib" / "qemu" / name, ignore_errors=True)
        shutil.rmtree(self.runtime, ignore_errors=True)

    # -- our program --------------------------------------------------------------------

    @property
    def this_host(self) -> ThisHost:
        """The machine that our program takes for its own."""
        return ThisHost("c4a05" * 6, "house of chaos", f"boot {self._boots}")

    def app(self, observer: Observer | None = None, cancel: Cancel | None = None) -> Shifted:
        """Our engine in this process."""
        place = Place(self.host.uri, self.store, runtime=self.runtime, host=self.this_host)
        return Shifted(place, observer or Silent(), cancel or Cancel(), self.shift)

    def start(self, *arguments: str, faults: Sequence[Fault]) -> Command:
        """Start our command."""
        here = self.this_host
        faults = [*faults, Fault("be", "host", f"{here.id}|{here.name}|{here.boot_id}")]
        spec = json.dumps([list(asdict(fault).values()) for fault in faults])
        shift = str(self.shift.total_seconds())
        place = ["--standalone", "--uri", self.host.uri, "--store", str(self.store)]
        return start(
            "tests.chaos.program",
            [str(self.runtime), shift, spec, *place, *arguments],
            environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )

    # -- what is known ------------------------------------------------------------------

    def copies(self, machine: Machine) -> Disks:
        """Copy what the disks of a VM hold now."""
        self._count += 1
        folder = self._copies / f"{self._count:04d}"
        folder.mkdir()
        return {t: machine.vm.reference(t, folder / f"{t}.raw") for t in machine.vm.disks}

    def stored(self) -> dict[Key, tuple[Point, str, Path]]:
        """All committed points: manifest, why it is broken (empty if it is not), directory."""
        if not any(self.store.iterdir()):
            return {}
        try:
            found = self._chains()
        except BabysitterError as error:
            if self.references or "holds no backups" not in str(error):
                raise Broken("listing", str(error)) from error
            return {}
        return {
            (vm.uuid, chain.directory, s.point.seq, s.point.nonce): (
                s.point,
                chain.broken.get(s.point.seq, ""),
                self.store / vm.directory / chain.directory / s.point.directory,
            )
            for vm, chain in found
            for s in chain.points
        }

    def series(self) -> set[str]:
        """What the names of bitmaps of the series in the store begin with."""
        return {checkpoint_prefix(chain.id) for _, chain in self._chains()}

    def jobs_of_others(self, machine: Machine) -> set[str]:
        """Folders of jobs of attempts at other VMs, which their next backups undo."""
        others = [chain for vm, chain in self._chains() if vm.uuid != machine.uuid]
        return {Path(a.socket).parent.name for chain in others for a in chain.attempts if a.socket}

    def _chains(self) -> list[tuple[StoredVm, Chain]]:
        store = self.app().store()
        return [(vm, chain) for vm in store.vms() for chain in store.chains(vm.uuid)]

    def learn(self, machine: Machine, copies: Disks, how: str) -> list[Reference]:
        """Note points that appeared: a backup of this VM, begun at these copies, made them."""
        stored = self.stored()
        new = sorted(stored.keys() - self.references.keys() - self.gone, key=lambda key: key[2])
        for key in new:
            point, broken, directory = stored[key]
            if key[0] != machine.uuid or len(new) > 1 or broken:
                raise Broken("new point", f"{how} left {new}: {broken}")
            if set(copies) != {disk.target for disk in point.disks}:
                raise Broken("disks", f"{how} made {key} of {[d.target for d in point.disks]}")
            parent = self._parent(key, point)
            relative = directory.relative_to(self.store)
            self.references[key] = Reference(key, copies, relative, parent, how)
            self.stats["points made"] += 1
        return [self.references[key] for key in new]

    def _parent(self, key: Key, point: Point) -> Reference | None:
        if point.parent is None:
            return None
        for reference in self.references.values():
            if reference.key[:3] == (*key[:2], point.parent) and reference.key not in self.gone:
                return reference
        raise Broken("parent", f"{key} builds on {point.parent}, which nobody knows")

    def touched(self, reference: Reference) -> bool:
        """Whether a point, or what it builds on, is not as we left it."""
        return any(
            point.key in self.gone
            or self._is_renamed(point.directory)
            or any(p.is_relative_to(point.directory) for p in self.damaged)
            for point in reference.lineage
        )

    def _is_renamed(self, directory: Path) -> bool:
        """Whether the folder of a point has another name still; it may have got its own back."""
        new = self.renamed.get(directory)
        return new is not None and (self.store / new).is_dir()

    def present(self) -> list[Reference]:
        """The points whose folders were not taken away."""
        return [r for key, r in self.references.items() if key not in self.gone]

    # -- the end ------------------------------------------------------------------------

    def __enter__(self) -> "House":
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                machine.vm.kill()
        self.host.close()
        self.backups.close()
        self.disks.close()
        shutil.rmtree(self.root)


def _some_disks(chance: Random) -> tuple[DiskSpec, ...]:
    """Two or three disks, small, of all kinds."""
    disks = (
        DiskSpec("vda", size=32 * MIB),
        DiskSpec("vdb", size=16 * MIB + 512, cluster_size=4 * KIB),
        DiskSpec("vdc", size=8 * MIB, format="raw"),
    )
    return disks[: chance.choice((2, 3, 3))]
