"""Open NBD exports for reading and writing: the client that everything else uses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vm_babysitter.adapters.qemu.nbd_connection import TIMEOUT, Connection
from vm_babysitter.adapters.qemu.nbd_protocol import ALLOCATION, DIRTY_BITMAP, Feature
from vm_babysitter.adapters.qemu.nbd_reader import NbdReader
from vm_babysitter.adapters.qemu.nbd_writer import NbdWriter
from vm_babysitter.domain.errors import ProtocolViolation


@dataclass(frozen=True, slots=True)
class Tuning:
    """How hard to drive a server."""

    connections: int = 2
    """For data; one more serves the maps. Only one is used for writing where the server does
    not say that it allows several."""
    reads: int = 4
    """MiB in flight per connection. More do not fit into the processor's cache: with pieces of
    1 MiB, 8 were a third slower than 4, where the disk was no bottleneck."""
    writes: int = 8
    """In flight per connection."""
    timeout: float = TIMEOUT
    """Seconds of silence after which the server counts as lost."""
    structured: bool = False
    """Let data come in structured replies. They make the server look up the allocation for
    each request, and bring nothing where zeros are known beforehand and not asked for."""


DEFAULT = Tuning()


@contextmanager
def open_reader(
    address: str, export: str, *, bitmap: str | None = None, tuning: Tuning = DEFAULT
) -> Iterator[NbdReader]:
    """Open an export for reading.

    Args:
        address: path of the server's unix socket.
        export: name of the export. It must not change while it is read: several connections
            are used whether the server advertises that or not.
        bitmap: the dirty bitmap whose map is wanted, by the name the export gives it.
        tuning: how hard to drive the server.

    Raises:
        ConnectionLost: nobody answers there.
        ProtocolViolation: the server does not have this export, or not this bitmap.
    """
    context = None if bitmap is None else DIRTY_BITMAP + bitmap
    contexts = [ALLOCATION] if context is None else [ALLOCATION, context]
    with ExitStack() as opened:
        status = Connection(address, export, contexts=contexts, timeout=tuning.timeout)
        opened.callback(status.close)
        lanes = []
        for _ in range(tuning.connections):
            lane = Connection(address, export, structured=tuning.structured, timeout=tuning.timeout)
            opened.callback(lane.close)
            lanes.append(lane)
        _check_sizes([status, *lanes])
        reader = NbdReader(lanes, status, context, tuning.reads)
        try:
            yield reader
        except BaseException:
            reader.abort()
            raise


@contextmanager
def open_writer(address: str, export: str, *, tuning: Tuning = DEFAULT) -> Iterator[NbdWriter]:
    """Open an export for writing. The end of the context flushes, if no error came before.

    Args:
        address: path of the server's unix socket.
        export: name of the export.
        tuning: how hard to drive the server.

    Raises:
        ConnectionLost: nobody answers there.
        ProtocolViolation: the server does not have this export, or not for writing.
    """
    with ExitStack() as opened:
        lanes = [Connection(address, export, timeout=tuning.timeout)]
        opened.callback(lanes[0].close)
        _check_writable(lanes[0].features)
        if lanes[0].features & Feature.CAN_MULTI_CONN:
            for _ in range(tuning.connections - 1):
                lane = Connection(address, export, timeout=tuning.timeout)
                opened.callback(lane.close)
                lanes.append(lane)
        _check_sizes(lanes)
        writer = NbdWriter(lanes, tuning.writes)
        try:
            yield writer
            writer.flush()
        except BaseException:
            writer.abort()
            raise


def _check_sizes(connections: list[Connection]) -> None:
    if len({connection.size for connection in connections}) != 1:
        raise ProtocolViolation("its export has different sizes on different connections")


def _check_writable(features: Feature) -> None:
    if features & Feature.READ_ONLY:
        raise ProtocolViolation("its export cannot be written")
    if not features & Feature.SEND_FLUSH or not features & Feature.SEND_WRITE_ZEROES:
        raise ProtocolViolation("its export cannot flush or zero")
