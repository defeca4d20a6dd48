"""Web pages are told what goes on: soon, seldom, and never at a job's expense."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from tests.support.nginx import nginx
from tests.support.served import eventually, served, short_folder
from vm_babysitter.adapters.unraid.nchan import NchanPublisher, send_to_nginx
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import Job, JobKind, JobRequest, JobState
from vm_babysitter.lib.unixhttp import request as ask
from vm_babysitter.ports import Publisher

AT = datetime(2026, 11, 24, tzinfo=UTC)
JOB = Job(7, JobRequest(JobKind.BACKUP, "u", "a \udc80 猫"), JobState.RUNNING, AT, step="copy")
EVENT = Event(AT, "job-failed", Severity.ALERT, "Failed", "It failed.")


class Pages:
    """What pages are told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.failing = False
        self.gate = threading.Event()
        self.gate.set()

    def send(self, message: bytes) -> None:
        self.gate.wait(20)
        if self.failing:
            raise OSError("nginx is down")
        self.told.append(json.loads(message))


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def publisher(pages: Pages) -> Iterator[NchanPublisher]:
    publisher = NchanPublisher(pages.send, every=0.2)
    yield publisher
    pages.gate.set()
    publisher.stop()


def test_it_is_a_publisher(publisher: NchanPublisher) -> None:
    found: Publisher = publisher
    assert found


def test_jobs_and_events_are_told_in_short(publisher: NchanPublisher, pages: Pages) -> None:
    publisher.job(JOB)
    publisher.event(EVENT)
    eventually(lambda: len(pages.told) == 2)
    job, event = pages.told[0]["job"], pages.told[1]["event"]
    assert (job["id"], job["state"], job["step"], job["vm"]) == (
        7,
        "running",
        "copy",
        "a \ufffd 猫",
    )
    assert (event["kind"], event["subject"], event["job"]) == ("job-failed", "Failed", None)


def test_progress_is_told_seldom_and_the_last_of_it_always(
    publisher: NchanPublisher, pages: Pages
) -> None:
    began = time.monotonic()
    for done in range(20_000):
        publisher.job(replace(JOB, done_bytes=done))
        publisher.job(replace(JOB, id=8, done_bytes=done))
    took = time.monotonic() - began
    eventually(lambda: {m["job"]["id"] for m in pages.told[-2:]} == {7, 8})
    eventually(lambda: [m["job"]["done_bytes"] for m in pages.told[-2:]] == [19_999] * 2)
    assert len(pages.told) <= 2 * (took / 0.2 + 3)


def test_nobody_waits_for_nginx(publisher: NchanPublisher, pages: Pages) -> None:
    pages.gate.clear()
    began = time.monotonic()
    for number in range(1000):
        publisher.job(replace(JOB, id=number % 3))
        publisher.event(replace(EVENT, subject=str(number)))
    assert time.monotonic() - began < 2
    pages.gate.set()
    eventually(lambda: pages.told[-1:] != [] and "event" in pages.told[-1])
    eventually(lambda: pages.told[-1]["event"]["subject"] == "999")
    assert len(pages.told) < 60, "what nobody could be told is dropped"


def test_failures_are_silent_and_it_goes_on_afterwards(
    publisher: NchanPublisher, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    pages.failing = True
    for number in range(3):
        publisher.job(replace(JOB, done_bytes=number))
        time.sleep(0.25)
    assert caplog.records == []
    pages.failing = False
    publisher.job(JOB)
    eventually(lambda: pages.told != [])


def test_what_waits_is_told_before_the_end(pages: Pages) -> None:
    publisher = NchanPublisher(pages.send, every=60)
    publisher.job(JOB)
    eventually(lambda: pages.told != [])
    publisher.job(replace(JOB, state=JobState.DONE))
    publisher.stop()
    assert pages.told[-1]["job"]["state"] == "done"


def test_nginx_gets_a_post_on_the_channel() -> None:
    app = Flask("nginx")
    got: list[tuple[str, bytes]] = []

    @app.post("/pub/vm-babysitter")
    def publish() -> str:
        got.append((request.full_path, request.get_data()))
        return ""

    with short_folder() as folder:
        path = folder / "run" / "nginx.socket"
        send = partial(send_to_nginx, path=path)
        with pytest.raises(OSError, match="No such file"):
            send(b"x")
        with served(app, path):
            send(b'{"job":{}}')
        with served(Flask("another"), path), pytest.raises(OSError, match="answers 404"):
            send(b"x")
    assert got == [("/pub/vm-babysitter?buffer_length=1", b'{"job":{}}')]


def test_without_nginx_nothing_happens(tmp_path: Path) -> None:
    publisher = NchanPublisher(partial(send_to_nginx, path=tmp_path / "none"), every=0.01)
    publisher.job(JOB)
    publisher.event(EVENT)
    publisher.stop()


def test_a_page_hears_of_it_through_a_real_nginx() -> None:
    with short_folder() as folder, nginx(folder) as server:
        publisher = NchanPublisher(partial(send_to_nginx, path=server.publishers), every=0.05)
        publisher.job(JOB)
        heard = ask(server.pages, "GET", "/sub/vm-babysitter", timeout=20)
        publisher.stop()
    assert heard.status == 200
    told = json.loads(heard.body)["job"]
    assert (told["id"], told["step"], told["vm"]) == (7, "copy", "a \N{REPLACEMENT CHARACTER} 猫")
