"""Read with our NBD client from qemu-nbd and nbdkit."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.nbd_reading import MIB, Collected, pattern, pieces
from tests.support.nbd_server import (
    Fake,
    Peer,
    nbdkit,
    open_descriptors,
    wait_until,
)
from tests.support.qemu_img import run
from vm_babysitter.adapters.qemu.nbd import Tuning, open_reader
from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nodes import shared_chain
from vm_babysitter.adapters.qemu.qemu_nbd import QemuNbd
from vm_babysitter.domain.blocks import Piece
from vm_babysitter.domain.errors import (
    Cancelled,
    ConnectionLost,
    ProtocolViolation,
    TransferFailed,
)

STRUCTURED = Tuning(structured=True)
ONE = Tuning(connections=1)
HASTY = Tuning(timeout=0.3)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("connections", [1, 3])
def test_every_byte_arrives_once(folder: Path, structured: bool, connections: int) -> None:
    size = 9 * MIB + 512
    tuning = Tuning(connections=connections, structured=structured)
    with (
        nbdkit(folder, "pattern", str(size)) as (address, _),
        open_reader(address, "", tuning=tuning) as reader,
    ):
        assert reader.size == size
        got = Collected(size)
        reader.read(pieces(size, 256 * 1024), got)
    assert got.data == pattern(0, size)
    assert sorted(got.tags) == list(range(37))  # type: ignore[type-var]


def test_all_connections_share_the_work(folder: Path) -> None:
    delayed = ("--filter=delay", "pattern", "4M", "rdelay=5ms")
    with nbdkit(folder, *delayed) as (address, _), open_reader(address, "") as reader:
        got = Collected(4 * MIB)
        reader.read(pieces(4 * MIB, 65536), got)
    assert len(got.threads) == 2


def test_many_requests_are_in_flight(folder: Path) -> None:
    """32 reads of 150 ms each, 2 x 4 at a time, take 0.6 seconds; two at a time they take 2.4."""
    delayed = ("--filter=delay", "pattern", "2M", "rdelay=150ms")
    with nbdkit(folder, *delayed) as (address, _), open_reader(address, "") as reader:
        began = time.monotonic()
        reader.read(pieces(2 * MIB, 65536), lambda *_: None)
    assert time.monotonic() - began < 2


def test_a_reader_can_read_again(folder: Path) -> None:
    with (
        nbdkit(folder, "pattern", "2M") as (address, _),
        open_reader(address, "") as reader,
    ):
        for length in (65536, MIB):
            got = Collected(2 * MIB)
            reader.read(pieces(2 * MIB, length), got)
            assert got.data == pattern(0, 2 * MIB)


def test_pieces_of_all_lengths_mix(folder: Path) -> None:
    """Memory is used again where it is long enough."""
    ends = [512, 4096, 300_032, 300_544, 1_000_448, 1_000_960, MIB + 512, 2 * MIB]
    with nbdkit(folder, "pattern", "2M") as (address, _), open_reader(address, "") as reader:
        got = Collected(2 * MIB)
        reader.read(((Piece(a, b - a), a) for a, b in pairwise([0, *ends])), got)
    assert got.data == pattern(0, 2 * MIB)


def test_no_pieces_is_no_work(folder: Path) -> None:
    with (
        nbdkit(folder, "pattern", "1M") as (address, _),
        open_reader(address, "") as reader,
    ):
        reader.read([], lambda *_: None)


def test_holes_inside_structured_replies_are_zeros(folder: Path) -> None:
    image = folder / "a.raw"
    run("truncate", "-s", "4M", image)
    with image.open("r+b") as file:
        file.seek(MIB + 65536)
        file.write(b"\x55" * 65536)
    with (
        QemuNbd().export(shared_chain([(image, "raw")])) as export,
        open_reader(export.address, export.name, tuning=STRUCTURED) as reader,
    ):
        got = Collected(4 * MIB)
        reader.read(pieces(4 * MIB), got)
    assert got.data == image.read_bytes()


def test_an_error_of_the_disk_names_offset_and_errno(folder: Path) -> None:
    failing = ("--filter=error", "pattern", "8M", "error-pread=EIO", "error-pread-rate=100%")
    for tuning in (ONE, STRUCTURED):
        with (
            nbdkit(folder, *failing) as (address, _),
            open_reader(address, "", tuning=tuning) as reader,
            pytest.raises(TransferFailed, match=r"Reading at offset \d+ .*\(EIO\)"),
        ):
            reader.read(pieces(8 * MIB), lambda *_: None)


class Raced(socket.socket):
    """A socket whose connection is aborted while data is received from it."""

    connection: Connection

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self.connection.abort()  # which may throw away data from the middle
        return len(buffer)


def test_what_comes_while_a_connection_is_aborted_is_no_data(folder: Path) -> None:
    with nbdkit(folder, "pattern", "1M") as (address, _):
        connection = Connection(address, "")
        raced = Raced(socket.AF_UNIX, socket.SOCK_STREAM)
        raced.connection = connection
        connection._socket.close()
        connection._socket = raced
        with pytest.raises(ConnectionLost):
            connection.receive_into(memoryview(bytearray(512)))
        connection.close()


def test_an_error_later_on_stops_all_connections(folder: Path) -> None:
    trigger = folder / "fail"
    failing = ("--filter=error", "pattern", "1G", "error-pread=EIO", "error-pread-rate=100%")
    taken: list[Piece] = []

    def consume(piece: Piece, _tag: object, _data: memoryview) -> None:
        taken.append(piece)
        if len(taken) == 20:
            trigger.touch()

    with (
        nbdkit(folder, *failing, f"error-pread-file={trigger}") as (address, _),
        open_reader(address, "") as reader,
        pytest.raises(TransferFailed, match="EIO"),
    ):
        reader.read(pieces(1 << 30), consume)
    assert 20 <= len(taken) < 40


@pytest.mark.parametrize("where", ["pieces", "consume"])
def test_a_cancel_stops_at_once_though_the_server_is_slow(folder: Path, where: str) -> None:
    """The first connection cancels while the second waits for a reply."""
    slow = threading.Event()

    def some() -> Iterator[tuple[Piece, int]]:
        for number, piece in enumerate(pieces(MIB, 65536)):
            if where == "pieces" and number == 12:
                raise Cancelled
            yield piece

    def consume(*_: object) -> None:
        slow.set()
        if where == "consume":
            raise Cancelled

    delayed = ("--filter=delay", "pattern", "1M")
    with nbdkit(folder, *delayed, "rdelay=300ms" if where == "consume" else "rdelay=20") as (
        address,
        _,
    ):
        tuning = Tuning(reads=4 if where == "consume" else 8)
        with open_reader(address, "", tuning=tuning) as reader:
            began = time.monotonic()
            with pytest.raises(Cancelled):
                reader.read(some(), consume)
            assert time.monotonic() - began < 10
            with pytest.raises(ConnectionLost):  # the reader is spent
                reader.read(pieces(MIB), lambda *_: None)


def test_a_server_that_dies_is_a_lost_connection(folder: Path) -> None:
    with nbdkit(folder, "pattern", "1G") as (address, server):

        def consume(*_: object) -> None:
            server.stop(grace=0)

        with (
            open_reader(address, "") as reader,
            pytest.raises(ConnectionLost, match=r"closed|reset|pipe"),
        ):
            reader.read(pieces(1 << 30), consume)


def test_a_silent_server_is_given_up(folder: Path) -> None:
    delayed = ("--filter=delay", "pattern", "1M", "rdelay=20")
    with (
        nbdkit(folder, *delayed) as (address, _),
        open_reader(address, "", tuning=HASTY) as reader,
    ):
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"silent for 0\.3 seconds"):
            reader.read(pieces(MIB), lambda *_: None)
        assert time.monotonic() - began < 10


def test_a_slow_consumer_is_not_a_silent_server(folder: Path) -> None:
    with (
        nbdkit(folder, "pattern", "2M") as (address, _),
        open_reader(address, "", tuning=HASTY) as reader,
    ):
        reader.read(pieces(2 * MIB), lambda *_: time.sleep(0.4))


def test_nobody_there_is_a_lost_connection(folder: Path) -> None:
    with pytest.raises(ConnectionLost, match="ENOENT"), open_reader(str(folder / "x"), ""):
        pass
    with pytest.raises(ConnectionLost, match="too long"), open_reader("/" + "x" * 200, ""):
        pass


def test_an_export_or_bitmap_that_is_not_there_is_told(folder: Path) -> None:
    image = folder / "a.raw"
    image.write_bytes(bytes(MIB))
    with QemuNbd().export(shared_chain([(image, "raw")])) as export:
        with pytest.raises(ProtocolViolation, match="other"), open_reader(export.address, "other"):
            pass
        with (
            pytest.raises(ProtocolViolation, match="qemu:dirty-bitmap:b"),
            open_reader(export.address, export.name, bitmap="b"),
        ):
            pass
        with (
            open_reader(export.address, export.name) as reader,
            pytest.raises(ValueError, match="bitmap"),
        ):
            reader.dirty_map()


def test_the_end_is_said_and_nothing_stays_open(folder: Path, fake: Fake) -> None:
    goodbyes: list[bool] = []

    def behave(peer: Peer) -> None:
        for request in peer.requests():
            peer.simple(request.handle, bytes(request.length))
        goodbyes.append(True)

    server = fake(behave)
    before = open_descriptors()
    with open_reader(server.address, "") as reader:
        reader.read(pieces(MIB, 65536), lambda *_: None)
    wait_until(lambda: len(goodbyes) == 3)
    assert open_descriptors() == before + 3  # the server's ends


def test_an_aborted_connection_leaves_nothing_unread(fake: Fake) -> None:
    """QEMU spins on such data, and its guest stands still when the job ends meanwhile."""
    full, aborted, found = threading.Event(), threading.Event(), list[int]()

    def behave(peer: Peer) -> None:
        end = peer._socket
        with suppress(BlockingIOError):
            while True:
                end.send(bytes(65536), socket.MSG_DONTWAIT)
        full.set()
        assert aborted.wait(10)
        poll = select.poll()
        poll.register(end, select.POLLOUT)
        found.extend(events for _, events in poll.poll(5000))

    connection = Connection(fake(behave).address, "")
    assert full.wait(10)
    connection.abort()  # whoever reads from it may be busy with something else
    aborted.set()
    wait_until(lambda: bool(found))
    connection.close()
    assert found[0] & select.POLLOUT
