"""Write to an NBD export through several connections, with many requests in flight on each."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nbd_protocol import (
    Command,
    reason,
)
from vm_babysitter.domain.errors import BabysitterError, ProtocolViolation, TransferFailed

FLUSH_TIMEOUT = 1800.0
"""Seconds a flush may take: gigabytes in the page cache may have to go to a slow array."""

_LONGEST_WRITE = 16 << 20  # bytes; servers take 32 MiB
_LONGEST_ZERO = 256 << 20  # bytes; where a hole is impossible the server writes zeros

_ACTIONS = {
    Command.WRITE: "Writing",
    Command.WRITE_ZEROES: "Writing zeros",
    Command.FLUSH: "Flushing",
}


class NbdWriter:
    """An open export that is written; implements ``ports.DiskWriter``.

    Made by `nbd.open_writer`.
    Requests in flight have no order: ranges that overlap need a flush in between. After an
    error every further call raises it again.
    """

    def __init__(self, connections: Sequence[Connection], in_flight: int) -> None:
        """Use open connections; several only where the server says that it allows it."""
        self._lanes = [_Lane(connection, in_flight) for connection in connections]
        self._turn = 0
        self._failing = threading.Lock()
        self._error: BaseException | None = None

    @property
    def size(self) -> int:
        """Size of the export in bytes."""
        return self._lanes[0].connection.size

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data``, see ``ports.DiskWriter``."""
        data = data.cast("B")
        for start in range(0, len(data), _LONGEST_WRITE):
            part = data[start : start + _LONGEST_WRITE]
            with self._lane() as lane:
                lane.send(Command.WRITE, offset + start, len(part), part)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, with a hole where the image can have one."""
        end = offset + length
        while offset < end:
            # Cut where clusters of any size begin, so that no cluster is zeroed in two parts.
            until = min(end, (offset // _LONGEST_ZERO + 1) * _LONGEST_ZERO)
            with self._lane() as lane:
                lane.send(Command.WRITE_ZEROES, offset, until - offset)
            offset = until

    def flush(self) -> None:
        """Wait for all writes and have them on stable storage; raise what failed."""
        with self._guard(), ExitStack() as locks:
            for lane in self._lanes:
                locks.enter_context(lane.lock)
                lane.settle()
            # Where several connections are allowed, a flush on one is a flush for all.
            self._lanes[0].flush()

    def abort(self) -> None:
        """Stop all that is under way; its threads get ConnectionLost."""
        for lane in self._lanes:
            lane.connection.abort()

    @contextmanager
    def _lane(self) -> Iterator["_Lane"]:
        """Take the next connection that is free, or wait for the one whose turn it is."""
        self._turn = turn = (self._turn + 1) % len(self._lanes)
        order = self._lanes[turn:] + self._lanes[:turn]
        lane = next((x for x in order if x.lock.acquire(blocking=False)), None)
        if lane is None:
            lane = order[0]
            lane.lock.acquire()
        try:
            with self._guard():
                yield lane
        finally:
            lane.lock.release()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Let the first error end everything: whatever comes after it raises it too."""
        if self._error is not None:
            raise self._error
        try:
            yield
        except BaseException as error:
            with self._failing:
                first = self._error is None
                if self._error is None:
                    self._error = error
            if first:
                self.abort()
            if isinstance(error, BabysitterError):
                raise self._error from None
            raise


class _Lane:
    """One connection with its requests in flight. Its ``lock`` is held by whoever uses it."""

    def __init__(self, connection: Connection, in_flight: int) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self._in_flight = in_flight
        self._waiting: dict[int, tuple[Command, int]] = {}
        self._handle = 0

    def send(
        self, command: Command, offset: int, length: int, data: memoryview | None = None
    ) -> None:
        """Send a request; wait for an earlier one only where too many are in flight."""
        while len(self._waiting) >= self._in_flight:
            self._receive()
        self._handle += 1
        self._waiting[self._handle] = command, offset
        self.connection.send(command, self._handle, offset, length, data)

    def settle(self) -> None:
        """Wait until nothing is in flight."""
        while self._waiting:
            self._receive()

    def flush(self) -> None:
        """Have all that was written on stable storage."""
        usual = self.connection.silence
        self.connection.patience(FLUSH_TIMEOUT)
        self.send(Command.FLUSH, 0, 0)
        self.settle()
        self.connection.patience(usual)

    def _receive(self) -> None:
        reply = self.connection.receive_reply()
        command, offset = self._waiting.pop(reply.handle, (None, 0))
        if command is None:
            raise ProtocolViolation("it answers a request that was never made")
        if reply.error:
            raise TransferFailed(_ACTIONS[command], offset, reason(reply.error))
        if not reply.simple:
            raise ProtocolViolation("it answers a write with a structured reply")
