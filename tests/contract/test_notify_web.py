"""Web hooks and pings, against a real server."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from tests.support.web import Web, web
from vm_babysitter.adapters.notify.health import HealthPinger
from vm_babysitter.adapters.notify.webhook import WebhookChannel
from vm_babysitter.domain.errors import NotifyFailed, NotifyRefused
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.message import Policy, single

NOW = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
EVENT = Event(NOW, "job-failed", Severity.ALERT, "Backup of 猫 failed", "Full.", "u", "猫", 7, "c")
MESSAGE = single(EVENT, Policy())
Send = Callable[[str, float], None]


def hook(url: str, within: float) -> None:
    WebhookChannel(url).send(MESSAGE, within)


def ping(url: str, within: float) -> None:
    HealthPinger(url).ping("fail", "text", within)


both = pytest.mark.parametrize("send", [hook, ping])


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as made:
        yield made


def test_a_hook_is_posted_the_message_as_json(server: Web) -> None:
    WebhookChannel(f"{server.url}/in?token=x").send(MESSAGE, 10)
    ((method, path, kind, body),) = server.asked
    assert (method, path, kind) == ("POST", "/in?token=x", "application/json")
    document = json.loads(body)
    assert document == {
        "key": MESSAGE.key,
        "at": "2026-11-24T02:15:00Z",
        "severity": "alert",
        "subject": "Backup of 猫 failed",
        "text": "Full.",
        "details": MESSAGE.details,
        "vm": "猫",
        "link": "/Settings/VMBabysitter",
        "events": [
            {
                "at": "2026-11-24T02:15:00Z",
                "kind": "job-failed",
                "severity": "alert",
                "vm": "猫",
                "uuid": "u",
                "job": 7,
                "subject": "Backup of 猫 failed",
                "text": "Full.",
                "code": "c",
            }
        ],
    }
    assert not WebhookChannel(server.url).was_sent(MESSAGE)


def test_pings_go_where_such_services_want_them(server: Web) -> None:
    pinger = HealthPinger(f"{server.url}/ping/uuid/?rid=1")
    for what in ("start", "success", "fail"):
        pinger.ping(what, "backup of 猫: failed", 10)
    assert server.asked == [
        ("GET", "/ping/uuid/start?rid=1", "", b""),
        ("GET", "/ping/uuid?rid=1", "", b""),
        ("POST", "/ping/uuid/fail?rid=1", "text/plain", "backup of 猫: failed".encode()),
    ]


@both
@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_success_will_do(server: Web, send: Send, status: int) -> None:
    server.status = status
    send(server.url, 10)


@both
@pytest.mark.parametrize(
    ("status", "transient"),
    [(500, True), (503, True), (429, True), (408, True), (404, False), (401, False), (302, False)],
)
def test_what_is_refused(server: Web, send: Send, status: int, transient: bool) -> None:
    server.status, server.location = status, f"{server.url}/elsewhere"
    with pytest.raises(NotifyFailed, match=f"127.0.0.1 answers {status}") as caught:
        send(f"{server.url}/in?token=hidden", 10)
    assert caught.value.transient is transient
    assert "hidden" not in str(caught.value)
    assert len(server.asked) == 1  # no redirect was followed


@both
def test_a_server_that_does_not_answer_is_given_up_in_time(server: Web, send: Send) -> None:
    server.wait = 600
    begun = time.monotonic()
    with pytest.raises(NotifyFailed, match="does not answer within") as caught:
        send(f"{server.url}/?token=hidden", 0.5)
    assert time.monotonic() - begun < 10
    assert caught.value.transient
    assert "hidden" not in str(caught.value)


@both
def test_an_answer_that_never_ends_is_not_waited_for(server: Web, send: Send) -> None:
    server.trickle = True
    begun = time.monotonic()
    send(server.url, 10)
    assert time.monotonic() - begun < 8


@both
def test_a_server_that_is_always_about_to_answer_is_given_up_in_time(
    server: Web, send: Send
) -> None:
    server.drip = 0.1
    begun = time.monotonic()
    with pytest.raises(NotifyFailed, match="does not answer within") as caught:
        send(server.url, 0.5)
    assert time.monotonic() - begun < 10
    assert caught.value.transient


@both
def test_where_nobody_listens(send: Send) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/?token=hidden"
        with pytest.raises(NotifyFailed, match="cannot be reached") as caught:
            send(url, 5)
    assert caught.value.transient
    assert "hidden" not in str(caught.value)


@both
def test_a_server_without_the_encryption_that_is_asked_for(server: Web, send: Send) -> None:
    with pytest.raises(NotifyFailed):
        send(server.url.replace("http:", "https:"), 5)


@both
@pytest.mark.parametrize("url", ["nowhere", "http://", "ftp://x/y", "http://[x/"])
def test_what_is_no_web_address_is_refused(send: Send, url: str) -> None:
    with pytest.raises(NotifyRefused):
        send(url, 5)
