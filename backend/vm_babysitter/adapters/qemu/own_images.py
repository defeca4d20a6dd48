"""Images of our own making, without QEMU: implements ``ports.OwnImages``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from vm_babysitter.adapters.qemu.qcow2_reader import ChainReader
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer
from vm_babysitter.adapters.store.files import NewFile
from vm_babysitter.ports import DiskReader


class RawFile:
    """A raw image that is being written, sparse where nothing is."""

    def __init__(self, path: Path, size: int) -> None:
        """Create it with ``size`` bytes. Raises StoreFailed."""
        self._file = NewFile(path)
        self._file.extend(size)

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset`` bytes. Safe for threads. Raises StoreFailed."""
        self._file.write(offset, data)

    def finish(self) -> None:
        """Have it on stable storage. Raises StoreFailed, for earlier failures too."""
        self._file.sync_and_close()

    def discard(self) -> None:
        """Close without finishing; harmless after ``finish``."""
        self._file.discard()


class FileImages:
    """Implements ``ports.OwnImages``."""

    def open_for_reading(self, layers: Sequence[Path]) -> AbstractContextManager[DiskReader]:
        """See the port."""
        return ChainReader(layers)

    def qcow2(self, path: Path, size: int) -> Qcow2Writer:
        """See the port."""
        return Qcow2Writer(path, size)

    def raw(self, path: Path, size: int) -> RawFile:
        """See the port."""
        return RawFile(path, size)
