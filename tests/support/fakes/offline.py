"""Images of a FakeHypervisor's VMs that are off: ``ports.OfflineDisks``, ``OfflineBitmaps``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.fakes.disk import FakeBitmap, FakeDisk, FakeLayer
from tests.support.fakes.exports import FakeDiskReader
from tests.support.fakes.faults import Faults, faulty
from tests.support.fakes.hypervisor import FakeExport, FakeHypervisor
from vm_babysitter.domain.errors import Busy, ImageRefused, ImageUnreadable
from vm_babysitter.domain.offline import Stamp
from vm_babysitter.domain.vm import QEMU_RUNS, Bitmap, Disk, DiskState, Layer
from vm_babysitter.ports import OfflineDisk


class FakeOfflineDisks(Faults):
    """Implements ``ports.OfflineDisks``."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        super().__init__()
        self.written: set[str] = set()
        """Paths that some QEMU of nobody's VM has open for writing."""
        self.locks_show = True
        """Whether it shows who writes: behind some file systems it does not."""
        self.readers: list[FakeDiskReader] = []
        self._hypervisor = hypervisor

    @faulty
    def look(self, disk: Disk) -> OfflineDisk:
        found, _running = _find(self._hypervisor, disk.path)
        layers = tuple(
            Layer(
                layer.path,
                tuple(
                    Bitmap(name, b.recording, b.inconsistent)
                    for name, b in layer.bitmaps.items()
                    if b.stored
                ),
            )
            for layer in found.layers
        )
        state = DiskState(found.target, found.identity, layers, found.internal_snapshots)
        images = tuple((Path(layer.path), found.format) for layer in found.layers)
        return OfflineDisk(state, images, self.stamps([layer.path for layer in layers]))

    @faulty
    def stamps(self, paths: Sequence[str]) -> tuple[Stamp, ...]:
        return tuple(self._stamp(path) for path in paths)

    @faulty
    def writer(self, disk: OfflineDisk) -> str:
        for path, _format in disk.images:
            _found, running = _find(self._hypervisor, str(path))
            if self.locks_show and (running or str(path) in self.written):
                return str(path)
        return ""

    @contextmanager
    def open(self, disk: OfflineDisk, bitmap: str | None) -> Iterator[FakeDiskReader]:
        self.calls.append("open")
        if "open" in self.fail:
            raise self.fail["open"]
        found, _running = _find(self._hypervisor, str(disk.images[0][0]))
        changed = None
        if bitmap is not None:
            assert len(found.layers) == 1, "the bitmaps of several layers are not merged"
            changed = frozenset(found.layers[0].bitmaps[bitmap].dirty)
        reader = FakeDiskReader(FakeExport(bytes(found.content), frozenset(found.data), changed))
        reader.fail.update(self.fail)
        self.readers.append(reader)
        yield reader

    def _stamp(self, path: str) -> Stamp:
        disk, _running = _find(self._hypervisor, path)
        if disk.unreadable:
            raise ImageUnreadable(path, disk.unreadable)
        inode = int(disk.identity.removeprefix("inode:"))
        return Stamp(path, 1, inode, disk.size, disk.version, disk.version)


class FakeOfflineBitmaps(Faults):
    """Implements ``ports.OfflineBitmaps``."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        super().__init__()
        self._hypervisor = hypervisor

    @faulty
    def add(self, path: Path, name: str) -> None:
        disk, layer, running = self._look(path)
        if not disk.tracks:
            raise ImageRefused(str(path), "only a qcow2 of version 3 can hold bitmaps")
        if name in layer.bitmaps:
            raise ImageRefused(str(path), f"it has a bitmap {name!r} already")
        _check_off(path, running=running)
        layer.bitmaps[name] = FakeBitmap(stored=True)
        disk.version += 1

    @faulty
    def remove(self, path: Path, name: str) -> None:
        disk, layer, running = self._look(path)
        if name in layer.bitmaps:
            _check_off(path, running=running)
            del layer.bitmaps[name]
            disk.version += 1

    def _look(self, path: Path) -> tuple[FakeDisk, FakeLayer, bool]:
        disk, running = _find(self._hypervisor, str(path))
        layer = next(layer for layer in disk.layers if layer.path == str(path))
        return disk, layer, running


def _check_off(path: Path, *, running: bool) -> None:
    if running:
        raise Busy(f"The disk image {str(path)!r}", "a VM or another program of QEMU writes to it")


def _find(hypervisor: FakeHypervisor, path: str) -> tuple[FakeDisk, bool]:
    """Return the disk with this image, and whether a VM that runs has it open."""
    for vm in hypervisor.machines.values():
        for disk in vm.disks.values():
            if any(layer.path == path for layer in disk.layers):
                return disk, vm.state in QEMU_RUNS
    raise ImageUnreadable(path, "No such file or directory")
