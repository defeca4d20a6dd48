"""The API on a real socket: who may connect, and that no client harms it or the others."""

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from waitress import wasyncore
from waitress.adjustments import Adjustments

from tests.support.fakes.services import NAME, FakeServices
from tests.support.served import QUICK, connect, eventually, read_all, served, short_folder
from vm_babysitter.api.app import create_app
from vm_babysitter.api.connections import Bounds, PeerServer
from vm_babysitter.api.server import ApiServer
from vm_babysitter.domain.errors import Busy, InvalidInput
from vm_babysitter.lib.unixhttp import Response, Unreachable, request, request_json

STATUS = "/api/v1/status"
GET = f"GET {STATUS} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
MIB = 1 << 20


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> FakeServices:
    return FakeServices.around(tmp_path_factory.mktemp("store"))


@pytest.fixture
def services(shown: FakeServices) -> FakeServices:
    return shown.anew()


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "run" / "api.socket"


@pytest.fixture
def server(services: FakeServices, path: Path) -> Iterator[ApiServer]:
    with served(create_app(services), path) as server:
        yield server


def fine(path: Path) -> None:
    """Judge that the next client is served, and soon."""
    began = time.monotonic()
    answer = request(path, "GET", STATUS, timeout=5)
    assert answer.status == 200
    assert time.monotonic() - began < 5


def problem(raw: bytes) -> tuple[int, str]:
    """Return status and code of a problem that came as the only answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    return int(head.split()[1]), str(json.loads(body)["code"])


# --- who may connect


@pytest.mark.usefixtures("server")
def test_socket_and_folder_are_for_root_only(path: Path) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["api.socket", "api.socket.lock"]
    fine(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_refused_whatever_the_modes_say(
    server: ApiServer, services: FakeServices, path: Path
) -> None:
    path.parent.parent.chmod(0o755)
    program = f"""
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
try:
    s.connect({str(path)!r})
    s.sendall({GET!r})
except PermissionError:
    print("locked out")
except BrokenPipeError:
    pass
found = b""
try:
    while piece := s.recv(9999):
        found += piece
except OSError:
    pass
print(found.decode())
"""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command += ["/usr/bin/python3", "-c", program]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "locked out" in first.stdout
    path.parent.chmod(0o755)
    path.chmod(0o666)
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "HTTP/1.1 403 Forbidden" in second.stdout
    assert problem(second.stdout.replace("\n\n", "\r\n\r\n", 1).encode())[1] == "forbidden"
    assert services.asked == []
    assert server.alive
    fine(path)


# --- many, slow and rude clients


@pytest.mark.usefixtures("server")
def test_fifty_clients_at_a_time_are_all_answered(services: FakeServices, path: Path) -> None:
    paths = ["/status", "/vms", f"/vms/{quote(NAME)}/plan", "/points", "/jobs", "/openapi.json"]
    start = threading.Barrier(50)

    def client(number: int) -> list[Response]:
        start.wait()
        order = {"kind": "backup", "vm": NAME, "options": {"full": bool(number % 2)}}
        posted = request_json(path, "POST", "/api/v1/jobs", order)
        return [posted, *(request(path, "GET", f"/api/v1{p}") for p in paths)]

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(client, range(50)))
    assert {answer.status for answers in found for answer in answers[1:]} == {200}
    assert {answers[0].status for answers in found} == {202}
    assert len(services.taken) == 50


@pytest.mark.parametrize("half", [b"", b"G", GET[:-2], GET[:-1], b"POST /api/v1/jobs HTTP/1.1\r\n"
    b"Content-Length: 9\r\nContent-Type: application/json\r\n\r\n{"])  # fmt: skip
@pytest.mark.usefixtures("server")
def test_half_a_request_holds_nobody_up_and_is_ended(path: Path, half: bytes) -> None:
    waiting = [connect(path) for _ in range(20)]
    for connection in waiting:
        connection.sendall(half)
    fine(path)
    began = time.monotonic()
    assert [read_all(connection) for connection in waiting] == [b""] * 20
    assert time.monotonic() - began < 6
    for connection in waiting:
        connection.close()


@pytest.mark.usefixtures("server")
def test_a_request_that_trickles_in_is_ended(path: Path) -> None:
    with connect(path) as slow:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 10:
                slow.send(b"G")
                time.sleep(0.1)
        assert time.monotonic() - began < 5


@pytest.mark.usefixtures("server")
def test_more_connections_than_there_may_be_only_wait(path: Path) -> None:
    many = [connect(path) for _ in range(QUICK.connections + 40)]
    began = time.monotonic()
    answer = request(path, "GET", STATUS, timeout=20)
    assert answer.status == 200
    assert time.monotonic() - began < 15
    for connection in many:
        connection.close()
    fine(path)


@pytest.mark.usefixtures("server")
def test_who_reads_no_answers_holds_nobody_up(services: FakeServices, path: Path) -> None:
    services.log = b"x" * MIB
    request_json(path, "POST", "/api/v1/jobs", {"kind": "backup", "vm": NAME})
    log = b"GET /api/v1/jobs/1/log?limit=1048576 HTTP/1.1\r\nHost: x\r\n\r\n"
    deaf = [connect(path) for _ in range(8)]
    for connection in deaf:
        connection.sendall(log * 30)
    for _ in range(5):
        fine(path)
    eventually(lambda: all(_hung_up(connection) for connection in deaf), 20)
    for connection in deaf:
        connection.close()
    fine(path)


def _hung_up(connection: socket.socket) -> bool:
    """Whether the server has closed; nothing is read."""
    try:
        connection.send(b"x", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.usefixtures("server")
def test_a_body_of_100_mb_is_refused_and_not_kept(
    services: FakeServices, path: Path, chunked: bool
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (100 * MIB)
    head = b"POST /api/v1/jobs HTTP/1.1\r\nContent-Type: application/json\r\n" + length
    piece = b"x" * 65536
    part = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    sent = 0
    with connect(path) as client:
        client.sendall(head + b"\r\n\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100 * MIB:
                sent += client.send(part) if not chunked else _all(client, part)
        assert problem(read_all(client)) == (413, "request-entity-too-large")
    assert sent < 3 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB
    assert services.asked == []
    fine(path)


def _all(client: socket.socket, part: bytes) -> int:
    client.sendall(part)
    return len(part)


@pytest.mark.usefixtures("server")
def test_our_client_gets_the_answer_to_a_body_that_is_too_large(path: Path) -> None:
    for size in (MIB + 1, 30 * MIB):
        headers = {"Content-Type": "application/json"}
        answer = request(path, "POST", "/api/v1/settings/check", b" " * size, headers)
        assert (answer.status, answer.json()["code"]) == (413, "request-entity-too-large")
    largest = b"{}" + b" " * (MIB - 2)
    answer = request(path, "POST", "/api/v1/settings/check", largest, headers)
    assert (answer.status, answer.json()) == (200, {"errors": [], "notes": []})


NONSENSE = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "zeros": bytes(5000) + b"\r\n\r\n",
    "bad version": b"GET / HTTP/9.9\r\n\r\n",
    "header without a colon": b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
    "header too long": b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    "path too long": b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length in words": b"POST / HTTP/1.1\r\nContent-Length: nine\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "long length": b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n",
    "both": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "unknown encoding": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "endless chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "garbage after a request": GET + b"\xff\xfe garbage \r\n\r\n" + GET,
    "a proxy's request": b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    "an absolute address": b"GET http://[::1/x HTTP/1.1\r\n\r\n",
    "a path with zeros": b"GET /api/v1/vms/%00%ff%2e%2e%2f HTTP/1.1\r\nConnection: close\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("raw", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_and_the_next_client_served(
    server: ApiServer, services: FakeServices, path: Path, raw: bytes
) -> None:
    with connect(path) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(raw)
        found = read_all(client)
    statuses = [int(part.split()[0]) for part in found.split(b"HTTP/1.")[1:] for part in [part[2:]]]
    wanted = [200] if raw.startswith(GET) else []
    assert statuses[: len(wanted)] == wanted
    assert all(400 <= status < 600 and status != 500 for status in statuses[len(wanted) :])
    assert len(services.asked) <= 1
    assert server.alive
    fine(path)


@pytest.mark.usefixtures("server")
def test_requests_that_come_at_once_are_answered_in_turn(path: Path) -> None:
    with connect(path) as client:
        last = GET.replace(b"Host: x", b"Connection: close")
        client.sendall(GET * 200 + last)
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 201


class Closer(wasyncore.dispatcher):  # type: ignore[misc]
    """Closes a channel in the middle of a round of the loop, as a thread may that answers."""

    def __init__(self, sock: socket.socket, map_: dict[int, object]) -> None:
        super().__init__(sock, map_)
        self.connected = True
        self.channel: Any = None

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(1)
        self.channel.handle_close()


def test_a_connection_with_the_number_of_one_that_was_just_closed_is_kept(path: Path) -> None:
    round_of_events: dict[int, Any] = {}
    listening = socket.socket(socket.AF_UNIX)
    ours, other = socket.socketpair()
    closer = Closer(ours, round_of_events)  # the first that is looked at
    path.parent.mkdir(exist_ok=True)
    listening.bind(str(path))
    server = PeerServer(
        lambda *_: [],
        map=round_of_events,
        _sock=listening,
        adj=Adjustments(unix_socket=str(path)),
        users={os.getuid()},
        request_seconds=9.0,
        bind_socket=False,
    )
    with closing(listening), closing(other), closing(closer), connect(path) as first:
        for _ in range(5):
            wasyncore.poll2(0.1, round_of_events)
        (closer.channel,) = server.active_channels.values()
        number = closer.channel.socket.fileno()
        first.close()
        other.send(b"x")
        with connect(path):
            for _ in range(5):
                wasyncore.poll2(0.1, round_of_events)
            (second,) = server.active_channels.values()
            assert second.socket.fileno() == number
            assert second.connected
            second.handle_close()
    server.task_dispatcher.shutdown()
    server.trigger.close()


@pytest.mark.usefixtures("server")
def test_clients_that_leave_are_not_missed(services: FakeServices, path: Path) -> None:
    services.gate = threading.Event()
    for _ in range(30):
        with connect(path) as client:
            client.sendall(GET)
    services.gate.set()
    services.gate = None
    fine(path)


# --- whose socket it is


def start_child(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.served", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "serves\n"
    return child


def test_a_socket_that_a_killed_daemon_left_is_taken_over(
    services: FakeServices, path: Path
) -> None:
    child = start_child(path)
    with pytest.raises(Busy):
        ApiServer(create_app(services), path).start()
    assert request(path, "GET", "/").status == 404, "it still serves"
    child.kill()
    child.communicate()
    assert path.is_socket()
    with pytest.raises(Unreachable):
        request(path, "GET", STATUS)
    with served(create_app(services), path):
        fine(path)
    assert [p.name for p in path.parent.iterdir()] == ["api.socket.lock"]


@pytest.mark.usefixtures("server")
def test_a_second_server_leaves_the_first_alone(services: FakeServices, path: Path) -> None:
    before = path.stat()
    second = ApiServer(create_app(services), path)
    with pytest.raises(Busy, match="another daemon serves there"):
        second.start()
    second.stop()
    assert path.stat().st_ino == before.st_ino
    fine(path)


def test_whoever_listens_without_the_lock_keeps_the_socket(
    services: FakeServices, path: Path
) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen(1)
        for _ in range(3):  # the third finds a full queue
            with pytest.raises(Busy, match=r"somebody (answers|has it)"):
                ApiServer(create_app(services), path).start()
        assert path.is_socket()
    with served(create_app(services), path):
        fine(path)


def test_a_server_does_not_take_away_what_is_not_its_own(
    services: FakeServices, path: Path
) -> None:
    with served(create_app(services), path):
        path.unlink()
        path.write_text("not a socket")
    assert path.read_text() == "not a socket"
    with pytest.raises(InvalidInput, match="is no socket"):
        ApiServer(create_app(services), path).start()
    assert path.read_text() == "not a socket"


def test_a_folder_that_others_could_reach_into_is_refused(
    services: FakeServices, path: Path
) -> None:
    app = create_app(services)
    folder = path.parent
    target = folder.with_name("elsewhere")
    target.mkdir()
    folder.symlink_to(target)
    with pytest.raises(InvalidInput, match="is not a folder of its own"):
        ApiServer(app, path).start()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(InvalidInput, match="everybody shares"):
        ApiServer(app, path).start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777, "/tmp, say, stays as it is"
    if os.geteuid() == 0:
        folder.chmod(0o755)
        os.chown(folder, 65534, 65534)
        with pytest.raises(InvalidInput, match="another user"):
            ApiServer(app, path).start()
        os.chown(folder, 0, 0)
    folder.chmod(0o755)
    (folder / "somebody's").touch()
    with pytest.raises(InvalidInput, match="with other things in it"):
        ApiServer(app, path).start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755, "/run, say, stays as it is"
    (folder / "somebody's").unlink()
    with served(app, path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_place_of_one_of_our_files_is_not_followed(
    services: FakeServices, path: Path
) -> None:
    path.parent.mkdir()
    precious = path.parent.with_name("precious")
    precious.write_text("x")
    for name, wrong in (("api.socket", InvalidInput), ("api.socket.lock", OSError)):
        link = path.with_name(name)
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        with pytest.raises(wrong):
            ApiServer(create_app(services), path).start()
        link.unlink()
    path.with_name(".api.socket.new").symlink_to(precious)
    with served(create_app(services), path):
        fine(path)
    assert precious.read_text() == "x"


def test_a_path_longer_than_sockets_have_works(services: FakeServices) -> None:
    with short_folder() as folder:
        path = folder / ("d" * 100) / "api.socket"
        with served(create_app(services), path):
            fine(path)


# --- the end


def test_what_is_being_served_is_finished_and_nobody_new_accepted(
    services: FakeServices, path: Path
) -> None:
    services.gate = threading.Event()
    with served(create_app(services), path) as server:
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(request, path, "GET", STATUS)
            eventually(lambda: services.asked == [("status",)])
            ending = pool.submit(server.stop)
            time.sleep(0.3)
            services.gate.set()
            assert answer.result().status == 200
            ending.result()
        assert not path.exists()
        assert not server.alive
        with pytest.raises(Unreachable):
            request(path, "GET", STATUS)


def test_what_hangs_does_not_keep_the_end_waiting(services: FakeServices, path: Path) -> None:
    services.gate = threading.Event()
    server = ApiServer(create_app(services), path, QUICK)
    server.start()
    hanging = [connect(path) for _ in range(10)]
    for connection in hanging:
        connection.sendall(GET)
    eventually(lambda: len(services.asked) == QUICK.threads)
    began = time.monotonic()
    server.stop(timeout=1.0)
    assert time.monotonic() - began < 4
    assert not path.exists()
    services.gate.set()
    for connection in hanging:
        connection.close()
    with served(create_app(services), path):
        fine(path)


def test_a_server_that_was_stopped_can_be_followed_by_another_at_once(
    services: FakeServices, path: Path
) -> None:
    for _ in range(5):
        with served(create_app(services), path, Bounds()):
            fine(path)
