"""The limit of bytes per second."""

import threading
import time

import pytest

from vm_babysitter.domain.errors import Cancelled
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.pace import Pace


def seconds(pace: Pace, takes: int, amount: int, threads: int = 1) -> float:
    def take() -> None:
        for _ in range(takes):
            pace.take(amount)

    workers = [threading.Thread(target=take) for _ in range(threads)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.monotonic() - began


def test_the_rate_holds_for_all_threads_together() -> None:
    assert seconds(Pace(1_000_000, Cancel()), 5, 20_000, threads=3) > 14 * 0.02 - 0.01


def test_what_was_not_used_is_not_saved_up() -> None:
    pace = Pace(1_000_000, Cancel())
    pace.take(1)
    time.sleep(0.1)
    assert seconds(pace, 3, 50_000) > 0.09


def test_without_a_limit_nothing_waits() -> None:
    assert seconds(Pace(None, Cancel()), 1000, 1 << 40) < 1


def test_waiting_ends_at_once_when_the_job_is_asked_to_stop() -> None:
    cancel = Cancel()
    pace = Pace(1, cancel)
    pace.take(1 << 30)
    threading.Timer(0.05, cancel.request).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        pace.take(1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("limit", [None, 1])
def test_a_job_that_was_asked_to_stop_takes_nothing_more(limit: int | None) -> None:
    cancel = Cancel()
    cancel.request()
    with pytest.raises(Cancelled):
        Pace(limit, cancel).take(1)
