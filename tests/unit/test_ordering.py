"""Results in any order are used in the order of their numbers."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.engine.ordering import InOrder


@given(st.integers(0, 30).flatmap(lambda n: st.permutations(range(n))))
def test_any_order_of_arrival_gives_ascending_use(order: list[int]) -> None:
    used: list[int] = []
    results = InOrder(used.append)
    for number in order:
        results.put(number, number)
    results.end()
    assert used == sorted(order)


def test_a_result_is_used_as_soon_as_those_before_it_are_there() -> None:
    used: list[str] = []
    results = InOrder(used.append)
    results.put(1, "b")
    assert used == []
    results.put(0, "a")
    assert used == ["a", "b"]
    results.put(2, "c")
    assert used == ["a", "b", "c"]


def test_a_missing_result_is_noticed_at_the_end() -> None:
    results: InOrder[str] = InOrder(lambda _: None)
    results.put(0, "a")
    results.put(2, "c")
    with pytest.raises(RuntimeError, match="result 1 is missing"):
        results.end()


def test_threads_use_one_result_at_a_time() -> None:
    used: list[int] = []
    busy = threading.Lock()

    def use(number: int) -> None:
        assert busy.acquire(blocking=False), "two at once"
        used.append(number)
        busy.release()

    results = InOrder(use)
    numbers = list(range(2000))
    random.Random(7).shuffle(numbers)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: results.put(n, n), numbers))
    results.end()
    assert used == sorted(numbers)


def test_what_using_a_result_raises_comes_up_in_the_thread_that_handed_it_in() -> None:
    def use(number: int) -> None:
        raise ValueError(number)

    results = InOrder(use)
    results.put(1, 1)
    with pytest.raises(ValueError, match="0"):
        results.put(0, 0)
