"""Reads a disk from the images of restore points, as `qcow2_writer` makes them, without QEMU.

Restores read this way: faster than through an NBD server, and where no QEMU is installed. Whoever
reads holds every block against its fingerprint, so a fault in here cannot pass for data; that
QEMU reads the same is what verifying proves.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from vm_babysitter.adapters.qemu.compression import expand
from vm_babysitter.adapters.qemu.qcow2_format import (
    CLUSTER,
    READS_ZERO,
    TABLE_ENTRIES,
    compressed_range,
    data_offset,
    from_big_endian,
    is_compressed,
    parse_header,
)
from vm_babysitter.adapters.qemu.shared_work import SharedWork
from vm_babysitter.adapters.store.files import StoredFile
from vm_babysitter.domain.blocks import Flagged, Piece, block_count
from vm_babysitter.domain.errors import ConnectionLost, Damaged, ImageUnreadable

P = TypeVar("P")

_THREADS = 2
_TABLES_KEPT = 4
_ZERO = frozenset({0, READS_ZERO})
_FORGOTTEN = 1 << 18
"""Bytes read in one go of which the page cache is spared: a hint for less is not worth it."""


class ChainReader:
    """Implements ``ports.DiskReader``. Use as a context manager.

    Args:
        paths: the images, the newest first; links inside them are not followed.

    Raises:
        ImageUnreadable: an image is missing, damaged, or not of our making. Reading too.
        StoreFailed: it cannot be read. Reading too.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Table | None] = OrderedDict()
        self._aborted = False
        self._layers: list[_Layer] = []
        with ExitStack() as stack:
            for path in paths:
                with _readable(path):
                    layer = _Layer(path)
                stack.callback(layer.file.close)
                self._layers.append(layer)
            self._open = stack.pop_all()
        sizes = [layer.size for layer in self._layers]
        # What lies beyond the end of a newer image was cut off: it is zero.
        self._ends = [min(sizes[: depth + 1]) for depth in range(len(sizes))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._open.close()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._layers[0].size

    def zero_map(self) -> Iterator[Flagged]:
        """Stream which ranges are stored nowhere, or as zeros; none is longer than 512 MiB."""
        start = 0
        for number in range(-(-block_count(self.size) // TABLE_ENTRIES)):
            for zero, count in self._zeros_of(number):
                end = min(start + count * CLUSTER, self.size)
                yield Flagged(start, end, zero)
                start = end

    def dirty_map(self) -> Iterator[Flagged]:
        """Images of restore points have no bitmaps. Raises ValueError."""
        raise ValueError("images of restore points have no bitmaps")

    def read(
        self, pieces: Iterable[tuple[Piece, P]], consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        """Read all pieces, see ``ports.DiskReader``; they begin with whole blocks."""
        work = SharedWork(pieces, consume, self.abort)
        work.run([lambda: self._run(work)] * _THREADS, "chain-read")

    def abort(self) -> None:
        """End a ``read`` under way, before its next piece."""
        self._aborted = True

    def _zeros_of(self, number: int) -> Iterator[tuple[bool, int]]:
        """Tell of the blocks of one L2 table how many in a row are zero or not."""
        count = min(TABLE_ENTRIES, block_count(self.size) - number * TABLE_ENTRIES)
        table = self._table(number)
        if table is None:
            yield True, count
            return
        for zero, entries in groupby(entry in _ZERO for entry in table.entries[:count]):
            yield zero, sum(1 for _ in entries)

    def _run(self, work: SharedWork[P]) -> None:
        memory = bytearray()
        while (taken := work.next()) is not None:
            piece, tag = taken
            if len(memory) < piece.length:
                memory = bytearray(piece.length)
            data = memoryview(memory)[: piece.length]
            self._fill(piece, data)
            work.consume(piece, tag, data)

    def _fill(self, piece: Piece, data: memoryview) -> None:
        done = 0
        for stretch in self._stretches(piece):
            part = data[done : done + stretch.length]
            done += stretch.length
            if stretch.entry in _ZERO:
                part[:] = bytes(len(part))
                continue
            self._layers[stretch.layer].read_into(stretch.entry, part)
            beyond = piece.offset + done - self._ends[stretch.layer]
            if beyond > 0:
                part[-beyond:] = bytes(beyond)

    def _stretches(self, piece: Piece) -> Iterator["_Stretch"]:
        """Cut a piece into stretches that lie in one go in one image, or are zero."""
        block, left = piece.offset // CLUSTER, piece.length
        while left > 0:
            number, slot = divmod(block, TABLE_ENTRIES)
            table = self._table(number)
            most = min(-(-left // CLUSTER), TABLE_ENTRIES - slot)
            layer, entry, count = (0, 0, most) if table is None else table.stretch(slot, most)
            length = min(left, count * CLUSTER)
            yield _Stretch(layer, entry, length)
            block, left = block + count, left - length

    def _table(self, number: int) -> "_Table | None":
        """Return where the blocks of one L2 table lie, None if nowhere."""
        if self._aborted:
            raise ConnectionLost(str(self._layers[0].file.path), "reading was stopped")
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            table = self._merge(number)
            self._kept[number] = table
            if len(self._kept) > _TABLES_KEPT:
                self._kept.popitem(last=False)
            return table

    def _merge(self, number: int) -> "_Table | None":
        entries, layers = array("Q", bytes(8 * TABLE_ENTRIES)), bytearray(TABLE_ENTRIES)
        first = number * TABLE_ENTRIES
        for depth, (layer, end) in enumerate(zip(self._layers, self._ends, strict=True)):
            seen = max(0, block_count(end) - first)
            with _readable(layer.file.path):
                table = layer.table(number)
            for slot, entry in enumerate(table[:seen]):
                if entry and not entries[slot]:
                    entries[slot], layers[slot] = entry, depth
        return _Table(entries, layers) if any(entries) else None


class _Stretch(NamedTuple):
    """Blocks that lie one after the other: the entry of the first tells where."""

    layer: int
    entry: int
    length: int
    """Bytes."""


class _Table(NamedTuple):
    """Where 8,192 blocks lie: for each the L2 entry that counts, and of which image it is."""

    entries: "array[int]"
    layers: bytearray

    def stretch(self, slot: int, most: int) -> tuple[int, int, int]:
        """Return image, entry, and how many blocks from ``slot`` on lie in one go."""
        entries, layers = self.entries, self.layers
        entry, layer, count = entries[slot], layers[slot], 1
        if not is_compressed(entry):
            step = CLUSTER if data_offset(entry) else 0
            while (
                count < most
                and entries[slot + count] == entry + count * step
                and layers[slot + count] == layer
            ):
                count += 1
        return layer, entry, count


class _Layer:
    """One image of the chain."""

    def __init__(self, path: Path) -> None:
        self.file = StoredFile(path)
        try:
            header = parse_header(self.file.read(0, min(CLUSTER, self.file.size)))
            self.size = header.size
            self._compression = header.compression_type
            self._l1 = from_big_endian(self.file.read(header.l1_offset, 8 * header.l1_entries))
        except BaseException:
            self.file.close()
            raise

    def table(self, number: int) -> "array[int]":
        """Return an L2 table, empty where the image has none."""
        offset = data_offset(self._l1[number]) if number < len(self._l1) else 0
        return from_big_endian(self.file.read(offset, CLUSTER) if offset else b"")

    def read_into(self, entry: int, buffer: memoryview) -> None:
        """Read what lies where an L2 entry says."""
        with _readable(self.file.path):
            if is_compressed(entry):
                start, length = compressed_range(entry)
                data = self.file.read(start, min(length, self.file.size - start))
                buffer[:] = expand(self._compression, data, CLUSTER)[: len(buffer)]
                return
            self.file.read_into(data_offset(entry), buffer)
        if len(buffer) >= _FORGOTTEN:
            self.file.forget(data_offset(entry), len(buffer))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what is wrong with an image into ImageUnreadable; a host that fails is no damage."""
    try:
        yield
    except Damaged as error:
        raise ImageUnreadable(str(path), error.reason) from error
    except ValueError as error:
        raise ImageUnreadable(str(path), str(error)) from error
