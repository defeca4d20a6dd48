"""Our NBD client against qemu-nbd, nbdkit, and a server that misbehaves as told."""

import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.nbd_server import (
    FakeServer,
    Peer,
    Request,
    nbdkit,
    open_descriptors,
    wait_until,
)
from tests.support.qemu_img import run
from vm_babysitter.adapters.qemu.nbd import Tuning, open_reader, open_writer
from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nbd_protocol import ALLOCATION
from vm_babysitter.adapters.qemu.nbd_status import BlockStatus
from vm_babysitter.adapters.qemu.nodes import shared_chain
from vm_babysitter.adapters.qemu.qemu_nbd import QemuNbd
from vm_babysitter.domain.blocks import Flagged, Piece, merge_maps
from vm_babysitter.domain.errors import (
    Cancelled,
    ConnectionLost,
    ProtocolViolation,
    TransferFailed,
)

MIB = 1 << 20
STRUCTURED = Tuning(structured=True)
ONE = Tuning(connections=1)
HASTY = Tuning(timeout=0.3)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: names of sockets end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vmb-test-") as name:
        yield Path(name)


Fake = Callable[..., FakeServer]


@pytest.fixture
def fake(folder: Path) -> Iterator[Fake]:
    """Makes servers that behave as told."""
    with ExitStack() as stack:

        def make(behave: Callable[[Peer], None], **options: object) -> FakeServer:
            server = FakeServer(folder / "fake.socket", behave, **options)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield make


def pieces(size: int, length: int = MIB) -> Iterator[tuple[Piece, int]]:
    for number, offset in enumerate(range(0, size, length)):
        yield Piece(offset, min(length, size - offset)), number


def pattern(offset: int, length: int) -> bytes:
    """What nbdkit's pattern plugin serves."""
    return struct.pack(f">{length // 8}Q", *range(offset, offset + length, 8))


class Collected:
    """Takes what is read, in any order and from any thread."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(b"\xee" * size)
        self.tags: list[object] = []
        self.threads: set[str] = set()

    def __call__(self, piece: Piece, tag: object, data: memoryview) -> None:
        assert len(data) == piece.length
        self.data[piece.offset : piece.offset + piece.length] = data
        self.tags.append(tag)
        self.threads.add(threading.current_thread().name)


# -- reading -------------------------------------------------------------------------------


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
    """32 reads of 50 ms each, 2 x 4 at a time, take a quarter of a second, not 1.6."""
    delayed = ("--filter=delay", "pattern", "2M", "rdelay=50ms")
    with nbdkit(folder, *delayed) as (address, _), open_reader(address, "") as reader:
        began = time.monotonic()
        reader.read(pieces(2 * MIB, 65536), lambda *_: None)
    assert time.monotonic() - began < 0.8


def test_a_reader_can_read_again(folder: Path) -> None:
    with (
        nbdkit(folder, "pattern", "2M") as (address, _),
        open_reader(address, "") as reader,
    ):
        for length in (65536, MIB, 4096):  # buffers are reused where they are long enough
            got = Collected(2 * MIB)
            reader.read(pieces(2 * MIB, length), got)
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
    with nbdkit(folder, *delayed, "rdelay=300ms" if where == "consume" else "rdelay=2") as (
        address,
        _,
    ):
        tuning = Tuning(reads=4 if where == "consume" else 8)
        with open_reader(address, "", tuning=tuning) as reader:
            began = time.monotonic()
            with pytest.raises(Cancelled):
                reader.read(some(), consume)
            assert time.monotonic() - began < 1
            with pytest.raises(ConnectionLost):  # the reader is spent
                reader.read(pieces(MIB), lambda *_: None)


def test_a_server_that_dies_is_a_lost_connection(folder: Path) -> None:
    with nbdkit(folder, "pattern", "1G") as (address, server):

        def consume(*_: object) -> None:
            server.stop(grace=0)

        with (
            open_reader(address, "") as reader,
            pytest.raises(ConnectionLost, match="closed|reset|pipe"),
        ):
            reader.read(pieces(1 << 30), consume)


def test_a_silent_server_is_given_up(folder: Path) -> None:
    delayed = ("--filter=delay", "pattern", "1M", "rdelay=2")
    with (
        nbdkit(folder, *delayed) as (address, _),
        open_reader(address, "", tuning=HASTY) as reader,
    ):
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"silent for 0\.3 seconds"):
            reader.read(pieces(MIB), lambda *_: None)
        assert time.monotonic() - began < 1.5


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


# -- replies that are wrong ----------------------------------------------------------------


def after_requests(reply: Callable[[Peer, Request], None]) -> Callable[[Peer], None]:
    def behave(peer: Peer) -> None:
        for request in peer.requests():
            reply(peer, request)

    return behave


def read_all(server: FakeServer, tuning: Tuning = ONE, size: int = MIB) -> bytes:
    got = Collected(size)
    with open_reader(server.address, "", tuning=tuning) as reader:
        reader.read(pieces(size, 65536), got)
    return bytes(got.data)


def test_replies_out_of_order_find_their_requests(fake: Fake) -> None:
    def behave(peer: Peer) -> None:
        held: list[Request] = []
        for request in peer.requests():
            held.append(request)
            if len(held) == 4:
                for one in reversed(held):
                    peer.simple(one.handle, bytes([one.offset >> 16]) * one.length)
                held.clear()

    data = read_all(fake(behave), Tuning(connections=1, reads=4))
    assert data == b"".join(bytes([block]) * 65536 for block in range(16))


def test_chunks_of_several_replies_may_mix(fake: Fake) -> None:
    """Second halves of all requests first, backwards; then first halves, some as holes."""

    def behave(peer: Peer) -> None:
        held: list[Request] = []
        for request in peer.requests():
            held.append(request)
            if len(held) < 4:
                continue
            for one in reversed(held):
                peer.data(one.handle, one.offset + 32768, b"\x22" * 32768)
            for one in held:
                if one.offset % 131072:
                    peer.hole(one.handle, one.offset, 32768, done=True)
                else:
                    peer.data(one.handle, one.offset, b"\x11" * 32768)
                    peer.chunk(one.handle, 0, done=True)
            held.clear()

    data = read_all(fake(behave), Tuning(connections=1, reads=4, structured=True))
    half = 32768
    block = b"\x11" * half + b"\x22" * half + bytes(half) + b"\x22" * half
    assert data == block * 8


WRONG: dict[str, Callable[[Peer, Request], None]] = {
    "wrong magic": lambda p, r: p.send(bytes(16)),
    "unknown handle": lambda p, r: p.simple(r.handle + 999, bytes(r.length)),
    "structured unasked": lambda p, r: p.data(r.handle, r.offset, bytes(r.length), done=True),
}


@pytest.mark.parametrize("reply", WRONG.values(), ids=WRONG.keys())
def test_wrong_simple_replies_are_violations(
    fake: Fake, reply: Callable[[Peer, Request], None]
) -> None:
    with pytest.raises(ProtocolViolation):
        read_all(fake(after_requests(reply)))


WRONG_CHUNKS: dict[str, Callable[[Peer, Request], None]] = {
    "too little": lambda p, r: p.data(r.handle, r.offset, bytes(r.length - 512), done=True),
    "a gap": lambda p, r: (
        p.data(r.handle, r.offset, bytes(512)),
        p.data(r.handle, r.offset + 1024, bytes(r.length - 1024), done=True),
    )[0],
    "twice": lambda p, r: (
        p.data(r.handle, r.offset, bytes(r.length)),
        p.hole(r.handle, r.offset, r.length, done=True),
    )[0],
    "the right sum, but doubled": lambda p, r: (
        p.data(r.handle, r.offset, bytes(r.length // 2)),
        p.data(r.handle, r.offset, bytes(r.length // 2), done=True),
    )[0],
    "past the end": lambda p, r: p.data(r.handle, r.offset + 512, bytes(r.length), done=True),
    "before the start": lambda p, r: p.hole(r.handle, max(0, r.offset - 512), r.length, done=True),
    "nothing": lambda p, r: p.chunk(r.handle, 0, done=True),
    "none but not done": lambda p, r: p.chunk(r.handle, 0),
    "unknown type": lambda p, r: p.chunk(r.handle, 77, bytes(8), done=True),
    "no room for an offset": lambda p, r: p.chunk(r.handle, 1, bytes(3), done=True),
    "an error cut short": lambda p, r: p.chunk(r.handle, 0x8001, bytes(3), done=True),
}


@pytest.mark.parametrize("reply", WRONG_CHUNKS.values(), ids=WRONG_CHUNKS.keys())
def test_chunks_that_do_not_cover_the_request_exactly_are_violations(
    fake: Fake, reply: Callable[[Peer, Request], None]
) -> None:
    with pytest.raises(ProtocolViolation):
        read_all(fake(after_requests(reply)), Tuning(connections=1, structured=True))


def test_an_error_chunk_names_the_offset(fake: Fake) -> None:
    def reply(peer: Peer, request: Request) -> None:
        body = struct.pack(">IH", 5, 4) + b"oops" + struct.pack(">Q", request.offset + 512)
        peer.chunk(request.handle, 0x8002, body, done=True)

    with pytest.raises(TransferFailed, match=r"offset 512 failed: .*EIO"):
        read_all(fake(after_requests(reply)), Tuning(connections=1, structured=True))


def test_a_reply_cut_short_is_a_lost_connection(fake: Fake) -> None:
    def behave(peer: Peer) -> None:
        request = next(peer.requests())
        peer.simple(request.handle, bytes(100))

    with pytest.raises(ConnectionLost, match="closed"):
        read_all(fake(behave))


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad", b"NBDMAGIC" + bytes(8)])
def test_what_is_no_nbd_server_is_noticed(fake: Fake, greeting: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="greet"):
        read_all(fake(lambda peer: None, greeting=greeting))


# -- maps ----------------------------------------------------------------------------------


def check_cover(ranges: list[Flagged], size: int) -> None:
    position = 0
    for start, end, _ in ranges:
        assert start == position
        assert end > start
        position = end
    assert position == size


def test_the_zero_map_tells_what_is_allocated(folder: Path) -> None:
    image = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8G")
    writes = ["write -P 1 1M 128k", "write -P 2 3G 64k", "write -z 4G 1M"]
    run("qemu-io", *(x for w in writes for x in ("-c", w)), image)
    with (
        QemuNbd().export(shared_chain([(image, "qcow2")])) as export,
        open_reader(export.address, export.name) as reader,
    ):
        ranges = list(reader.zero_map())
    check_cover(ranges, 8 << 30)
    data = [(start, end) for start, end, zero in ranges if not zero]
    assert data == [(MIB, MIB + 131072), (3 << 30, (3 << 30) + 65536)]


CONTEXTS = (ALLOCATION, "qemu:dirty-bitmap:b")


@contextmanager
def block_status(server: FakeServer, step: int = MIB) -> Iterator[BlockStatus]:
    with closing(Connection(server.address, "", contexts=CONTEXTS, timeout=5)) as connection:
        yield BlockStatus(connection, step)


@pytest.mark.parametrize("step", [4096, 65536, MIB])
def test_contexts_of_different_reach_are_trimmed_and_joined(fake: Fake, step: int) -> None:
    """Zeros are told in ranges of 24 KiB, far ahead; dirt in single blocks of 4 KiB."""
    asked: list[Request] = []

    def reply(peer: Peer, request: Request) -> None:
        asked.append(request)
        zeros = []
        position = request.offset
        while position < min(request.offset + 100_000, MIB):
            end = (position // 24576 + 1) * 24576
            zeros.append((end - position, 3 if position // 24576 % 2 else 0))
            position = end  # may reach beyond what was asked, even beyond the disk
        peer.status(request.handle, 1, *zeros, done=False)
        dirt = [(4096, int(request.offset // 4096 % 8 == 0))]
        peer.status(request.handle, 2, *dirt, done=True)

    with block_status(fake(after_requests(reply)), step) as status:
        extents = list(merge_maps(*(status.map(context) for context in CONTEXTS)))
        assert len(asked) == MIB // 4096, "both contexts, read side by side, cost one question"
        zeros, dirty = (list(status.map(context)) for context in CONTEXTS)
    for start, end, zero, dirt in extents:
        assert {x // 24576 % 2 == 1 for x in range(start, end, 4096)} == {zero}
        assert {x // 4096 % 8 == 0 for x in range(start, end, 4096)} == {dirt}
    for ranges in zeros, dirty:
        check_cover(ranges, MIB)
        same = [a for a, b in pairwise(ranges) if a.flag == b.flag]
        assert all(one.end % step == 0 for one in same), "neighbours are joined within a step"


WRONG_STATUS: dict[str, Callable[[Peer, Request], None]] = {
    "one context only": lambda p, r: p.status(r.handle, 1, (4096, 0), done=True),
    "an unknown context": lambda p, r: p.status(r.handle, 9, (4096, 0), done=True),
    "one context twice": lambda p, r: (
        p.status(r.handle, 1, (4096, 0), done=False),
        p.status(r.handle, 1, (4096, 0), done=True),
    )[0],
    "an extent of nothing": lambda p, r: p.status(r.handle, 1, (0, 0), done=False),
    "no extents": lambda p, r: p.status(r.handle, 1, done=False),
    "no context": lambda p, r: p.chunk(r.handle, 5, b"", done=True),
    "half an extent": lambda p, r: p.chunk(r.handle, 5, bytes(9), done=True),
    "data": lambda p, r: p.data(r.handle, 0, bytes(16), done=True),
    "another handle": lambda p, r: p.status(r.handle + 1, 1, (4096, 0), done=True),
}


@pytest.mark.parametrize("reply", WRONG_STATUS.values(), ids=WRONG_STATUS.keys())
def test_wrong_block_status_is_a_violation(
    fake: Fake, reply: Callable[[Peer, Request], None]
) -> None:
    with block_status(fake(after_requests(reply))) as status, pytest.raises(ProtocolViolation):
        list(status.map(ALLOCATION))


def test_an_error_of_block_status_is_told(fake: Fake) -> None:
    def reply(peer: Peer, request: Request) -> None:
        peer.chunk(request.handle, 0x8001, struct.pack(">IH", 5, 0), done=True)

    with (
        block_status(fake(after_requests(reply))) as status,
        pytest.raises(TransferFailed, match="block status at offset 0 .*EIO"),
    ):
        list(status.map(ALLOCATION))


# -- writing -------------------------------------------------------------------------------


def read_back(address: str, size: int) -> bytes:
    got = Collected(size)
    with open_reader(address, "") as reader:
        reader.read(pieces(size), got)
    return bytes(got.data)


def test_threads_write_side_by_side(folder: Path) -> None:
    size = 8 * MIB
    with nbdkit(folder, "memory", str(size)) as (address, _):
        with open_writer(address, "") as writer:
            assert writer.size == size

            def write(part: int) -> None:
                buffer = bytearray(4096)
                for offset in range(part * 4096, size, 4 * 4096):
                    buffer[:] = pattern(offset, 4096)
                    writer.write(offset, memoryview(buffer))
                    buffer[:] = bytes(4096)  # the memory is ours again on return

            threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert read_back(address, size) == pattern(0, size)


def test_long_writes_and_zeros_are_cut_and_arrive(folder: Path) -> None:
    size = 40 * MIB
    with nbdkit(folder, "memory", str(size)) as (address, _):
        with open_writer(address, "") as writer:
            writer.write(0, memoryview(pattern(0, size)))
            writer.flush()
            writer.zero(MIB - 512, 33 * MIB)
            writer.zero(5 * MIB, 0)
            writer.write(7, memoryview(b""))
        data = read_back(address, size)
    assert data == pattern(0, MIB - 512) + bytes(33 * MIB) + pattern(34 * MIB - 512, 6 * MIB + 512)


@pytest.mark.parametrize("call", ["write", "zero"])
def test_an_error_of_a_write_comes_at_the_flush_at_the_latest(folder: Path, call: str) -> None:
    kind = {"write": "pwrite", "zero": "zero"}[call]
    failing = ("--filter=error", "memory", "1M", f"error-{kind}=ENOSPC", f"error-{kind}-rate=100%")
    with (
        nbdkit(folder, *failing) as (address, _),
        pytest.raises(TransferFailed, match=r"offset 65536 .*ENOSPC"),
        open_writer(address, "") as writer,
    ):
        if call == "write":
            writer.write(65536, memoryview(bytes(512)))
        else:
            writer.zero(65536, 512)
        with pytest.raises(TransferFailed, match=r"offset 65536 .*ENOSPC"):
            writer.flush()
        with pytest.raises(TransferFailed, match="ENOSPC"):  # whoever goes on hears it again
            writer.write(0, memoryview(bytes(512)))


def test_the_end_of_the_context_flushes_and_raises_what_failed(folder: Path) -> None:
    failing = ("--filter=error", "memory", "1M", "error-pwrite=EIO", "error-pwrite-rate=100%")
    with (
        nbdkit(folder, *failing) as (address, _),
        pytest.raises(TransferFailed, match="Writing at offset 0 .*EIO"),
        open_writer(address, "") as writer,
    ):
        writer.write(0, memoryview(bytes(512)))


def test_without_multi_conn_one_connection_writes(fake: Fake) -> None:
    commands: list[int] = []

    def reply(peer: Peer, request: Request) -> None:
        commands.append(request.command)
        peer.simple(request.handle)

    server = fake(after_requests(reply))
    with open_writer(server.address, "") as writer:
        for offset in range(0, MIB, 65536):
            writer.write(offset, memoryview(bytes(65536)))
    assert server.connections == 1
    assert commands == [1] * 16 + [3]


def test_the_flush_comes_after_every_write_has_been_answered(fake: Fake) -> None:
    """On all connections: a flush covers only what is complete when it is sent."""
    lock = threading.Lock()
    answered = [0]
    at_flush: list[int] = []

    def reply(peer: Peer, request: Request) -> None:
        if request.command == 3:
            at_flush.append(answered[0])
        else:
            time.sleep(0.02)
        with lock:
            answered[0] += 1
            peer.simple(request.handle)

    multi = (1 << 8) | (1 << 6) | (1 << 2) | 1
    server = fake(after_requests(reply), features=multi)
    with open_writer(server.address, "") as writer:
        for offset in range(0, MIB, 131072):
            writer.write(offset, memoryview(bytes(131072)))
    assert server.connections == 2
    assert at_flush == [8]


def test_a_writer_gives_up_a_silent_server(fake: Fake) -> None:
    server = fake(after_requests(lambda peer, request: None))
    with (
        pytest.raises(ConnectionLost, match="silent"),
        open_writer(server.address, "", tuning=HASTY) as writer,
    ):
        for offset in range(0, MIB, 65536):
            writer.write(offset, memoryview(bytes(65536)))


def test_a_read_only_export_is_refused_for_writing(folder: Path) -> None:
    with (
        nbdkit(folder, "-r", "memory", "1M") as (address, _),
        pytest.raises(ProtocolViolation, match="cannot be written"),
        open_writer(address, ""),
    ):
        pass
