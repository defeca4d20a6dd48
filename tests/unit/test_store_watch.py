"""The backup folder is looked at again and again."""

import queue
import threading

import pytest

from tests.support.jobs import eventually
from vm_babysitter.service.store_watch import StoreWatch


class Stage:
    """A watch that finds what the test hands it, one after the other, then nothing new."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.said: queue.Queue[str] = queue.Queue()
        self.over = False
        self.enough = threading.Event()
        self.watch = StoreWatch(
            self.look,
            lambda: self.said.put("changed"),
            lambda: self.said.put("there"),
            (0.001, 0.001),
        )

    def look(self) -> str:
        if not self.answers:
            if self.over:
                self.enough.set()
            self.over = True
            return "the end"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self) -> list[str]:
        """Let it look as often as there are answers; return what was told."""
        self.watch.start()
        assert self.enough.wait(10)
        self.watch.stop(10.0)
        return [self.said.get_nowait() for _ in range(self.said.qsize())]


def test_what_changes_is_told_once() -> None:
    told = Stage("", "away", "away", "", "").run()
    assert told == ["there", "changed", "changed", "there", "there", "changed"]


def test_a_look_that_fails_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    assert Stage(ValueError("odd"), "").run() == ["there", "changed"]
    assert "odd" in caplog.text


def test_it_looks_at_once_when_asked() -> None:
    looked = threading.Semaphore(0)

    def look() -> str:
        looked.release()
        return ""

    watch = StoreWatch(look, lambda: None, lambda: None, (600.0, 600.0))
    watch.start()
    assert looked.acquire(timeout=10)
    watch.look()
    assert looked.acquire(timeout=10)
    watch.stop(10.0)


def test_a_folder_that_does_not_answer_is_noticed() -> None:
    asked, answers = threading.Event(), threading.Event()

    def look() -> str:
        asked.set()
        answers.wait(10)
        return ""

    there = threading.Event()
    watch = StoreWatch(look, lambda: None, there.set, (600.0, 600.0), patience=0.0)
    assert not watch.hangs
    watch.start()
    assert asked.wait(10)
    eventually(lambda: watch.hangs)
    answers.set()
    assert there.wait(10)
    assert not watch.hangs
    watch.stop(10.0)


def test_it_can_be_stopped_before_it_began() -> None:
    Stage().watch.stop()
