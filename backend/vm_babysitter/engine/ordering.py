"""Results that come in any order, used in the order of their numbers."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class InOrder(Generic[T]):
    """Calls ``apply`` for each result in ascending order of its number, one at a time."""

    def __init__(self, apply: Callable[[T], None]) -> None:
        self._apply = apply
        self._lock = threading.Lock()
        self._waiting: dict[int, T] = {}
        self._next = 0

    def put(self, number: int, result: T) -> None:
        """Hand in a result; it and those it held up are applied when their turn has come."""
        with self._lock:
            self._waiting[number] = result
            while self._next in self._waiting:
                self._apply(self._waiting.pop(self._next))
                self._next += 1

    def end(self) -> None:
        """Make sure that nothing is held up.

        Raises:
            RuntimeError: a number was never handed in.
        """
        if self._waiting:
            raise RuntimeError(f"result {self._next} is missing")
