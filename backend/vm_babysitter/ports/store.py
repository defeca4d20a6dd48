"""The backup folder, and a restore point while it is being made."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from vm_babysitter.domain.chain import Attempt, Chain
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.oddity import Oddity
from vm_babysitter.domain.offline import Current
from vm_babysitter.domain.point import Point, PointDisk, SavedFile
from vm_babysitter.domain.presence import Seen
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.vm import Vm

Passed = Callable[[int], None]
"""Is told how many bytes more have been read."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of a restore point, complete and on stable storage."""

    size: int
    """Bytes."""
    digest: str
    """As FORMAT.md defines it, in lower-case hex."""
    compression: str = ""
    """``zstd`` or ``zlib`` for an image that is compressed, else empty."""


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
class FileCheck:
    """What comparing a file with its digest has come to."""

    wrong: str
    """In words; empty if it is what was written."""
    evidence: bool
    """Whether that proves the file to be damaged; else it may only be out of reach."""


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
        """Be the only one that changes this store, on this host and of all hosts.

        All that changes it fails with StoreTaken once another host has taken it over, but for
        the removal of what was begun here.

        Raises:
            Busy, StoreTaken.
        """

    def room(self) -> Room:
        """Return the file system it lies on."""

    def vms(self) -> tuple[StoredVm, ...]:
        """Return the VMs with backups here."""

    def vm(self, uuid: str) -> StoredVm | None:
        """Return one of them; what fails with the folders of others does not matter then."""

    def chains(self, vm_uuid: str) -> tuple[Chain, ...]:
        """Return the chains of a VM, the oldest first, after a look at every file's size."""

    def oddities(self, vm_uuid: str | None = None) -> tuple[Oddity, ...]:
        """Return what is not as it was left, of one VM or in the folder itself.

        Nothing is read from such things but who they are, and nothing is written to them.
        """

    def put_back(self, vm_uuid: str, chain: Chain) -> None:
        """Give the renamed folders of a chain's points their names back. Raises StoreFailed."""

    def new_chain(self, vm: Vm, chain_id: str, started: datetime) -> Chain:
        """Begin a chain without points."""

    def archive(self, vm_uuid: str, chain: Chain, why: str) -> None:
        """Mark a chain as closed. Harmless if it is."""

    def note_current(self, vm_uuid: str, chain: Chain, current: Current) -> None:
        """Note until when the newest point of a chain is what the VM has."""

    def seen(self, vm_uuid: str) -> Seen | None:
        """Return how the VM was found at its last backup; None where nothing tells."""

    def note_seen(self, vm_uuid: str, seen: Seen) -> None:
        """Note how a VM with backups here was found; nothing is written where that is known."""

    def begin(self, chain: Chain, attempt: Attempt) -> PointDraft:
        """Put down what the attempt is going to create, then make the point's directory."""

    def sweep(self, attempt: Attempt, *, keep_mark: bool = False) -> None:
        """End an attempt: a point that is not committed is removed, then the attempt's mark."""

    def remove_points(self, vm_uuid: str, chain: Chain, seqs: Sequence[int]) -> None:
        """Remove points, for good, but no file of others that lies among theirs.

        Raises:
            InvalidInput: one is not there, or another point builds on it; nothing is removed.
            StoreFailed: ``finish_removals`` goes on.
        """

    def finish_removals(self, vm_uuid: str) -> None:
        """Go on where a removal was interrupted. Raises StoreFailed."""

    def remove_empty_chains(self, vm_uuid: str) -> None:
        """Remove chains that never had a point nor anything else in them, and torn marks."""

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

    def check_file(
        self, path: Path, digest: str, *, image: bool, passed: Passed = lambda _: None
    ) -> FileCheck:
        """Compare a file with its digest by reading it.

        ``image`` tells disk images, whose digest is defined otherwise, from other files.
        ``passed`` is told how many bytes more of an image were read; what it raises ends it.
        """

    def note_damage(self, vm_uuid: str, chain: Chain, point: Point, note: DamageNote) -> None:
        """Note what is wrong with a point; a note without flaws removes the one there is.

        Needs no lock.

        Raises:
            StoreFailed: for instance because the store can only be read.
        """
