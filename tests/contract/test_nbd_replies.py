"""Our NBD client and a server that replies in odd and in wrong ways."""

import struct
from collections.abc import Callable

import pytest

from tests.support.nbd_reading import MIB, Collected, pieces
from tests.support.nbd_server import (
    Fake,
    FakeServer,
    Peer,
    Request,
    after_requests,
)
from vm_babysitter.adapters.qemu.nbd import Tuning, open_reader
from vm_babysitter.domain.errors import (
    ConnectionLost,
    ProtocolViolation,
    TransferFailed,
)

ONE = Tuning(connections=1)


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
                if one.offset // 65536 % 3 == 1:
                    peer.hole(one.handle, one.offset, 32768, done=True)
                else:
                    peer.data(one.handle, one.offset, b"\x11" * 32768)
                    peer.chunk(one.handle, 0, done=True)
            held.clear()

    data = read_all(fake(behave), Tuning(connections=1, reads=4, structured=True))
    half = 32768
    for block in range(16):  # the memory of one request is used again for another
        first = bytes(half) if block % 3 == 1 else b"\x11" * half
        assert data[block * 65536 : (block + 1) * 65536] == first + b"\x22" * half


WRONG: dict[str, Callable[[Peer, Request], object]] = {
    "wrong magic": lambda p, r: p.send(bytes(16)),
    "unknown handle": lambda p, r: p.simple(r.handle + 999, bytes(r.length)),
    "structured unasked": lambda p, r: p.data(r.handle, r.offset, bytes(r.length), done=True),
}


@pytest.mark.parametrize("reply", WRONG.values(), ids=WRONG.keys())
def test_wrong_simple_replies_are_violations(
    fake: Fake, reply: Callable[[Peer, Request], object]
) -> None:
    with pytest.raises(ProtocolViolation):
        read_all(fake(after_requests(reply)))


WRONG_CHUNKS: dict[str, Callable[[Peer, Request], object]] = {
    "too little": lambda p, r: p.data(r.handle, r.offset, bytes(r.length - 512), done=True),
    "a gap": lambda p, r: p.data(r.handle, r.offset, bytes(512)).data(
        r.handle, r.offset + 1024, bytes(r.length - 1024), done=True
    ),
    "twice": lambda p, r: p.data(r.handle, r.offset, bytes(r.length)).hole(
        r.handle, r.offset, r.length, done=True
    ),
    "the right sum, but doubled": lambda p, r: p.data(
        r.handle, r.offset, bytes(r.length // 2)
    ).data(r.handle, r.offset, bytes(r.length // 2), done=True),
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
    fake: Fake, reply: Callable[[Peer, Request], object]
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
