"""Asks what may hang: a disk that does not answer must not hold up what comes after."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the answer of ``call``, or raise what it raises.

    Raises:
        TimeoutError: it takes longer than ``seconds``, and is left behind.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name="left behind", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError
    return answers[0]


class Asked(Generic[T]):
    """Answers of one kind, by what was asked."""

    def __init__(self) -> None:
        self._pending: dict[str, threading.Thread] = {}

    def ask(self, what: str, call: Callable[[], T], seconds: float, otherwise: T) -> T:
        """Return the answer of ``call``; ``otherwise`` if it takes longer than ``seconds``.

        Whoever hangs is left behind, and not asked a second time before it has come back.
        What ``call`` raises is ``otherwise``, too.
        """
        before = self._pending.get(what)
        if before is not None and before.is_alive():
            return otherwise
        answers: list[T] = []
        thread = threading.Thread(
            target=lambda: _answer(call, answers), name=f"asks {what}", daemon=True
        )
        self._pending[what] = thread
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            return otherwise
        del self._pending[what]
        return answers[0] if answers else otherwise


def _answer(call: Callable[[], T], answers: list[T]) -> None:
    with suppress(Exception):  # whoever asked knows what it means if no answer comes
        answers.append(call())
