"""Stream what a server knows of its blocks: which read as zeros, which a bitmap has marked."""

import struct
import threading
from collections.abc import Iterator, Mapping

from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nbd_protocol import (
    ALLOCATION,
    CHUNK_ERROR,
    U32,
    ChunkType,
    Command,
    Reply,
    chunk_error,
    reason,
)
from vm_babysitter.domain.blocks import Flagged
from vm_babysitter.domain.errors import ProtocolViolation, TransferFailed

STEP = 1 << 30
"""Bytes of the disk asked about at once. Bounds the memory: 16,384 ranges at the usual
cluster size of 64 KiB. Also the longest range that is ever told."""

_ZERO = 2  # base:allocation: reads as zeros (1, a hole, promises nothing)
_DIRTY = 1
_LONGEST_REPLY = 8 << 20  # bytes; QEMU sends up to 1 MiB

_EXTENT = struct.Struct(">II")

_Step = Mapping[str, list[Flagged]]


class BlockStatus:
    """The maps of one export. Safe for threads.

    All metadata contexts are asked for together and in the same steps. The latest step is
    kept: two maps that are read side by side, as a merge does, cost one question, and neither
    runs ahead of the other by more than one step.
    """

    def __init__(self, connection: Connection, step: int = STEP) -> None:
        """Use ``connection``, which has negotiated the contexts."""
        self._connection = connection
        self._step = step
        self._lock = threading.Lock()
        self._handle = 0
        self._latest: tuple[int, _Step] | None = None

    def map(self, context: str) -> Iterator[Flagged]:
        """Stream one context as ranges that cover the export from 0 to its size in order.

        The flag of a range says "reads as zeros" for `ALLOCATION` and "dirty" for a bitmap.
        Equal neighbours are one range, except across steps.
        """
        for start in range(0, self._connection.size, self._step):
            yield from self._ranges(start)[context]

    def _ranges(self, start: int) -> _Step:
        with self._lock:
            if self._latest is None or self._latest[0] != start:
                end = min(start + self._step, self._connection.size)
                self._latest = start, self._fetch(start, end)
            return self._latest[1]

    def _fetch(self, start: int, end: int) -> _Step:
        found: dict[str, list[Flagged]] = {n: [] for n in self._connection.contexts.values()}
        position = start
        while position < end:
            answers = self._ask(position, end - position)
            # Each context is answered as far as it pleases the server. What ran ahead of the
            # slowest is cut off and asked for again.
            reached = min(sum(length for length, _ in extents) for extents in answers.values())
            reached = min(position + reached, end)
            for name, extents in answers.items():
                mask = _ZERO if name == ALLOCATION else _DIRTY
                _append(found[name], extents, mask, position, reached)
            position = reached
        return found

    def _ask(self, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """Ask about a range; return length and flags of the extents of every context."""
        self._handle += 1
        self._connection.send(Command.BLOCK_STATUS, self._handle, offset, length)
        answers: dict[str, list[tuple[int, int]]] = {}
        done = False
        while not done:
            reply = self._connection.receive_reply()
            if reply.handle != self._handle:
                raise ProtocolViolation("it answers a request that was never made")
            if reply.error:
                raise TransferFailed("Asking for the block status", offset, reason(reply.error))
            if reply.length > _LONGEST_REPLY:
                raise ProtocolViolation(f"it sends {reply.length} bytes of block status")
            payload = self._connection.receive(reply.length)
            self._take(reply, payload, offset, answers)
            done = reply.done
        if answers.keys() != set(self._connection.contexts.values()):
            raise ProtocolViolation("it tells the block status for some of the metadata only")
        return answers

    def _take(
        self, reply: Reply, payload: bytes, offset: int, answers: dict[str, list[tuple[int, int]]]
    ) -> None:
        if reply.kind & CHUNK_ERROR:
            number, at = chunk_error(payload, reply.kind)
            where = offset if at is None else at
            raise TransferFailed("Asking for the block status", where, reason(number))
        if reply.kind == ChunkType.NONE and reply.done:
            return
        extra = (len(payload) - U32.size) % _EXTENT.size
        if reply.kind != ChunkType.BLOCK_STATUS or len(payload) < U32.size or extra:
            raise ProtocolViolation("it answers the question for block status with something else")
        name = self._connection.contexts.get(U32.unpack_from(payload)[0])
        extents = list(_EXTENT.iter_unpack(payload[U32.size :]))
        if (
            not extents
            or name is None
            or name in answers
            or any(length == 0 for length, _ in extents)
        ):
            raise ProtocolViolation("it tells a block status that makes no sense")
        answers[name] = extents


def _append(
    ranges: list[Flagged], extents: list[tuple[int, int]], mask: int, position: int, end: int
) -> None:
    """Append extents that begin at ``position``, up to ``end``, joined with equal neighbours."""
    for length, flags in extents:
        if position >= end:
            return
        flag = bool(flags & mask)
        until = min(position + length, end)
        if ranges and ranges[-1].flag is flag:
            ranges[-1] = Flagged(ranges[-1].start, until, flag)
        else:
            ranges.append(Flagged(position, until, flag))
        position = until
