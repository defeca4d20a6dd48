r"""Values in a document by dotted paths: ``backup.limit``, ``schedules.0.when``. Pure.

A dot inside of a key, such as the name of a VM, is written ``\.``; a backslash ``\\``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_KEY = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"([.\\])")


class NoSuchKey(LookupError):
    """There is nothing at a path, or nothing can be put there."""


def split(path: str) -> tuple[str, ...]:
    """Return the keys of a path. Raises NoSuchKey if it is none."""
    keys = _KEY.findall(path)
    if ".".join(keys) != path or not keys:
        raise NoSuchKey(path)
    return tuple(_ESCAPED.sub(r"\1", key) for key in keys)


def join(keys: Sequence[str]) -> str:
    """Return the path of keys."""
    return ".".join(_SPECIAL.sub(r"\\\1", key) for key in keys)


def value_at(document: Any, keys: Sequence[str]) -> Any:
    """Return a value. Raises NoSuchKey."""
    for key in keys:
        match document:
            case dict() if key in document:
                document = document[key]
            case list() if key.isdecimal() and int(key) < len(document):
                document = document[int(key)]
            case _:
                raise NoSuchKey(join(keys))
    return document


def with_value(document: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a document with one value changed or added; an entry may be added to a list's end.

    Raises NoSuchKey.
    """
    if not keys:
        return value
    key, *rest = keys
    match document:
        case dict():
            return {**document, key: with_value(document.get(key, {}), rest, value)}
        case list() if key.isdecimal() and int(key) <= len(document):
            at = int(key)
            inner = document[at] if at < len(document) else {}
            return [*document[:at], with_value(inner, rest, value), *document[at + 1 :]]
    raise NoSuchKey(join(keys))


def without(document: Any, keys: Sequence[str]) -> Any:
    """Return a document without a value. Raises NoSuchKey."""
    value_at(document, keys)
    key, *rest = keys
    if isinstance(document, list):
        at = int(key)
        kept = [without(document[at], rest)] if rest else []
        return [*document[:at], *kept, *document[at + 1 :]]
    if rest:
        return {**document, key: without(document[key], rest)}
    return {name: value for name, value in document.items() if name != key}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with all of the one above, and what it lacks from the one below."""
    found = dict(below)
    for key, value in above.items():
        lower = found.get(key)
        both = isinstance(lower, dict) and isinstance(value, dict)
        found[key] = merged(lower or {}, value) if both else value
    return found


def leaves(document: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value that has none below it, and lists of such values as a whole."""
    match document:
        case dict() if document:
            for key, value in document.items():
                yield from leaves(value, (*keys, key))
        case list() if any(isinstance(value, dict) for value in document):
            for at, value in enumerate(document):
                yield from leaves(value, (*keys, str(at)))
        case _:
            yield keys, document
