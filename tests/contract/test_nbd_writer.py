"""Write with our NBD client."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nbd_reading import MIB, Collected, pattern, pieces
from tests.support.nbd_server import (
    Fake,
    Peer,
    Request,
    after_requests,
    nbdkit,
)
from vm_babysitter.adapters.qemu.nbd import DEFAULT, Tuning, open_reader, open_writer
from vm_babysitter.adapters.qemu.nbd_writer import NbdWriter
from vm_babysitter.domain.errors import (
    ConnectionLost,
    ProtocolViolation,
    TransferFailed,
)

HASTY = Tuning(timeout=0.3)


def with_writer(address: str, use: Callable[[NbdWriter], None], tuning: Tuning = DEFAULT) -> None:
    with open_writer(address, "", tuning=tuning) as writer:
        use(writer)


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
    heard: list[TransferFailed] = []

    def use(writer: NbdWriter) -> None:
        if call == "write":
            writer.write(65536, memoryview(bytes(512)))
        else:
            writer.zero(65536, 512)
        with pytest.raises(TransferFailed) as at_flush:
            writer.flush()
        with pytest.raises(TransferFailed) as later:  # whoever goes on hears it again
            writer.write(0, memoryview(bytes(512)))
        heard.extend([at_flush.value, later.value])

    with nbdkit(folder, *failing) as (address, _), pytest.raises(TransferFailed) as at_end:
        with_writer(address, use)
    heard.append(at_end.value)
    assert [(error.offset, error.reason[-8:]) for error in heard] == [(65536, "(ENOSPC)")] * 3


def test_the_end_of_the_context_flushes_and_raises_what_failed(folder: Path) -> None:
    failing = ("--filter=error", "memory", "1M", "error-pwrite=EIO", "error-pwrite-rate=100%")
    with (
        nbdkit(folder, *failing) as (address, _),
        pytest.raises(TransferFailed, match=r"Writing at offset 0 .*EIO"),
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

    def use(writer: NbdWriter) -> None:
        for offset in range(0, MIB, 65536):
            writer.write(offset, memoryview(bytes(65536)))

    with pytest.raises(ConnectionLost, match="silent"):
        with_writer(server.address, use, HASTY)


def test_a_server_that_is_slow_to_take_the_data_gets_all_of_it(fake: Fake) -> None:
    """It stops in the middle of a request for longer than the time-out, then goes on."""
    data = pattern(0, MIB)
    taken: list[bytes] = []

    def behave(peer: Peer) -> None:
        time.sleep(1.5)
        for request in peer.requests():
            taken.append(request.data)
            peer.simple(request.handle)

    with open_writer(fake(behave).address, "", tuning=Tuning(timeout=1)) as writer:
        writer.write(0, memoryview(data))
    assert taken == [data, b""]


def test_a_read_only_export_is_refused_for_writing(folder: Path) -> None:
    with (
        nbdkit(folder, "-r", "memory", "1M") as (address, _),
        pytest.raises(ProtocolViolation, match="cannot be written"),
        open_writer(address, ""),
    ):
        pass
