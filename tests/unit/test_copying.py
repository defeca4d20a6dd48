"""Copying a disk: the new layer over its parent is the disk, and holds nothing needless."""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.memory_disk import (
    MemoryIndexWriter,
    MemoryLayer,
    MemoryReader,
    blocks_of,
    content_of,
    flagged,
    merged,
)
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.domain.blocks import (
    BLOCK_SIZE,
    ZERO_HASH,
    Action,
    BlockRun,
    Flagged,
    block_count,
    block_length,
)
from vm_babysitter.domain.errors import Cancelled, ConnectionLost
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.copying import (
    Contradiction,
    Copied,
    DiskCopier,
    EmptyIndex,
    NewLayer,
    bytes_to_read,
    consecutive,
    either,
    runs_to_copy,
    touched_map,
)
from vm_babysitter.engine.pace import Pace

GRAIN = 4096
"""Bytes: the unit of a small cluster, and of what these guests write."""
MOST = 6 * BLOCK_SIZE

sizes = st.integers(1, MOST // 512).map(lambda n: n * 512) | st.integers(1, 6).map(
    lambda n: n * BLOCK_SIZE
)
spots = st.integers(0, MOST // GRAIN - 1)
writes = st.lists(
    st.tuples(spots, st.integers(1, 40), st.sampled_from([0, 0, 1, 2, 255])), max_size=5
)
"""Where a guest writes, how many grains, and which byte, zero included."""
ranges = st.lists(st.tuples(spots, st.integers(1, 40)), max_size=4)


@dataclass
class Guest:
    """A disk that is written to, with what a bitmap begun now would have marked."""

    content: bytearray
    dirty: list[tuple[int, int]] = field(default_factory=list)

    def write(self, changes: list[tuple[int, int, int]]) -> None:
        for spot, count, byte in changes:
            start = spot * GRAIN
            end = min(start + count * GRAIN, len(self.content))
            if start < end:
                self.content[start:end] = bytes([byte]) * (end - start)
                self.dirty.append((start, end))

    def resize(self, size: int) -> None:
        self.content[:] = self.content[:size].ljust(size, b"\0")

    def zeros(self, wanted: list[tuple[int, int]]) -> list[Flagged]:
        """Return a map that tells of some of the zeros there are, never of more."""
        told = []
        for spot, count in wanted:
            for grain in range(spot, spot + count):
                start, end = grain * GRAIN, (grain + 1) * GRAIN
                if not any(self.content[start:end]):
                    told.append((start, end))
        return flagged(len(self.content), told)


@dataclass
class Job:
    """One backup of a disk."""

    reader: MemoryReader
    layers: Sequence[MemoryLayer] = ()
    """Those beneath, the newest first."""
    tracked: bool = False
    touched: Sequence[MemoryLayer] | None = None
    cancel: Cancel = field(default_factory=Cancel)
    read: list[int] = field(default_factory=list)

    def runs(self) -> list[BlockRun]:
        size = self.reader.size
        touched = None if self.touched is None else touched_map(merged(self.touched), size)
        return list(
            runs_to_copy(
                self.reader,
                tracked=self.tracked,
                parent_size=self.layers[0].size if self.layers else None,
                touched=touched,
            )
        )

    def run(self) -> tuple[MemoryLayer, Copied]:
        layer = MemoryLayer(self.reader.size)
        copier = DiskCopier(
            self.reader,
            merged(self.layers) if self.layers else EmptyIndex(),
            NewLayer(layer, MemoryIndexWriter(layer)),
            fingerprint,
            self.read.append,
            Pace(None, self.cancel),
        )
        return layer, copier.copy(self.runs())


def check(job: Job, layer: MemoryLayer, copied: Copied, disk: bytes | bytearray) -> None:
    """Hold a new layer against the disk that it is of."""
    over = (layer, *job.layers)
    assert content_of(over) == bytes(disk)
    count = block_count(len(disk))
    assert merged(over).expected(0, count) == blocks_of(disk)
    assert layer.entries.keys() == layer.blocks.keys()
    before = content_of(job.layers)
    parent = blocks_of(before)[:count] + [ZERO_HASH] * (count - block_count(len(before)))
    for block, known in layer.entries.items():
        cut = block_length(block, len(disk)) != block_length(block, len(before) or len(disk))
        assert known != parent[block] or cut, "a block that did not change was stored"
        assert (layer.blocks[block] is None) == (known == ZERO_HASH)
    stored = [data for data in layer.blocks.values() if data is not None]
    assert copied.written_bytes == sum(map(len, stored))
    assert copied.zeroed_bytes == (len(layer.blocks) - len(stored)) * BLOCK_SIZE
    assert copied.read_bytes == sum(piece.length for piece in job.reader.seen)
    assert copied.read_bytes == sum(job.read) == bytes_to_read(job.runs(), len(disk))


@given(sizes, writes, ranges)
def test_a_full_holds_the_disk_and_no_zeros(
    size: int, changes: list[tuple[int, int, int]], known: list[tuple[int, int]]
) -> None:
    guest = Guest(bytearray(size))
    guest.write(changes)
    job = Job(MemoryReader(guest.content, guest.zeros(known)))
    layer, copied = job.run()
    check(job, layer, copied, guest.content)
    assert None not in layer.blocks.values()


@given(sizes, writes, st.lists(st.tuples(sizes, writes, ranges), min_size=1, max_size=4))
def test_scans_are_exact_through_any_growing_and_shrinking(
    size: int,
    first: list[tuple[int, int, int]],
    steps: list[tuple[int, list[tuple[int, int, int]], list[tuple[int, int]]]],
) -> None:
    guest = Guest(bytearray(size))
    guest.write(first)
    layers = [Job(MemoryReader(guest.content)).run()[0]]
    for new_size, changes, known in steps:
        guest.resize(new_size)
        guest.write(changes)
        job = Job(MemoryReader(guest.content, guest.zeros(known)), tuple(layers))
        layer, copied = job.run()
        check(job, layer, copied, guest.content)
        layers.insert(0, layer)


@given(st.data())
def test_increments_are_exact_by_any_superset_of_what_changed(data: st.DataObject) -> None:
    guest = Guest(bytearray(data.draw(sizes)))
    guest.write(data.draw(writes))
    layers = [Job(MemoryReader(guest.content)).run()[0]]
    for _ in range(data.draw(st.integers(1, 3))):
        guest.resize(max(len(guest.content), data.draw(sizes)))
        guest.write(data.draw(writes))
        more = [(a * GRAIN, (a + n) * GRAIN) for a, n in data.draw(ranges)]
        dirty = flagged(len(guest.content), [*guest.dirty, *more])
        reader = MemoryReader(guest.content, guest.zeros(data.draw(ranges)), dirty)
        job = Job(reader, tuple(layers), tracked=True)
        layer, copied = job.run()
        check(job, layer, copied, guest.content)
        event("changed" if layer.entries else "nothing changed")
        layers.insert(0, layer)
        if data.draw(st.booleans()):  # else the older bitmap records on and is used again
            guest.dirty.clear()


@given(st.data())
def test_an_image_put_back_to_the_state_of_an_older_point_is_exact(data: st.DataObject) -> None:
    guest = Guest(bytearray(data.draw(sizes)))
    guest.write(data.draw(writes))
    layers = [Job(MemoryReader(guest.content)).run()[0]]
    kept = bytearray(guest.content)
    for _ in range(data.draw(st.integers(1, 3))):
        guest.resize(max(len(guest.content), data.draw(sizes)))
        guest.write(data.draw(writes))
        layers.insert(0, Job(MemoryReader(guest.content), tuple(layers)).run()[0])
    back = Guest(kept)  # with the bitmap of that point, which is empty
    back.write(data.draw(writes))
    back.resize(max(len(kept), layers[0].size))
    back.write(data.draw(writes))
    reader = MemoryReader(
        back.content,
        back.zeros(data.draw(ranges)),
        flagged(len(back.content), back.dirty),
    )
    job = Job(reader, tuple(layers), tracked=True, touched=tuple(layers[:-1]))
    layer, copied = job.run()
    check(job, layer, copied, back.content)


def three(*bytes_: int) -> bytearray:
    return bytearray(b"".join(bytes([b]) * BLOCK_SIZE for b in bytes_))


def test_without_what_newer_points_changed_a_rolled_back_image_would_come_out_wrong() -> None:
    full = Job(MemoryReader(three(1, 2, 3))).run()[0]
    newer = Job(MemoryReader(three(1, 9, 3)), (full,)).run()[0]
    reader = MemoryReader(three(1, 2, 3), dirty=flagged(3 * BLOCK_SIZE, ()))
    blind = Job(reader, (newer, full), tracked=True).run()[0]
    assert content_of((blind, newer, full)) == bytes(three(1, 9, 3))
    seeing = Job(reader, (newer, full), tracked=True, touched=(newer,)).run()[0]
    assert content_of((seeing, newer, full)) == bytes(three(1, 2, 3))


def test_only_what_is_dirty_is_read() -> None:
    full = Job(MemoryReader(three(1, 2, 3))).run()[0]
    dirty = flagged(3 * BLOCK_SIZE, [(BLOCK_SIZE + 100, BLOCK_SIZE + 200)])
    job = Job(MemoryReader(three(1, 2, 3), dirty=dirty), (full,), tracked=True)
    layer, copied = job.run()
    assert (layer.blocks, copied) == ({}, Copied(BLOCK_SIZE, 0, 0))
    assert [(p.offset, p.length) for p in job.reader.seen] == [(BLOCK_SIZE, BLOCK_SIZE)]


def test_a_block_that_became_zero_is_known_without_reading_where_the_map_tells_it() -> None:
    full = Job(MemoryReader(three(1, 2, 3))).run()[0]
    whole = flagged(3 * BLOCK_SIZE, [(BLOCK_SIZE, 2 * BLOCK_SIZE)])
    job = Job(MemoryReader(three(1, 0, 3), zeros=whole, dirty=whole), (full,), tracked=True)
    layer, copied = job.run()
    assert (layer.blocks, layer.entries) == ({1: None}, {1: ZERO_HASH})
    assert copied == Copied(0, 0, BLOCK_SIZE)


def test_a_block_that_is_found_zero_by_reading_is_not_stored_as_data() -> None:
    full = Job(MemoryReader(three(1, 2, 3))).run()[0]
    layer, copied = Job(MemoryReader(three(1, 0, 3)), (full,)).run()
    assert (layer.blocks, copied) == ({1: None}, Copied(3 * BLOCK_SIZE, 0, BLOCK_SIZE))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_clean_range_that_is_zero_and_was_not_proves_the_bitmap_wrong(first: int) -> None:
    full = Job(MemoryReader(three(1, 2, 3))).run()[0]
    after = [1, 2, 3]
    after[first] = 0
    zeros = flagged(3 * BLOCK_SIZE, [(first * BLOCK_SIZE, (first + 1) * BLOCK_SIZE)])
    reader = MemoryReader(three(*after), zeros=zeros, dirty=flagged(3 * BLOCK_SIZE, ()))
    with pytest.raises(Contradiction) as caught:
        Job(reader, (full,), tracked=True).run()
    assert caught.value.offset == first * BLOCK_SIZE


def test_a_clean_range_that_was_zero_already_is_no_contradiction() -> None:
    full = Job(MemoryReader(three(1, 0, 3))).run()[0]
    zeros = flagged(3 * BLOCK_SIZE, [(BLOCK_SIZE, 2 * BLOCK_SIZE)])
    reader = MemoryReader(three(1, 0, 3), zeros=zeros, dirty=flagged(3 * BLOCK_SIZE, ()))
    assert Job(reader, (full,), tracked=True).run() == (
        MemoryLayer(3 * BLOCK_SIZE),
        Copied(0, 0, 0),
    )


def test_what_grew_counts_as_changed_though_qemu_calls_it_clean() -> None:
    full = Job(MemoryReader(three(1))).run()[0]
    reader = MemoryReader(three(1, 7), dirty=flagged(2 * BLOCK_SIZE, ()))
    layer = Job(reader, (full,), tracked=True).run()[0]
    assert content_of((layer, full)) == bytes(three(1, 7))


@pytest.mark.parametrize(
    ("before", "after"),
    [(2 * BLOCK_SIZE, BLOCK_SIZE + 512), (BLOCK_SIZE + 512, BLOCK_SIZE + 1024)],
    ids=["shrunk", "grown"],
)
def test_the_block_that_a_new_end_cuts_through_is_read_though_it_is_clean(
    before: int, after: int
) -> None:
    disk = bytes(three(1, 2))
    full = Job(MemoryReader(disk[:before])).run()[0]
    job = Job(MemoryReader(disk[:after], dirty=flagged(after, ())), (full,), tracked=True)
    layer, copied = job.run()
    check(job, layer, copied, disk[:after])
    assert list(layer.entries) == [1]


def test_content_of_a_full_in_many_pieces_is_recorded_in_order() -> None:
    disk = bytes(range(1, 51)) * (40 * BLOCK_SIZE // 50)
    job = Job(MemoryReader(disk))
    layer, copied = job.run()
    check(job, layer, copied, disk)
    assert len(job.reader.seen) > 2


def test_a_job_that_is_stopped_while_it_reads_ends_as_cancelled() -> None:
    disk = bytes([1]) * (64 * BLOCK_SIZE)
    job = Job(MemoryReader(disk))
    original = job.read

    class Stopping(list[int]):
        def append(self, amount: int) -> None:
            original.append(amount)
            job.cancel.request()

    job.read = Stopping()
    with pytest.raises(Cancelled):
        job.run()
    assert len(original) == 1


def test_a_job_that_was_stopped_before_reads_nothing() -> None:
    job = Job(MemoryReader(three(1)))
    job.cancel.request()
    with pytest.raises(Cancelled):
        job.run()
    assert job.reader.seen == []


def test_an_interrupted_reader_that_was_not_cancelled_is_a_lost_connection() -> None:
    job = Job(MemoryReader(three(1)))
    job.reader.abort()
    with pytest.raises(ConnectionLost):
        job.run()


def test_results_of_several_threads_come_out_in_order() -> None:
    disk = bytearray()
    for n in range(48):
        disk += bytes([n % 3 * n]) * BLOCK_SIZE
    layer = MemoryLayer(len(disk))
    lock = threading.Lock()

    class Locked(MemoryLayer):
        def append(self, data: memoryview, hashes: Sequence[bytes]) -> int:
            with lock:
                return MemoryLayer.append(self, data, hashes)

    layer = Locked(len(disk))
    reader = MemoryReader(disk, threads=3)
    copier = DiskCopier(
        reader,
        EmptyIndex(),
        NewLayer(layer, MemoryIndexWriter(layer)),
        fingerprint,
        lambda _: None,
        Pace(None, Cancel()),
    )
    copier.copy(runs_to_copy(reader, tracked=False, parent_size=None))
    assert content_of((layer,)) == bytes(disk)
    assert merged((layer,)).expected(0, 48) == blocks_of(disk)


# --- the parts


@given(st.sets(st.integers(0, 40)), st.integers(1, 40 * BLOCK_SIZE))
def test_the_touched_map_flags_the_blocks_that_have_entries(touched: set[int], size: int) -> None:
    layer = MemoryLayer(size, entries={b: bytes([1]) * 16 for b in sorted(touched)})
    found = list(touched_map(merged((layer,)), size))
    assert [f.start for f in found] == [0, *(f.end for f in found[:-1])]
    assert found[-1].end == size
    for block in range(block_count(size)):
        inside = [f.flag for f in found if f.start <= block * BLOCK_SIZE < f.end]
        assert inside == [block in touched]


def test_the_touched_map_of_a_long_disk_goes_on_from_step_to_step() -> None:
    size = (1 << 15) * BLOCK_SIZE + 512
    blocks = [0, (1 << 14) - 1, 1 << 14, 1 << 15]
    layer = MemoryLayer(size, entries=dict.fromkeys(blocks, b"x" * 16))
    found = list(touched_map(merged((layer,)), size))
    assert (found[0].start, found[-1].end) == (0, size)
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    flagged_blocks = [
        block
        for start, end, flag in found
        for block in range(start // BLOCK_SIZE, -(-end // BLOCK_SIZE))
        if flag
    ]
    assert flagged_blocks == blocks


@given(st.integers(1, 9), st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)))
def test_either_of_two_maps_is_enough(size: int, left: set[int], right: set[int]) -> None:
    def maps(numbers: set[int]) -> list[Flagged]:
        return flagged(size, [(n, n + 1) for n in numbers])

    found = {n for s, e, f in either(maps(left), maps(right)) for n in range(s, e) if f}
    assert found == {n for n in left | right if n < size}


@given(st.sets(st.integers(0, 30)))
def test_consecutive_numbers_are_joined_by_kind(numbers: set[int]) -> None:
    ordered = sorted(numbers)
    found = list(consecutive(ordered, lambda n: n % 5 == 0))
    assert [n for start, end in found for n in range(start, end)] == ordered
    assert all(len({n % 5 == 0 for n in range(*span)}) == 1 for span in found)
    for (_, end), (start, _) in itertools.pairwise(found):
        assert end < start or (end % 5 == 0) != ((end - 1) % 5 == 0)


def test_the_bytes_to_read_count_the_last_block_at_its_length() -> None:
    size = 3 * BLOCK_SIZE + 512
    runs = [BlockRun(0, 1, Action.READ), BlockRun(1, 3, Action.CLEAN), BlockRun(3, 4, Action.READ)]
    assert bytes_to_read(runs, size) == BLOCK_SIZE + 512
    assert bytes_to_read([BlockRun(0, 4, Action.ZERO)], size) == 0
    assert bytes_to_read([], size) == 0
