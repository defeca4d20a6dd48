"""What the engine needs of the world, as protocols. Adapters implement them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.blocks import Flagged, Piece
from vm_babysitter.domain.chain import (
    Attempt,
    Chain,
    Checkpoint,
    Point,
    PointDisk,
    SavedFile,
)
from vm_babysitter.domain.vm import DiskState, Vm

P = TypeVar("P")

Fingerprint = Callable[[memoryview], bytes]
"""Returns the 16-byte fingerprint of a block's content."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What ``qemu-img info`` says of one image file, its backing files left aside."""

    path: Path
    format: str
    virtual_size: int
    """Bytes."""
    backing_file: str | None
    """As written in the image: relative or absolute."""
    backing_format: str | None
    cluster_size: int | None
    compat: str = ""
    """qcow2's version (``0.10``, ``1.1``); empty for other formats."""
    bitmaps: tuple[tuple[str, frozenset[str]], ...] = ()
    """Name and flags (``in-use``, ``auto``) of each persistent bitmap."""


class DiskReader(Protocol):
    """An open disk, read through several connections at once. Safe for threads."""

    @property
    def size(self) -> int:
        """Bytes."""

    def zero_map(self) -> Iterator[Flagged]:
        """Stream which ranges are known to read as zeros; covers 0 to ``size`` in order."""

    def dirty_map(self) -> Iterator[Flagged]:
        """Stream which ranges the bitmap has marked; only where a bitmap was asked for."""

    def read(
        self, pieces: Iterable[tuple[Piece, P]], consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        """Read all pieces, many at a time, in any order of completion.

        ``pieces`` is pulled lazily, by one thread at a time. ``consume`` is called from
        several threads at once; the memory it is given is reused after it returns.
        The first error of any thread stops all and is raised here.

        Raises:
            TransferFailed, ConnectionLost, ProtocolViolation, and whatever ``pieces`` or
            ``consume`` raise.
        """

    def abort(self) -> None:
        """End a ``read`` under way, even a stalled one; it raises ConnectionLost.

        May be called from a signal handler. The reader is of no use afterwards.
        """


class DiskWriter(Protocol):
    """An open disk that is being written. Safe for threads."""

    @property
    def size(self) -> int:
        """Bytes."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data``. The memory may be reused on return; an error may come later.

        Raises:
            TransferFailed, ConnectionLost, ProtocolViolation: of this or an earlier write.
        """

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, with a hole where the image can have one."""

    def flush(self) -> None:
        """Wait for all writes and have them on stable storage; raise what failed."""


class ImageTool(Protocol):
    """QEMU's tools for image files."""

    def info(self, path: Path) -> ImageInfo:
        """Describe one image, shared with whoever has it open. Raises ImageUnreadable."""

    def create(self, path: Path, format: str, size: int, cluster_size: int | None = None) -> None:
        """Create an empty image of ``size`` bytes; refuses to overwrite."""

    def check(self, path: Path) -> str:
        """Check the metadata of one image (``qemu-img check``, shared).

        Returns what is wrong with it in QEMU's words, empty if nothing is.
        """

    def open_for_reading(
        self, layers: Sequence[tuple[Path, str]], bitmap: str | None = None
    ) -> AbstractContextManager[DiskReader]:
        """Open a chain of images, the top layer first, each with its format.

        The layers are shared (``force-share``) and never written. The chain is exactly the
        layers given: backing links inside the files are not followed. ``bitmap`` is a
        persistent bitmap of the top layer whose map ``dirty_map`` serves.
        """

    def open_for_writing(self, path: Path, format: str) -> AbstractContextManager[DiskWriter]:
        """Open one image for writing, locked against others. The end of the context flushes."""


class ImageWriter(Protocol):
    """One disk image of a restore point while it is being written.

    Blocks are appended by any thread in any order (``append``), and then mapped in ascending
    order by one thread at a time (``map_data``, ``map_zero``).
    """

    def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
        """Write the data of consecutive blocks into the file and return the place of the first.

        ``hashes`` are the fingerprints of these blocks, one each. Only the disk's last block
        may be short.
        """

    def map_data(self, block: int, place: int, count: int) -> None:
        """Say that ``count`` blocks from ``block`` lie at ``place``, as ``append`` told."""

    def map_zero(self, block: int, count: int) -> None:
        """Say that ``count`` blocks from ``block`` are zero whatever lies beneath."""

    def finish(self) -> "WrittenFile":
        """Write the metadata, fsync, close."""

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of a restore point, complete and on stable storage."""

    size: int
    """Bytes."""
    digest: str
    """As FORMAT.md defines it, in lower-case hex."""


class DiskExports(Protocol):
    """Opens the exports of a running backup job."""

    def open(
        self, socket: str, export: str, bitmap: str | None
    ) -> AbstractContextManager[DiskReader]:
        """Connect to one export; ``bitmap`` is the name of the dirty bitmap it offers."""


class JobKind(StrEnum):
    """What keeps a VM busy."""

    BACKUP = "a backup job"
    MIGRATION = "a migration, save or dump"
    BLOCK = "a block job (snapshot commit, copy or pull)"


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that libvirt has under way for a VM."""

    kind: JobKind
    detail: str
    socket: str = ""
    """The NBD socket of a backup job."""


@dataclass(frozen=True, slots=True)
class DiskRequest:
    """One disk of a backup job."""

    target: str
    scratch: str
    """Path of the scratch file, which must not exist."""
    since: str | None
    """Checkpoint whose bitmap the export offers; None for a disk read as a whole."""
    track: bool
    """Whether the new checkpoint gets a bitmap on this disk."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """A backup job over all disks named; others are left out."""

    socket: str
    checkpoint: str
    """Name of the new checkpoint; unused where no disk is tracked."""
    disks: tuple[DiskRequest, ...]


@dataclass(frozen=True, slots=True)
class Export:
    """Where one disk of a running backup job can be read."""

    target: str
    name: str
    bitmap: str | None


class Hypervisor(Protocol):
    """libvirt, as far as backups need it. VMs are named by their UUID."""

    def vms(self) -> tuple[Vm, ...]:
        """Return the persistent VMs, by name."""

    def vm(self, name: str) -> Vm:
        """Return one persistent VM by name or UUID. Raises VmNotFound."""

    def definition(self, uuid: str) -> str:
        """Return the VM's persistent definition (XML, with secrets)."""

    def disk_states(self, uuid: str) -> tuple[DiskState, ...]:
        """Return layers and bitmaps of each disk of a running VM."""

    def active_job(self, uuid: str) -> ActiveJob | None:
        """Return what keeps the VM busy, if anything does."""

    def end_backup(self, uuid: str) -> None:
        """End the running backup job and wait until it is gone; none running is fine."""

    def adopt_checkpoint(self, uuid: str, checkpoint: Checkpoint) -> bool:
        """Tell libvirt of an earlier checkpoint, validated against its bitmaps.

        Returns False if libvirt finds a bitmap missing or broken; it then knows nothing of it.
        """

    def begin_backup(self, uuid: str, request: BackupRequest) -> tuple[Export, ...]:
        """Start one atomic job over all disks, and the new checkpoint with it."""

    def forget_checkpoints(self, uuid: str, prefix: str) -> None:
        """Drop libvirt's metadata of the checkpoints of this name prefix; bitmaps stay."""

    def remove_bitmaps(self, uuid: str, name: str, targets: Sequence[str]) -> None:
        """Remove the bitmaps of one checkpoint from the disks named, all layers, running VM."""

    def agent_missing(self, uuid: str) -> str:
        """Return why no guest agent can be asked, empty if one answers."""

    def freeze(self, uuid: str) -> AgentAnswer:
        """Have the guest agent freeze the file systems, within seconds or not at all."""

    def thaw(self, uuid: str) -> AgentAnswer:
        """Have the guest agent thaw the file systems, within seconds.

        Harmless if nothing is frozen, as in a VM that is off.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of libvirt and QEMU."""


class IndexWriter(Protocol):
    """The block index of one disk of a point while it is being written."""

    def add(self, block: int, fingerprint: bytes) -> None:
        """Add an entry; blocks ascend. ZERO_HASH says that the block is zero."""

    def finish(self) -> tuple[WrittenFile, int]:
        """Have it on stable storage; return the file and the number of its entries."""

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""


class BlockIndex(Protocol):
    """What the blocks of a disk are at one point, merged from all its layers."""

    def expected(self, first: int, count: int) -> list[bytes]:
        """Return the fingerprints of ``count`` blocks from ``first``; calls must ascend.

        ZERO_HASH stands for a block that is zero.

        Raises:
            Damaged, StoreFailed.
        """

    def touched(self, first: int, count: int) -> list[int]:
        """Return which of ``count`` blocks from ``first`` any layer has an entry for.

        Ascending; calls must ascend too and not be mixed with those of ``expected``.
        """


class PointDraft(Protocol):
    """A restore point while it is being made. Nothing of it counts before ``commit``."""

    def image(self, target: str, size: int, parent: tuple[Point, PointDisk] | None) -> ImageWriter:
        """Begin the image of a disk of ``size`` bytes, on top of that in its parent point."""

    def index(self, target: str, size: int) -> IndexWriter:
        """Begin the block index of a disk."""

    def drop(self, target: str) -> None:
        """Remove image and index of a disk, finished or not, to begin them again."""

    def save(self, name: str, content: bytes) -> SavedFile:
        """Keep a file beside the disks."""

    def commit(self, point: Point) -> None:
        """Make it a restore point: from the moment this returns, it is one for good."""


@dataclass(frozen=True, slots=True)
class StoredVm:
    """A VM that the store has backups of."""

    uuid: str
    names: tuple[str, ...]
    """All names it had, the newest last."""
    directory: str


class Store(Protocol):
    """A backup folder."""

    @property
    def path(self) -> Path:
        """As the user gave it."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only one that changes this store. Raises Busy."""

    def free_bytes(self) -> int:
        """Return the free space."""

    def vms(self) -> tuple[StoredVm, ...]:
        """Return the VMs with backups here."""

    def chains(self, vm_uuid: str) -> tuple[Chain, ...]:
        """Return the chains of a VM, the oldest first, after a look at every file's size."""

    def new_chain(self, vm: Vm, chain_id: str, started: datetime) -> Chain:
        """Begin a chain without points."""

    def archive(self, vm_uuid: str, chain: Chain, why: str) -> None:
        """Mark a chain as closed. Harmless if it is."""

    def begin(self, chain: Chain, attempt: Attempt) -> PointDraft:
        """Put down what the attempt is going to create, then make the point's directory."""

    def sweep(self, attempt: Attempt, *, keep_mark: bool = False) -> None:
        """End an attempt: a point that is not committed is removed, then the attempt's mark."""

    def remove_empty_chains(self, vm_uuid: str) -> None:
        """Remove chains that never had a point nor anything else in them."""

    def image_path(self, vm_uuid: str, chain: Chain, point: Point, disk: PointDisk) -> Path:
        """Return where the image of a disk lies."""

    def file_path(self, vm_uuid: str, chain: Chain, point: Point, name: str) -> Path:
        """Return where a saved file lies."""

    def open_index(
        self, vm_uuid: str, chain: Chain, layers: Sequence[tuple[Point, PointDisk]]
    ) -> AbstractContextManager[BlockIndex]:
        """Open the index of a disk from its layers, newest first, digests checked.

        Raises:
            PointDamaged: with the sequence number of the point whose index is not whole.
        """

    def check_file(self, path: Path, digest: str, *, image: bool) -> str:
        """Compare a file with its digest by reading it; return what is wrong, empty if nothing.

        ``image`` tells disk images, whose digest is defined otherwise, from other files.
        """


class Observer(Protocol):
    """Is told how a job goes."""

    def step(self, name: str) -> None:
        """A named step begins."""

    def progress(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the present step are through. Called from threads."""

    def note(self, text: str) -> None:
        """Something that the user should know, in a sentence."""


class Clock(Protocol):
    """Time and chance."""

    def now(self) -> datetime:
        """Return the time (UTC)."""

    def new_id(self) -> str:
        """Return a new UUID."""

    def new_nonce(self) -> str:
        """Return six random hex digits."""


class FreezeWatch(Protocol):
    """A guard on duty."""

    @property
    def unfit(self) -> str:
        """Why the guest should not be frozen now; empty if it may be."""

    def thawed(self) -> None:
        """Say that nothing is frozen any more."""


class FreezeGuard(Protocol):
    """Sees to it that a frozen guest is thawed even if this process is killed."""

    def watch(self, vm_uuid: str) -> AbstractContextManager[FreezeWatch]:
        """Guard a freeze: from before it until after the thaw.

        Where the context ends without ``thawed``, the guard goes on trying to thaw.
        """

    def leftovers(self) -> tuple[str, ...]:
        """Return the UUIDs of VMs that may be frozen, left by a process or watch that is gone."""

    def forget(self, vm_uuid: str) -> None:
        """Say that such a VM was thawed."""


class ScratchPlaces(Protocol):
    """Working space beside the VM's disks, and the sockets of backup jobs."""

    def scratch_path(self, disk_path: str, nonce: str, target: str) -> str:
        """Return where the scratch file of a disk goes."""

    def probe(self, path: str) -> str:
        """Try the place with a throw-away file; return why it is unfit, empty if it is fit."""

    def socket_path(self, nonce: str) -> str:
        """Return where the NBD socket of a job goes."""

    def remove(self, path: str, nonce: str) -> None:
        """Remove a scratch file or socket that an attempt with this nonce left."""


class RestoreFiles(Protocol):
    """Files being restored. They have provisional names until all are whole."""

    def begin(self, name: str) -> Path:
        """Return the provisional path for a file that is going to be called ``name``."""

    def copy(self, source: Path, path: Path) -> None:
        """Copy a small file to a provisional path."""

    def final(self, path: Path) -> Path:
        """Return what a provisional path is going to be called."""


class RestorePlace(Protocol):
    """Where a restore puts its files."""

    def fill(self, needed: int) -> AbstractContextManager[RestoreFiles]:
        """Make the place ready for ``needed`` bytes of files.

        At the end of the context all files get their names; after an error all are removed.

        Raises:
            InvalidInput: it exists and is not empty, or cannot be made.
            NotEnoughSpace.
        """
