"""Disks that are read and written, and the tools for image files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from vm_babysitter.domain.blocks import Flagged, Piece
from vm_babysitter.domain.offline import Stamp
from vm_babysitter.domain.vm import Disk, DiskState
from vm_babysitter.ports.store import ImageWriter

P = TypeVar("P")

Fingerprint = Callable[[memoryview], bytes]
"""Returns the 16-byte fingerprint of a block's content."""


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
    """An open disk that is being written. Safe for threads.

    Requests may be carried out in any order: those that overlap need a ``flush`` in between.
    """

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


class DiskExports(Protocol):
    """Opens the exports of a running backup job."""

    def open(
        self, socket: str, export: str, bitmap: str | None
    ) -> AbstractContextManager[DiskReader]:
        """Connect to one export; ``bitmap`` is the name of the dirty bitmap it offers."""


@dataclass(frozen=True, slots=True)
class OfflineDisk:
    """A disk of a VM that is off, by what its images say."""

    state: DiskState
    images: tuple[tuple[Path, str], ...]
    """Its images from the active one down, each with the format it is used as."""
    stamps: tuple[Stamp, ...]
    """Of all files that its content comes from, the active image first; older than ``state``."""


class OfflineDisks(Protocol):
    """The disks of VMs that are off. Reading them keeps nobody from starting the VM."""

    def look(self, disk: Disk) -> OfflineDisk:
        """Read what the images of a disk say.

        Raises:
            ImageUnreadable: an image is missing, or cannot be read without the VM's QEMU.
        """

    def stamps(self, paths: Sequence[str]) -> tuple[Stamp, ...]:
        """Return the stamps of these files; opens none, which wakes no sleeping hard disk.

        Raises:
            ImageUnreadable.
        """

    def writer(self, disk: OfflineDisk) -> str:
        """Return which of the images is open for writing in some QEMU, empty if none is."""

    def open(self, disk: OfflineDisk, bitmap: str | None) -> AbstractContextManager[DiskReader]:
        """Open it for reading, shared; ``bitmap`` is one of the active image, for ``dirty_map``."""


class OfflineBitmaps(Protocol):
    """Dirty bitmaps in images of VMs that are off.

    An image that somebody has open for writing, or that cannot be reached as QEMU would, is not
    written to.
    """

    def add(self, path: Path, name: str) -> None:
        """Add a bitmap that records from now on; its name must be new to the image.

        Raises:
            ImageRefused, ImageUnreadable, Busy, NotEnoughSpace: nothing was written.
            CommandFailed, Busy: it may be there all the same, and others no longer be trusted;
                the content of the image is what it was.
        """

    def remove(self, path: Path, name: str) -> None:
        """Remove a bitmap; one that is not there is fine, and then nothing is written.

        Raises:
            The same as ``add``.
        """


class RawWriter(Protocol):
    """A raw image that is being written; what is never written reads as zero. Safe for threads."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data``. Raises StoreFailed."""

    def finish(self) -> None:
        """Have it on stable storage. Raises StoreFailed, for earlier failures too."""

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""


class OwnImages(Protocol):
    """Images that are made and read without QEMU: faster, for content that comes in one go."""

    def open_for_reading(self, layers: Sequence[Path]) -> AbstractContextManager[DiskReader]:
        """Open the images of a disk in restore points, the newest first.

        Backing links inside the files are not followed. Raises ImageUnreadable, while reading too.
        """

    def qcow2(self, path: Path, size: int) -> ImageWriter:
        """Begin a qcow2 image of ``size`` bytes; refuses to overwrite."""

    def raw(self, path: Path, size: int) -> RawWriter:
        """Begin a raw image of ``size`` bytes; refuses to overwrite."""


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
    data_file: str = ""
    """The file in which a qcow2 keeps its content, as written in the image; empty: in itself."""
    allocated: int | None = None
    """Bytes that it takes on the host; None where content may be elsewhere: in a backing file."""
    bitmaps: tuple[tuple[str, frozenset[str]], ...] = ()
    """Name and flags (``in-use``, ``auto``) of each persistent bitmap."""
    internal_snapshots: int = 0


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

    def same_content(
        self,
        left: tuple[Path, str],
        right: tuple[Path, str],
        go_on: Callable[[], None] = lambda: None,
    ) -> bool:
        """Compare two images, each with its format, by QEMU (``qemu-img compare``, shared).

        They are the same if size and all content are. ``go_on`` is called several times a
        second; what it raises ends the comparison. Raises ImageUnreadable.
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
