"""Users are told by the ways that the settings name, and can try them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_stage import DaemonStage
from tests.support.fakes.channel import FakeChannel
from tests.support.jobs import eventually
from tests.support.settings import STORE
from vm_babysitter.domain.errors import InvalidInput, NotifyFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.job import JobKind
from vm_babysitter.service.notifier import Ways
from vm_babysitter.views import PartState

Make = Callable[..., DaemonStage]


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def make(ram_path: Path, channel: FakeChannel) -> Iterator[Make]:
    made: list[DaemonStage] = []

    def new(**notify: Any) -> DaemonStage:
        sections = {"store": {"path": STORE}, "notify": notify}
        made.append(DaemonStage(ram_path, sections, ways=Ways(channel, lambda _: channel)))
        for teller in made[-1].daemon.notifier._tellers.values():
            teller.window = 0.01
        return made[-1]

    yield new
    if channel.gate is not None:
        channel.gate.set()
    made[-1].daemon.stop(10.0)


def test_what_happens_is_told(make: Make, channel: FakeChannel) -> None:
    stage = make()
    daemon = stage.start()
    daemon.tell(Event(stage.clock.now(), "x", Severity.ALERT, "a"))
    eventually(lambda: channel.told() == ["a"])
    assert [event.subject for event in stage.listener.events] == ["a"]


def test_a_channel_that_fails_fails_no_job_and_is_told_of(make: Make, channel: FakeChannel) -> None:
    channel.error = NotifyFailed("unraid", "no paper")
    stage = make(success="each")
    daemon = stage.start()
    job = stage.services.submit(JobKind.BACKUP, "house", {})
    stage.works.wait_for("house")
    stage.works.end("house")
    eventually(lambda: stage.services.job(job.id).state == "done")
    eventually(lambda: channel.asked)
    eventually(lambda: list(daemon.notifier.troubles()))
    (part,) = [p for p in stage.services.system().parts if p.name == "notifications"]
    assert part.state is PartState.WARNING
    assert "no paper" in part.text


def test_a_test_says_how_each_way_went(make: Make, channel: FakeChannel) -> None:
    stage = make()
    stage.start()
    assert [(v.channel, v.on, v.sent) for v in stage.services.test_notify(None)] == [
        ("unraid", True, True),
        ("webhook", False, False),
        ("health", False, False),
    ]
    assert channel.sent[0].subject == "VM Babysitter can tell you what happens"
    channel.error = NotifyFailed("unraid", "no paper")
    (found,) = stage.services.test_notify("unraid")
    assert (found.on, found.sent, "no paper" in found.text) == (True, False, True)
    channel.error = RuntimeError("no way to https://hooks.example/private")
    (found,) = stage.services.test_notify("unraid")
    assert (found.sent, "RuntimeError" in found.text, "private" in str(found)) == (
        False,
        True,
        False,
    )
    channel.error, channel.absent = None, "this host has none"
    (found,) = stage.services.test_notify("unraid")
    assert (found.on, found.text) == (False, "this host has none")
    with pytest.raises(InvalidInput):
        stage.services.test_notify("pigeon")


def test_what_is_switched_off_is_not_used(make: Make, channel: FakeChannel) -> None:
    stage = make(unraid=False)
    stage.start().tell(Event(stage.clock.now(), "x", Severity.ALERT, "a"))
    (found,) = stage.services.test_notify("unraid")
    assert (found.on, channel.asked) == (False, [])
