"""Read an NBD export through several connections, with many requests in flight on each."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nbd_protocol import (
    ALLOCATION,
    CHUNK_ERROR,
    U32,
    U64,
    ChunkType,
    Command,
    Reply,
    chunk_error,
    reason,
    request,
)
from vm_babysitter.adapters.qemu.nbd_status import BlockStatus
from vm_babysitter.adapters.qemu.shared_work import SharedWork
from vm_babysitter.domain.blocks import Flagged, Piece
from vm_babysitter.domain.errors import ProtocolViolation, TransferFailed

P = TypeVar("P")

_LONGEST_ERROR = 65536  # bytes of an error reply
_PIECE = 1 << 20
"""Bytes of the pieces that the number in flight is meant for; of smaller ones it is more."""
_MOST = 32
"""Requests in flight on a connection, however small they are."""


class NbdReader:
    """An open export that is read; implements ``ports.DiskReader``. Made by `nbd.open_reader`.

    After an error nothing more can be read: the connections are in an unknown state.
    """

    def __init__(
        self,
        lanes: Sequence[Connection],
        status: Connection,
        bitmap_context: str | None,
        in_flight: int,
    ) -> None:
        """Use connections that are open: ``lanes`` for data, ``status`` for the maps."""
        self._lanes = lanes
        self._status_connection = status
        self._status = BlockStatus(status)
        self._bitmap_context = bitmap_context
        self._in_flight = in_flight
        self._reading = threading.Lock()

    @property
    def size(self) -> int:
        """Size of the export in bytes."""
        return self._status_connection.size

    def zero_map(self) -> Iterator[Flagged]:
        """Stream which ranges are known to read as zeros."""
        return self._status.map(ALLOCATION)

    def dirty_map(self) -> Iterator[Flagged]:
        """Stream which ranges the bitmap has marked.

        Raises:
            ValueError: the export was opened without a bitmap.
        """
        if self._bitmap_context is None:
            raise ValueError("the export was opened without a bitmap")
        return self._status.map(self._bitmap_context)

    def read(
        self, pieces: Iterable[tuple[Piece, P]], consume: Callable[[Piece, P, memoryview], None]
    ) -> None:
        """Read all pieces, see ``ports.DiskReader``. One call at a time."""
        with self._reading:
            work = SharedWork(pieces, consume, self.abort)
            lanes = [_Lane(lane, work, self._in_flight) for lane in self._lanes]
            work.run([lane.run for lane in lanes], "nbd-read")

    def abort(self) -> None:
        """Stop all that is under way; its threads get ConnectionLost."""
        for connection in (*self._lanes, self._status_connection):
            connection.abort()


class _Request(Generic[P]):
    """A piece in flight."""

    __slots__ = ("filled", "memory", "piece", "tag")

    def __init__(self, piece: Piece, tag: P) -> None:
        self.piece = piece
        self.tag = tag
        self.memory: bytearray | None = None
        """Where the data goes; longer than the piece, maybe. Taken when data comes."""
        self.filled: list[tuple[int, int]] = []
        """Which ranges of it have come, where the reply comes in chunks."""


class _Lane(Generic[P]):
    """One connection with its requests in flight. Runs in a thread of its own."""

    def __init__(self, connection: Connection, work: SharedWork[P], in_flight: int) -> None:
        self._connection = connection
        self._work = work
        self._most_bytes = in_flight * _PIECE
        self._bytes = 0
        self._waiting: dict[int, _Request[P]] = {}
        self._handle = 0
        # The buffer used last is used next: it still is in the processor's cache. With simple
        # replies, which come in one piece each, one buffer is all that is ever made.
        self._spare: list[bytearray] = []

    def run(self) -> None:
        """Read pieces until there are no more."""
        more = True
        while True:
            # Several at a time: each call wakes the server, which takes longer than the call.
            if more and self._bytes <= self._most_bytes // 2 and len(self._waiting) <= _MOST // 2:
                more = self._send()
            if not self._waiting:
                return
            self._receive()

    def _send(self) -> bool:
        """Send as many requests as may be in flight; return whether there may be more."""
        headers: list[bytes] = []
        more = True
        while self._bytes < self._most_bytes and len(self._waiting) < _MOST:
            taken = self._work.next()
            if taken is None:
                more = False
                break
            headers.append(self._request(*taken))
        if headers:
            self._connection.send_all(headers)
        return more

    def _request(self, piece: Piece, tag: P) -> bytes:
        if piece.length <= 0:
            raise ValueError(f"a piece of {piece.length} bytes cannot be read")
        self._handle += 1
        self._bytes += piece.length
        self._waiting[self._handle] = _Request(piece, tag)
        return request(Command.READ, self._handle, piece.offset, piece.length)

    def _receive(self) -> None:
        reply = self._connection.receive_reply()
        wanted = self._waiting.get(reply.handle)
        if wanted is None:
            raise ProtocolViolation("it answers a request that was never made")
        if reply.error:
            raise TransferFailed("Reading", wanted.piece.offset, reason(reply.error))
        if wanted.memory is None:
            wanted.memory = self._memory(wanted.piece.length)
        data = memoryview(wanted.memory)[: wanted.piece.length]
        if reply.simple:
            self._connection.receive_into(data)
        else:
            self._receive_chunk(reply, wanted, data)
            if not reply.done:
                return
            _check_filled(wanted)
        del self._waiting[reply.handle]
        self._bytes -= wanted.piece.length
        self._work.consume(wanted.piece, wanted.tag, data)
        self._spare.append(wanted.memory)

    def _memory(self, length: int) -> bytearray:
        memory = self._spare.pop() if self._spare else bytearray()
        return memory if len(memory) >= length else bytearray(length)

    def _receive_chunk(self, reply: Reply, wanted: _Request[P], data: memoryview) -> None:
        match reply.kind:
            case ChunkType.OFFSET_DATA:
                start = self._chunk_start(reply, wanted, at_least=9)
                end = start + reply.length - U64.size
                self._connection.receive_into(_part(data, start, end))
                wanted.filled.append((start, end))
            case ChunkType.OFFSET_HOLE:
                start = self._chunk_start(reply, wanted, at_least=12)
                end = start + U32.unpack(self._connection.receive(U32.size))[0]
                _part(data, start, end)[:] = bytes(end - start)
                wanted.filled.append((start, end))
            case ChunkType.NONE if reply.done and reply.length == 0:
                pass
            case kind if kind & CHUNK_ERROR and reply.length <= _LONGEST_ERROR:
                number, at = chunk_error(self._connection.receive(reply.length), kind)
                where = wanted.piece.offset if at is None else at
                raise TransferFailed("Reading", where, reason(number))
            case kind:
                raise ProtocolViolation(f"it answers a read with a chunk of type {kind}")

    def _chunk_start(self, reply: Reply, wanted: _Request[P], at_least: int) -> int:
        if reply.length < at_least:
            raise ProtocolViolation("a chunk of data is too short")
        return int(U64.unpack(self._connection.receive(U64.size))[0]) - wanted.piece.offset


def _part(data: memoryview, start: int, end: int) -> memoryview:
    if not 0 <= start < end <= len(data):
        raise ProtocolViolation("it sends data that was not asked for")
    return data[start:end]


def _check_filled(wanted: _Request[P]) -> None:
    """Check that the chunks of a reply cover the request exactly, none of it twice."""
    position = 0
    for start, end in sorted(wanted.filled):
        if start != position:
            break
        position = end
    else:
        if position == wanted.piece.length:
            return
    raise ProtocolViolation("the chunks of a reply do not cover the request exactly")
