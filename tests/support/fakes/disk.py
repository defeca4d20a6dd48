"""A disk in memory: content, which clusters hold data, layers and dirty bitmaps."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vm_babysitter.domain.blocks import Flagged
from vm_babysitter.domain.vm import Bitmap, Disk, DiskKind, DiskState, Layer

MIB = 1 << 20
CLUSTER = 65536
"""Bytes: the grain of allocation and of bitmaps."""


@dataclass
class FakeBitmap:
    """A persistent dirty bitmap in one layer."""

    recording: bool = True
    inconsistent: bool = False
    stored: bool = False
    """Whether the image file has it: QEMU writes it when it ends in good order."""
    dirty: set[int] = field(default_factory=set)
    """Numbers of clusters."""


@dataclass
class FakeLayer:
    """One image file."""

    path: str
    bitmaps: dict[str, FakeBitmap] = field(default_factory=dict)


@dataclass
class FakeDisk:
    """A disk of a FakeVm, qcow2 unless told otherwise."""

    target: str = "vda"
    size: int = MIB
    path: str = ""
    """By default a path made from the VM's name and the target."""
    format: str = "qcow2"
    compat: str = "1.1"
    identity: str = "inode:1"
    internal_snapshots: int = 0
    unreadable: str = ""
    version: int = 1
    """Of the image: another one after every write to it."""
    encrypted: bool = False

    def __post_init__(self) -> None:
        self.content = bytearray(self.size)
        self.data: set[int] = set()
        self.layers = [FakeLayer(self.path)]

    @property
    def tracks(self) -> bool:
        """Whether the image can hold bitmaps."""
        return self.format == "qcow2" and self.compat != "0.10"

    def write(self, offset: int, data: bytes) -> None:
        """Write as the guest does."""
        if offset < 0 or offset + len(data) > self.size:
            raise ValueError("a write outside of the disk")
        self.content[offset : offset + len(data)] = data
        self.version += 1
        self.data |= self._mark(offset, len(data))

    def zero(self, offset: int, length: int) -> None:
        """Discard a range: whole clusters of it hold no data any more."""
        self.write(offset, bytes(length))
        first, end = -(-offset // CLUSTER), (offset + length) // CLUSTER
        if offset + length == self.size:
            end = -(-self.size // CLUSTER)
        self.data -= set(range(first, end))

    def write_untracked(self, offset: int, data: bytes) -> None:
        """Write so that no bitmap knows: what a wrong bitmap looks like."""
        saved = [(b, set(b.dirty)) for layer in self.layers for b in layer.bitmaps.values()]
        self.write(offset, data)
        for bitmap, dirty in saved:
            bitmap.dirty = dirty

    def resize(self, size: int) -> None:
        """Grow or shrink. QEMU counts what is new as unchanged."""
        self.content = self.content[:size].ljust(size, b"\0")
        self.version += 1
        self.size = size
        self.data = {cluster for cluster in self.data if cluster * CLUSTER < size}

    def snapshot(self, path: str) -> None:
        """Put a new layer on top, which goes on recording every bitmap, as libvirt has it."""
        recording = {n: FakeBitmap() for n, b in self.layers[0].bitmaps.items() if b.recording}
        self.store_bitmaps()  # the image beneath is opened anew, read-only
        self.layers.insert(0, FakeLayer(path, recording))
        self.path, self.identity = path, f"inode:{1000 + len(self.layers)}"

    def store_bitmaps(self) -> None:
        """Do to the bitmaps what an orderly end of QEMU does."""
        for layer in self.layers:
            for bitmap in layer.bitmaps.values():
                bitmap.stored = True
                self.version += 1

    def break_bitmaps(self) -> None:
        """Do to the bitmaps what a hard end of QEMU does: those not stored yet are lost."""
        for layer in self.layers:
            layer.bitmaps = {name: b for name, b in layer.bitmaps.items() if b.stored}
        for bitmap in self.layers[0].bitmaps.values():
            bitmap.inconsistent, bitmap.recording = True, False

    def has_valid(self, name: str) -> bool:
        """Whether libvirt would find the bitmap sound: no gap from the top down, all healthy."""
        chain = [layer.bitmaps.get(name) for layer in self.layers]
        length = next((i for i, bitmap in enumerate(chain) if bitmap is None), len(chain))
        if not length or any(chain[length:]):
            return False
        return not any(b is None or b.inconsistent or not b.recording for b in chain[:length])

    def changed_since(self, name: str) -> frozenset[int]:
        """Return the clusters that the bitmaps of this name have marked, in all layers."""
        bitmaps = [layer.bitmaps[name] for layer in self.layers if name in layer.bitmaps]
        return frozenset().union(*(bitmap.dirty for bitmap in bitmaps))

    def describe(self) -> Disk:
        """Return it as the port tells it."""
        return Disk(
            target=self.target,
            kind=DiskKind.DISK,
            source_type="file",
            source=self.path,
            path=self.path,
            declared_format=self.format,
            real_format="" if self.unreadable else self.format,
            virtual_size=0 if self.unreadable else self.size,
            allocated=None if self.unreadable or self.layers[1:] else len(self.data) * CLUSTER,
            compat=self.compat if self.format == "qcow2" and not self.unreadable else "",
            unreadable=self.unreadable,
            encrypted=self.encrypted,
        )

    def state(self) -> DiskState:
        """Return what a running QEMU says of it."""
        layers = tuple(
            Layer(
                layer.path,
                tuple(
                    Bitmap(n, b.recording, b.inconsistent, len(b.dirty) * CLUSTER)
                    for n, b in layer.bitmaps.items()
                ),
            )
            for layer in self.layers
        )
        return DiskState(self.target, self.identity, layers, self.internal_snapshots)

    def _mark(self, offset: int, length: int) -> set[int]:
        touched = set(range(offset // CLUSTER, -(-(offset + length) // CLUSTER)))
        for bitmap in self.layers[0].bitmaps.values():
            if bitmap.recording:
                bitmap.dirty |= touched
        return touched


def flagged_map(size: int, flagged: set[int] | frozenset[int]) -> Iterator[Flagged]:
    """Stream a map in which these clusters are flagged; covers 0 to ``size``."""
    start, clusters = 0, -(-size // CLUSTER)
    for cluster in range(1, clusters + 1):
        flag = start in flagged
        if cluster == clusters or (cluster in flagged) != flag:
            yield Flagged(start * CLUSTER, min(cluster * CLUSTER, size), flag)
            start = cluster
