"""Backups of a VM in memory into a real backup folder."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.exports import FakeDiskExports
from tests.support.fakes.guard import FakeFreezeGuard
from tests.support.fakes.hypervisor import FakeHypervisor, FakeVm
from tests.support.fakes.observer import RecordingObserver
from tests.support.fakes.offline import FakeOfflineBitmaps, FakeOfflineDisks
from tests.support.fakes.places import FakeScratchPlaces
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.qemu.image_headers import FileImageHeaders
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.side_files import LocalSideFiles
from vm_babysitter.adapters.store.draft import NewImage
from vm_babysitter.adapters.store.local import LocalStore, open_store
from vm_babysitter.adapters.this_host import this_host
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.backup import BackedUp, Backup
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.pace import Pace
from vm_babysitter.engine.reconcile import Reconciler
from vm_babysitter.engine.tools import ReadTools, Tools
from vm_babysitter.ports import Belongings, ImageTool, SideFiles, Store, ThisHost

T = TypeVar("T")


class Killed(BaseException):
    """Our process was killed: nothing of it goes on."""


class _Mortal:
    """Passes calls on to somebody outside of our process, until that is killed."""

    def __init__(self, target: object, is_dead: Callable[[], bool]) -> None:
        self._target = target
        self._is_dead = is_dead

    def __getattr__(self, name: str) -> Any:
        if self._is_dead():
            raise Killed
        return getattr(self._target, name)


@dataclass
class EngineWorld:
    """One VM, its backup folder, and all that a backup works with."""

    path: Path
    name: str = "it's a VM"
    new_image: NewImage = Qcow2Writer
    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    guard: FakeFreezeGuard = field(default_factory=FakeFreezeGuard)
    clock: FakeClock = field(default_factory=FakeClock)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    cancel: Cancel = field(default_factory=Cancel)
    reread_runs: int = 0
    """Off, so that what is read is what has changed."""
    side_files: SideFiles = field(default_factory=LocalSideFiles)
    compress: bool = False
    host: ThisHost = field(default_factory=this_host)

    def __post_init__(self) -> None:
        self.exports = FakeDiskExports(self.hypervisor)
        self.offline = FakeOfflineDisks(self.hypervisor)
        self.offline_bitmaps = FakeOfflineBitmaps(self.hypervisor)
        self.places = FakeScratchPlaces(self.hypervisor.files)
        self.vm: FakeVm = self.hypervisor.add(self.name, FakeDisk(size=5 * 65536 + 512))
        self.store: Store = self.open()
        self._dead = False

    @property
    def disk(self) -> FakeDisk:
        """The VM's first disk."""
        return next(iter(self.vm.disks.values()))

    def open(self) -> LocalStore:
        """Open the backup folder anew, as another process would."""
        return open_store(
            self.path,
            self.clock,
            self.new_image,
            digest_file,
            create=True,
            allow_ram=True,
            host=self.host,
        )

    def tools(self) -> Tools:
        """Return what a backup works with."""
        return Tools(
            hypervisor=self._mortal(self.hypervisor),
            exports=self._mortal(self.exports),
            offline=self._mortal(self.offline),
            bitmaps=self._mortal(self.offline_bitmaps),
            places=self._mortal(self.places),
            side_files=self._mortal(self.side_files),
            headers=FileImageHeaders(),
            guard=self._mortal(self.guard),
            clock=self.clock,
            fingerprint=fingerprint,
            observer=self.observer,
            cancel=self.cancel,
            pace=Pace(None, self.cancel),
            priority=nullcontext,
            versions={"vm-babysitter": "test"},
            compress=self.compress,
            host=self.host,
        )

    def read_tools(self, images: ImageTool) -> ReadTools:
        """Return what verifying and restoring work with."""
        pace = Pace(None, self.cancel)
        return ReadTools(images, fingerprint, self.observer, self.cancel, pace)

    def backup(
        self,
        *,
        force_full: bool = False,
        track_snapshots: bool = False,
        longest: float | None = None,
    ) -> BackedUp:
        """Back the VM up a second later."""
        self.clock.advance(1)
        work = Backup(self.tools(), self._mortal(self.store))
        return work.run(
            self.name,
            force_full=force_full,
            reread_runs=self.reread_runs,
            track_snapshots=track_snapshots,
            longest=longest,
        )

    def backup_killed_at(self, step: str, *, force_full: bool = False) -> None:
        """Begin a backup in a process that is killed with ``kill -9`` when a step begins."""
        self.killed_at(step, lambda: self.backup(force_full=force_full))

    def killed_at(self, step: str, work: Callable[[], object]) -> None:
        """Do something in a process that is killed with ``kill -9`` when a step begins."""

        def die() -> None:
            self._dead = True
            raise Killed

        self.observer.at[step] = die
        with pytest.raises(Killed):
            work()
        del self.observer.at[step]
        self._dead = False
        self.store = self.open()

    def reconciler(self) -> Reconciler:
        """Return what cleans up."""
        return Reconciler(self.tools(), self.store)

    def chains(self) -> tuple[Chain, ...]:
        """Return the chains of the VM as the folder has them."""
        return self.open().chains(self.vm.uuid)

    def points(self) -> list[Point]:
        """Return the points of all chains."""
        return [stored.point for chain in self.chains() for stored in chain.points]

    def restored(self, chain: Chain, seq: int, target: str = "vda") -> bytes:
        """Read what a point holds of a disk, image by image."""
        layers = chain.layers(seq, target)
        uuid = self.vm.uuid
        return read_layers([self.store.image_path(uuid, chain, p, d) for p, d in layers])

    def bitmaps(self) -> set[str]:
        """Return the names of all bitmaps in all images of the VM."""
        layers = [layer for disk in self.vm.disks.values() for layer in disk.layers]
        return {name for layer in layers for name in layer.bitmaps}

    def leftovers(self) -> list[str]:
        """Return all that a run leaves behind only if it was interrupted."""
        chains = self.chains()
        kept = {name for c in chains for s in c.points for name in bitmaps_of(s.point)}
        found = [f"bitmap {name}" for name in self.bitmaps() - kept if name.startswith("vmb-")]
        found += [f"checkpoint {name}" for name in self.vm.checkpoints if name.startswith("vmb-")]
        found += [f"attempt {a.directory}" for chain in chains for a in chain.attempts]
        found += [f"unreadable {u.directory}" for chain in chains for u in chain.unreadable]
        found += [f"empty chain {chain.directory}" for chain in chains if not chain.points]
        found += [f"file {name}" for name in self.hypervisor.files]
        found += [f"temporary {path}" for path in self.path.rglob("*.tmp")]
        found += ["job"] if self.vm.job is not None else []
        found += ["frozen"] if self.vm.frozen or self.guard.left else []
        return found

    def check_points(self) -> None:
        """Make sure that all points are whole by a look at them."""
        for chain in self.chains():
            assert chain.broken == {}

    def _mortal(self, target: T) -> T:
        return cast(T, _Mortal(target, lambda: self._dead))


def bitmaps_of(*points: Point) -> set[str]:
    """Return the names of the bitmaps that these points' disks got."""
    checkpoints = [p.checkpoint for p in points if p.checkpoint]
    return {c.bitmap(target) for c in checkpoints for target in c.disks}


FOREIGN = "virtnbdbackup.0"


def lived_in(path: Path) -> EngineWorld:
    """Return a VM whose disk has content, a foreign bitmap and a foreign checkpoint.

    It has an NVRAM and a TPM.
    """
    folder = path / "it's a {store}"
    folder.mkdir()
    world = EngineWorld(folder)
    world.disk.write(0, b"a" * 70000)
    world.disk.write(2 * 65536, b"b" * 65536)
    world.disk.write(5 * 65536, b"c" * 512)
    world.disk.layers[0].bitmaps[FOREIGN] = FakeBitmap()
    world.vm.checkpoints[FOREIGN] = ("vda",)
    give_belongings(world, path / "its 'NVRAM', ü")
    return world


def give_belongings(world: EngineWorld, folder: Path) -> None:
    """Have the VM have an NVRAM and the state of a TPM, in a new folder, and start by itself."""
    (folder / "tpm2").mkdir(parents=True)
    (folder / "my, vars: x.fd").write_bytes(b"variables")
    (folder / "tpm2" / ".lock").touch()
    (folder / "tpm2" / "tpm2-00.permall").write_bytes(b"sealed")
    nvram, tpm = folder / "my, vars: x.fd", folder / "tpm2"
    world.vm.belongings = Belongings(nvram=str(nvram), tpm=str(tpm), autostart=True)


def exact(world: EngineWorld, result: BackedUp) -> None:
    """Make sure that the new point holds all disks and that nothing else is left."""
    (chain,) = (c for c in world.chains() if c.directory == result.chain)
    for target, disk in world.vm.disks.items():
        assert world.restored(chain, result.point.seq, target) == bytes(disk.content)
    assert world.leftovers() == []
    assert FOREIGN in world.bitmaps()
    assert list(world.vm.checkpoints) == [FOREIGN]
    assert result.left == ""
    world.check_points()
