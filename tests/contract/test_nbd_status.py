"""The maps that our NBD client streams."""

import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.nbd_reading import MIB
from tests.support.nbd_server import (
    Fake,
    FakeServer,
    Peer,
    Request,
    after_requests,
)
from tests.support.qemu_img import run
from vm_babysitter.adapters.qemu.nbd import open_reader
from vm_babysitter.adapters.qemu.nbd_connection import Connection
from vm_babysitter.adapters.qemu.nbd_protocol import ALLOCATION
from vm_babysitter.adapters.qemu.nbd_status import BlockStatus
from vm_babysitter.adapters.qemu.nodes import shared_chain
from vm_babysitter.adapters.qemu.qemu_nbd import QemuNbd
from vm_babysitter.domain.blocks import Flagged, merge_maps
from vm_babysitter.domain.errors import (
    ProtocolViolation,
    TransferFailed,
)


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
            zeros.append((end - position, 2 if position // 24576 % 2 else 1))
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


def test_what_reaches_beyond_the_question_is_cut(fake: Fake) -> None:
    def reply(peer: Peer, request: Request) -> None:
        peer.status(request.handle, 1, (3 * MIB, 2), done=False)
        peer.status(request.handle, 2, (3 * MIB, 1), done=True)

    with block_status(fake(after_requests(reply)), 4096 * 3) as status:
        for context in CONTEXTS:
            check_cover(list(status.map(context)), MIB)


WRONG_STATUS: dict[str, Callable[[Peer, Request], object]] = {
    "one context only": lambda p, r: p.status(r.handle, 1, (4096, 0), done=True),
    "an unknown context": lambda p, r: p.status(r.handle, 9, (4096, 0), done=True),
    "one context twice": lambda p, r: p.status(r.handle, 1, (4096, 0), done=False).status(
        r.handle, 1, (4096, 0), done=True
    ),
    "an extent of nothing": lambda p, r: p.status(r.handle, 1, (0, 0), done=False),
    "no extents": lambda p, r: p.status(r.handle, 1, done=False),
    "no context": lambda p, r: p.chunk(r.handle, 5, b"", done=True),
    "half an extent": lambda p, r: p.chunk(r.handle, 5, bytes(9), done=True),
    "data": lambda p, r: p.data(r.handle, 0, bytes(16), done=True),
    "another handle": lambda p, r: p.status(r.handle + 1, 1, (4096, 0), done=True),
}


@pytest.mark.parametrize("reply", WRONG_STATUS.values(), ids=WRONG_STATUS.keys())
def test_wrong_block_status_is_a_violation(
    fake: Fake, reply: Callable[[Peer, Request], object]
) -> None:
    with block_status(fake(after_requests(reply))) as status, pytest.raises(ProtocolViolation):
        list(status.map(ALLOCATION))


def test_an_error_of_block_status_is_told(fake: Fake) -> None:
    def reply(peer: Peer, request: Request) -> None:
        peer.chunk(request.handle, 0x8001, struct.pack(">IH", 5, 0), done=True)

    with (
        block_status(fake(after_requests(reply))) as status,
        pytest.raises(TransferFailed, match=r"block status at offset 0 .*EIO"),
    ):
        list(status.map(ALLOCATION))
