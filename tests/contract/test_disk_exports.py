"""What the exports of a backup job serve: the fakes' and those of a real QEMU."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from tests.support.bench import (
    FIRST,
    KIB,
    SECOND,
    SIZE,
    Bench,
    BenchVm,
    FakeBench,
    RealBench,
    since,
    tracked,
    whole,
)
from tests.support.nbd_reading import Collected, pieces
from tests.support.vm import DiskSpec
from vm_babysitter.domain.blocks import Flagged, Piece
from vm_babysitter.domain.errors import ConnectionLost, ProtocolViolation
from vm_babysitter.ports import DiskReader, DiskRequest, Export

BLOCK = 64 * KIB
ODD = SIZE + 512
"""A size that ends within a block."""
DATA = random.Random(1).randbytes(3 * BLOCK)


def flagged(ranges: Iterator[Flagged], size: int) -> list[tuple[int, int]]:
    """Return the flagged ranges, joined, of a map that covers the disk without a gap."""
    found = list(ranges)
    assert found[0].start == 0
    assert found[-1].end == size
    assert all(a.end == b.start for a, b in pairwise(found))
    joined: list[tuple[int, int]] = []
    for start, end, flag in found:
        if flag and joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif flag:
            joined.append((start, end))
    return joined


def content(reader: DiskReader) -> bytes:
    """Read a whole disk."""
    collected = Collected(reader.size)
    reader.read(pieces(reader.size, 3 * BLOCK), collected)
    return bytes(collected.data)


@contextmanager
def opened(bench: Bench, vm: BenchVm, name: str, disk: DiskRequest) -> Iterator[DiskReader]:
    """Open the export of one disk of a new job."""
    request = bench.request(name, disk)
    (export,) = bench.hypervisor.begin_backup(vm.uuid, request)
    with bench.exports.open(request.socket, export.name, export.bitmap) as reader:
        yield reader
    bench.hypervisor.end_backup(vm.uuid)


class ExportsContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def vm(self, bench: Bench) -> BenchVm:
        """A VM with a little data in blocks 1, 2 and 3, and in half of the last."""
        vm = bench.vm(disks=[DiskSpec(size=ODD)])
        vm.start()
        vm.write("vda", BLOCK, DATA)
        vm.write("vda", SIZE, b"e" * 512)
        return vm

    @pytest.fixture
    def expected(self) -> bytearray:
        """What that disk holds."""
        return bytearray(bytes(BLOCK) + DATA + bytes(SIZE - 4 * BLOCK) + b"e" * 512)

    def test_export_holds_the_disk_with_its_zeros(
        self, bench: Bench, vm: BenchVm, expected: bytearray
    ) -> None:
        with opened(bench, vm, FIRST, whole("vda")) as reader:
            assert reader.size == ODD
            assert content(reader) == expected
            assert flagged(reader.zero_map(), ODD) == [(0, BLOCK), (4 * BLOCK, SIZE)]

    def test_export_is_the_disk_as_it_was_when_the_job_began(
        self, bench: Bench, vm: BenchVm, expected: bytearray
    ) -> None:
        with opened(bench, vm, FIRST, whole("vda")) as reader:
            vm.write("vda", 2 * BLOCK, b"late" * 1024)
            vm.zero("vda", BLOCK, BLOCK)
            assert content(reader) == expected

    def test_bitmap_marks_what_changed_since_and_nothing_else(
        self, bench: Bench, vm: BenchVm, expected: bytearray
    ) -> None:
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, tracked(bench, vm))
        vm.write("vda", 2 * BLOCK, b"abcd" * 128)
        vm.zero("vda", 8 * BLOCK, 2 * BLOCK)
        vm.write("vda", SIZE, bytes(512))
        expected[2 * BLOCK : 2 * BLOCK + 512] = b"abcd" * 128
        expected[SIZE:] = bytes(512)
        with opened(bench, vm, SECOND, since("vda", FIRST)) as reader:
            dirty = flagged(reader.dirty_map(), ODD)
            assert dirty == [(2 * BLOCK, 3 * BLOCK), (8 * BLOCK, 10 * BLOCK), (SIZE, ODD)]
            assert content(reader) == expected

    def test_bitmap_of_an_older_checkpoint_holds_all_since(self, bench: Bench, vm: BenchVm) -> None:
        older = tracked(bench, vm)
        vm.write("vda", 0, b"1" * 512)
        tracked(bench, vm, SECOND)
        vm.write("vda", 9 * BLOCK, b"2" * 512)
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, older)
        with opened(bench, vm, "vmb-0000000a-000002-cccccc", since("vda", FIRST)) as reader:
            assert flagged(reader.dirty_map(), ODD) == [(0, BLOCK), (9 * BLOCK, 10 * BLOCK)]

    def test_bitmap_goes_on_over_a_snapshot(self, bench: Bench, vm: BenchVm) -> None:
        older = tracked(bench, vm)
        vm.write("vda", 0, b"1" * 512)
        vm.snapshot("vda")
        vm.write("vda", 9 * BLOCK, b"2" * 512)
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, older)
        with opened(bench, vm, SECOND, since("vda", FIRST)) as reader:
            assert flagged(reader.dirty_map(), ODD) == [(0, BLOCK), (9 * BLOCK, 10 * BLOCK)]

    def test_maps_can_be_read_again_and_without_a_bitmap_there_is_no_dirty_map(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        with opened(bench, vm, FIRST, whole("vda")) as reader:
            assert list(reader.zero_map()) == list(reader.zero_map())
            with pytest.raises(ValueError, match="without a bitmap"):
                list(reader.dirty_map())

    def test_nobody_at_the_socket_and_no_such_export_are_errors(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        request = bench.request(FIRST, whole("vda"))
        with pytest.raises(ConnectionLost), bench.exports.open(request.socket, "vda", None):
            pass
        bench.hypervisor.begin_backup(vm.uuid, request)
        for wrong in (Export("", "vdz", None), Export("", "vda", "backup-vda")):
            opening = bench.exports.open(request.socket, wrong.name, wrong.bitmap)
            with pytest.raises(ProtocolViolation), opening:
                pass

    def test_error_of_the_consumer_or_the_pieces_stops_the_reading_and_is_raised(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        request = bench.request(FIRST, whole("vda"))
        bench.hypervisor.begin_backup(vm.uuid, request)

        def refuse(_piece: Piece, _tag: int, _data: memoryview) -> None:
            raise KeyError("consumer")

        def broken() -> Iterator[tuple[Piece, int]]:
            yield Piece(0, BLOCK), 0
            raise KeyError("pieces")

        with bench.exports.open(request.socket, "vda", None) as reader:
            with pytest.raises(KeyError, match="consumer"):
                reader.read(pieces(ODD, BLOCK), refuse)
            with pytest.raises(ConnectionLost):
                reader.read(pieces(ODD, BLOCK), Collected(ODD))
        opening = bench.exports.open(request.socket, "vda", None)
        with opening as reader, pytest.raises(KeyError, match="pieces"):
            reader.read(broken(), Collected(ODD))

    def test_end_of_the_job_ends_the_reading(self, bench: Bench, vm: BenchVm) -> None:
        request = bench.request(FIRST, whole("vda"))
        bench.hypervisor.begin_backup(vm.uuid, request)
        with bench.exports.open(request.socket, "vda", None) as reader:
            bench.hypervisor.end_backup(vm.uuid)
            with pytest.raises(ConnectionLost):
                reader.read(pieces(ODD, BLOCK), Collected(ODD))

    def test_aborted_reading_ends(self, bench: Bench, vm: BenchVm) -> None:
        request = bench.request(FIRST, whole("vda"))
        bench.hypervisor.begin_backup(vm.uuid, request)
        with bench.exports.open(request.socket, "vda", None) as reader:
            begun = threading.Event()

            def endless() -> Iterator[tuple[Piece, int]]:
                while True:
                    yield Piece(0, BLOCK), 0
                    begun.set()

            def abort() -> None:
                begun.wait(30)
                reader.abort()

            canceller = threading.Thread(target=abort)
            canceller.start()
            with pytest.raises(ConnectionLost):
                reader.read(endless(), Collected(ODD))
            canceller.join()


class TestFakeExports(ExportsContract):
    @pytest.fixture
    def bench(self, fake_bench: FakeBench) -> Bench:
        return fake_bench


class TestNbdExports(ExportsContract):
    @pytest.fixture
    def bench(self, libvirtd_bench: RealBench) -> Bench:
        return libvirtd_bench
