"""Errors on demand for the fakes."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Faults")


class Faults:
    """Base of the fakes: remembers what was called, and fails as told, each time.

    ``fake.fail["freeze"] = error`` makes ``freeze`` raise before it does anything;
    ``fake.fail_after`` lets it do its work first, as where an answer is lost on its way.
    """

    def __init__(self) -> None:
        self.fail: dict[str, BaseException] = {}
        self.fail_after: dict[str, BaseException] = {}
        self.calls: list[str] = []


def faulty(method: Callable[Concatenate[F, P], R]) -> Callable[Concatenate[F, P], R]:
    """Have a method of a fake obey its ``fail`` and ``fail_after``."""
    name = method.__name__

    @wraps(method)
    def obeying(fake: F, /, *args: P.args, **kwargs: P.kwargs) -> R:
        fake.calls.append(name)
        if name in fake.fail:
            raise fake.fail[name]
        result = method(fake, *args, **kwargs)
        if name in fake.fail_after:
            raise fake.fail_after[name]
        return result

    return obeying
