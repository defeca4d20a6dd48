"""Exports of a FakeHypervisor's backup jobs: ``ports.DiskExports`` and ``ports.DiskReader``."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from tests.support.fakes.disk import CLUSTER, flagged_map
from tests.support.fakes.faults import Faults, faulty
from tests.support.fakes.hypervisor import FakeExport, FakeHypervisor
from vm_babysitter.domain.blocks import Flagged, Piece
from vm_babysitter.domain.errors import ConnectionLost, ProtocolViolation, TransferFailed

P = TypeVar("P")
_IN_FLIGHT = 4


class FakeDiskReader(Faults):
    """A disk in memory, read out of order; the memory it hands out is spoiled afterwards.

    ``fail["read"]`` comes up once ``good_pieces`` were read; with ``stalled`` the reader then
    waits until it is aborted.
    """

    def __init__(self, export: FakeExport, is_open: Callable[[], bool] = lambda: True) -> None:
        """``is_open`` tells whether the job that serves it still runs."""
        super().__init__()
        self.good_pieces = 0
        self.stalled = False
        self.bytes_read = 0
        self._export = export
        self._is_open = is_open
        self._useless = threading.Event()

    @property
    def size(self) -> int:
        return len(self._export.content)

    @faulty
    def zero_map(self) -> Iterator[Flagged]:
        everything = set(range(-(-self.size // CLUSTER)))
        return self._checked(flagged_map(self.size, everything - self._export.data))

    @faulty
    def dirty_map(self) -> Iterator[Flagged]:
        if self._export.changed is None:
            raise ValueError("the export was opened without a bitmap")
        return self._checked(flagged_map(self.size, self._export.changed))

    def read(
        self, pieces: Iterable[tuple[Piece, P]], consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        self.calls.append("read")
        source = iter(pieces)
        try:
            while batch := list(islice(source, _IN_FLIGHT)):
                for piece, tag in reversed(batch):
                    self._read_one(piece, tag, consume)
        except BaseException:
            self._useless.set()
            raise

    def abort(self) -> None:
        self._useless.set()

    def _read_one(
        self, piece: Piece, tag: P, consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        if self.stalled and self.good_pieces <= 0:
            self._useless.wait()
        self._check()
        if "read" in self.fail and self.good_pieces <= 0:
            raise self.fail["read"]
        self.good_pieces -= 1
        end = piece.offset + piece.length
        if piece.length <= 0:
            raise ValueError(f"a piece of {piece.length} bytes cannot be read")
        if end > self.size:
            raise TransferFailed("Reading", piece.offset, "it lies beyond the end")
        memory = bytearray(self._export.content[piece.offset : end])
        consume(piece, tag, memoryview(memory))
        self.bytes_read += piece.length
        memory[:] = b"\xee" * len(memory)

    def _check(self) -> None:
        if self._useless.is_set() or not self._is_open():
            raise ConnectionLost("fake export", "it is closed")

    def _checked(self, ranges: Iterator[Flagged]) -> Iterator[Flagged]:
        for flagged in ranges:
            self._check()
            yield flagged


class FakeDiskExports(Faults):
    """Implements ``ports.DiskExports`` on the jobs of a FakeHypervisor.

    ``fail["read"]`` is handed on to every reader opened, with ``good_pieces`` and ``stalled``.
    """

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        super().__init__()
        self.good_pieces = 0
        self.stalled = False
        self.readers: dict[str, FakeDiskReader] = {}
        """The reader opened last of each export."""
        self._hypervisor = hypervisor

    @contextmanager
    def open(self, socket: str, export: str, bitmap: str | None) -> Iterator[FakeDiskReader]:
        self.calls.append("open")
        if "open" in self.fail:
            raise self.fail["open"]
        jobs = [vm.job for vm in self._hypervisor.machines.values() if vm.job is not None]
        job = next((job for job in jobs if job.socket == socket), None)
        if job is None:
            raise ConnectionLost(socket, "nobody listens")
        found = job.exports.get(export)
        if found is None or (bitmap is not None and found.changed is None):
            raise ProtocolViolation(f"there is no export {export!r} with {bitmap!r}")
        changed = None if bitmap is None else found.changed

        def still_runs() -> bool:
            return any(vm.job is job for vm in self._hypervisor.machines.values())

        reader = FakeDiskReader(FakeExport(found.content, found.data, changed), still_runs)
        reader.fail.update(self.fail)
        reader.good_pieces, reader.stalled = self.good_pieces, self.stalled
        self.readers[export] = reader
        yield reader
