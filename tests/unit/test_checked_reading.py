"""Checked reading: the right content passes whole, and one wrong block stops it."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes.images import FakeImageTool
from tests.support.fakes.observer import RecordingObserver
from tests.support.memory_disk import MemoryLayer, MemoryReader, blocks_of, flagged, merged
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.domain.blocks import BLOCK_SIZE, ZERO_HASH, Flagged
from vm_babysitter.domain.errors import Cancelled, ConnectionLost
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.checked_reading import CheckedReading, Mismatch, Part, content_bytes
from vm_babysitter.engine.pace import Pace
from vm_babysitter.engine.tools import ReadTools

TAIL = 512


def disk_of(kinds: list[int], tail: int = TAIL) -> bytes:
    """Return a disk of one block per kind, all of one byte each, the last one short."""
    lengths = [BLOCK_SIZE] * (len(kinds) - 1) + [tail]
    return b"".join(bytes([k]) * n for k, n in zip(kinds, lengths, strict=True))


def index_of(disk: bytes) -> MemoryLayer:
    entries = {b: h for b, h in enumerate(blocks_of(disk)) if h != ZERO_HASH}
    return MemoryLayer(len(disk), entries=entries)


def zeros_of(disk: bytes, told: set[int]) -> list[Flagged]:
    """Return a map that tells of those of the blocks in ``told`` that are zero."""
    empty = [b for b, h in enumerate(blocks_of(disk)) if h == ZERO_HASH and b in told]
    return flagged(len(disk), [(b * BLOCK_SIZE, (b + 1) * BLOCK_SIZE) for b in empty])


class Sink:
    """Takes content at its place, each byte once."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.taken: list[range] = []
        self.numbers: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, number: int, parts: list[Part]) -> None:
        with self._lock:
            self.numbers.append(number)
            for block, data, hashes in parts:
                offset = block * BLOCK_SIZE
                self.content[offset : offset + len(data)] = data
                self.taken.append(range(offset, offset + len(data)))
                assert blocks_of(bytes(data)) == hashes

    @property
    def blocks(self) -> list[int]:
        starts = [s for r in self.taken for s in range(r.start, r.stop, BLOCK_SIZE)]
        return sorted(start // BLOCK_SIZE for start in starts)


def read(disk: bytes, index: MemoryLayer, told: set[int] | None = None, threads: int = 1) -> Sink:
    sink = Sink(len(disk))
    reader = MemoryReader(disk, zeros_of(disk, told or set()), threads=threads)
    CheckedReading(reader, merged((index,)), sink, read_tools()).run()
    assert sorted(sink.numbers) == list(range(len(sink.numbers)))
    return sink


def read_tools(cancel: Cancel | None = None) -> ReadTools:
    cancel = cancel or Cancel()
    return ReadTools(FakeImageTool(), fingerprint, RecordingObserver(), cancel, Pace(None, cancel))


kinds = st.lists(st.sampled_from([0, 0, 1, 2]), min_size=1, max_size=8)
told_blocks = st.sets(st.integers(0, 7))
tails = st.integers(1, 128).map(lambda n: n * 512)


@given(kinds, told_blocks, tails)
def test_right_content_passes_and_the_sink_gets_exactly_what_is_not_zero(
    kinds: list[int], told: set[int], tail: int
) -> None:
    disk = disk_of(kinds, tail)
    sink = read(disk, index_of(disk), told)
    assert bytes(sink.content) == disk
    assert sink.blocks == [b for b, kind in enumerate(kinds) if kind]


@given(kinds, told_blocks, tails, st.data())
def test_any_one_wrong_block_is_found(
    kinds: list[int], told: set[int], tail: int, data: st.DataObject
) -> None:
    disk = disk_of(kinds, tail)
    wrong = data.draw(st.integers(0, len(kinds) - 1))
    changed = list(kinds)
    changed[wrong] = data.draw(st.sampled_from([k for k in (0, 1, 2, 3) if k != kinds[wrong]]))
    with pytest.raises(Mismatch) as caught:
        read(disk_of(changed, tail), index_of(disk), told)
    assert caught.value.offset == wrong * BLOCK_SIZE
    assert str(wrong * BLOCK_SIZE) in str(caught.value)


@pytest.mark.parametrize("told", [set(), {0, 1, 2}], ids=["read", "told by the map"])
@pytest.mark.parametrize(("was", "now"), [(0, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_zero_and_content_are_never_taken_for_each_other(
    block: int, was: int, now: int, told: set[int]
) -> None:
    before, after = [5, 5, 5], [5, 5, 5]
    before[block], after[block] = was, now
    with pytest.raises(Mismatch):
        read(disk_of(after), index_of(disk_of(before)), told)


@given(st.integers(0, 2 * BLOCK_SIZE + TAIL - 1), st.integers(1, 255))
def test_any_one_wrong_byte_is_found(place: int, change: int) -> None:
    disk = disk_of([1, 0, 2])
    changed = bytearray(disk)
    changed[place] ^= change
    with pytest.raises(Mismatch):
        read(bytes(changed), index_of(disk))


def test_a_wrong_block_never_reaches_the_sink() -> None:
    disk = disk_of([1] * 5)
    sink = Sink(len(disk))
    changed = bytearray(disk)
    changed[2 * BLOCK_SIZE] ^= 1
    reading = CheckedReading(MemoryReader(changed), merged((index_of(disk),)), sink, read_tools())
    with pytest.raises(Mismatch):
        reading.run()
    assert 2 not in sink.blocks


def test_blocks_that_a_newer_layer_made_zero_count_as_zero() -> None:
    full = index_of(disk_of([1, 2, 3]))
    newer = MemoryLayer(full.size, entries={1: ZERO_HASH})
    disk = disk_of([1, 0, 3])
    for told in (set[int](), {1}):
        sink = Sink(len(disk))
        reader = MemoryReader(disk, zeros_of(disk, told))
        CheckedReading(reader, merged((newer, full)), sink, read_tools()).run()
        assert sink.blocks == [0, 2]


def test_a_long_disk_is_read_in_many_pieces_by_several_threads() -> None:
    kinds = [(n * 7) % 4 for n in range(70)]
    disk = disk_of(kinds)
    sink = read(disk, index_of(disk), set(range(0, 70, 2)), threads=3)
    assert bytes(sink.content) == disk


def test_reading_stops_on_request_and_what_the_sink_raises_comes_up() -> None:
    disk = disk_of([1] * 40)
    cancel = Cancel()

    def stop(_number: int, _parts: list[Part]) -> None:
        cancel.request()

    def fail(_number: int, _parts: list[Part]) -> None:
        raise ConnectionLost("sink", "gone")

    index = index_of(disk)
    with pytest.raises(Cancelled):
        CheckedReading(MemoryReader(disk), merged((index,)), stop, read_tools(cancel)).run()
    with pytest.raises(ConnectionLost):
        CheckedReading(MemoryReader(disk), merged((index,)), fail, read_tools()).run()


@given(kinds)
def test_the_amount_of_content_counts_whole_blocks_that_are_not_zero(kinds: list[int]) -> None:
    disk = disk_of(kinds)
    amount = content_bytes(merged((index_of(disk),)), len(disk))
    assert amount == sum(1 for kind in kinds if kind) * BLOCK_SIZE


def test_the_amount_of_content_of_a_long_disk_is_added_up_step_by_step() -> None:
    blocks = (1 << 15) + 3
    entries = dict.fromkeys(range(0, blocks, 2), b"x" * 16)
    layer = MemoryLayer(blocks * BLOCK_SIZE, entries=entries)
    assert content_bytes(merged((layer,)), layer.size) == len(entries) * BLOCK_SIZE
