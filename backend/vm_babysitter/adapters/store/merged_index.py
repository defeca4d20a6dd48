"""What a disk held at a restore point, by the indexes of its whole line of ancestors."""

from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace

from vm_babysitter.adapters.store.index_file import IndexReader
from vm_babysitter.domain.blocks import ZERO_HASH, block_count


class MergedIndex:
    """The indexes of a disk from a restore point back to its full, read as one stream.

    The newest layer with an entry for a block wins; a block without any is zero. An entry at
    or beyond the size of a newer layer does not count: that layer cut the disk there, and
    what grew back reads as zeros, as it does through the backing files. A block that such a
    cut goes through must be read by the caller, for its fingerprint is of another length.

    Args:
        layers: the newest first. They are the caller's to close.
    """

    def __init__(self, layers: Sequence[IndexReader]) -> None:
        self._layers = layers
        self._ends: list[int] = []
        smallest: int | None = None
        for layer in layers:
            smallest = layer.size if smallest is None else min(smallest, layer.size)
            self._ends.append(block_count(smallest))
        self._asked = 0
        # The next block of each layer that has one left, so that layers with nothing
        # in a range cost nothing.
        self._waiting: list[tuple[int, int]] = []
        for age, layer in enumerate(layers):
            block = layer.next_block()
            if block is not None and block < self._ends[age]:
                heappush(self._waiting, (block, age))

    def expected(self, first: int, count: int) -> list[bytes]:
        """Return the fingerprints of ``count`` blocks from ``first``; ZERO_HASH for zero.

        Raises:
            ValueError: if ``first`` lies before the end of an earlier call.
            Damaged, StoreFailed: as the layers do.
        """
        if first < self._asked:
            raise ValueError(f"block {first} was passed already")
        end = self._asked = first + count
        result = [ZERO_HASH] * count
        found = self._take(first, end)
        found.sort(reverse=True)  # the newest last, so that it wins
        for _age, entries in found:
            for block, fingerprint in entries:
                result[block - first] = fingerprint
        return result

    def touched(self, first: int, count: int) -> list[int]:
        """Return which of ``count`` blocks from ``first`` any layer has an entry for.

        Raises:
            ValueError, Damaged, StoreFailed: as ``expected``.
        """
        if first < self._asked:
            raise ValueError(f"block {first} was passed already")
        end = self._asked = first + count
        return sorted({block for _, found in self._take(first, end) for block, _ in found})

    def _take(self, first: int, end: int) -> list[tuple[int, list[tuple[int, bytes]]]]:
        """Pass all layers up to block ``end``. Returns what they have there, by age."""
        found: list[tuple[int, list[tuple[int, bytes]]]] = []
        waiting = self._waiting
        while waiting and waiting[0][0] < end:
            age = waiting[0][1]
            layer, layer_end = self._layers[age], self._ends[age]
            if entries := layer.entries(first, min(end, layer_end)):
                found.append((age, entries))
            block = layer.next_block()
            if block is not None and block < layer_end:
                heapreplace(waiting, (block, age))
            else:
                heappop(waiting)
        return found
