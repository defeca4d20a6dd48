"""Settings as a JSON text: read with care, written in one way."""

import json
import math
from collections.abc import Sequence

from blake3 import blake3

from vm_babysitter.domain.errors import Damaged

Document = dict[str, object]
"""Settings as JSON has them, with keys that this version does not know."""
_MOST_BYTES = 1 << 20
_DEEPEST = 32
_WAY_OUT = (
    "It was left as it is. Correct it, or have others: `vm-babysitter settings import FILE`. It is "
    "kept beside them then."
)


def decode(content: bytes, path: str) -> Document:
    """Return the document in a text.

    Raises:
        Damaged: it is none.
    """
    try:
        # Windows' editor puts a mark in front, and the flash drive is a share.
        found = json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"it is no JSON of settings ({error})", _WAY_OUT) from error
    if not isinstance(found, dict):
        raise Damaged(path, "it is no JSON object of settings", _WAY_OUT)
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {double!r} is there twice, and only one of them can count")
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no value")


def encode(document: Document) -> bytes:
    """Return the text of a document that was checked."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def tag_of(document: Document) -> str:
    """Return what tells a document from all others; the order of its keys does not matter."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return blake3(text.encode()).hexdigest()[:32]


def put(document: Document, where: Sequence[str], value: object) -> Document:
    """Return the document with one value changed; what is given stays as it is."""
    key, *rest = where
    inner = document.get(key)
    below: Document = inner if isinstance(inner, dict) else {}
    return {**document, key: put(below, rest, value) if rest else value}


def unkeepable(raw: object) -> str:
    """Return why a file cannot hold something, as a rule; empty if it can.

    It is looked for everywhere: keys that this version does not know are kept, too.
    """
    todo = [(raw, 0)]
    while todo:
        value, depth = todo.pop()
        problem = "must not be nested as deeply as this" if depth > _DEEPEST else _not_json(value)
        if problem:
            return problem
        if isinstance(value, dict):
            todo += [(one, depth + 1) for one in (*value, *value.values())]
            if not all(isinstance(key, str) for key in value):
                return "must have texts as keys"
        elif isinstance(value, list | tuple):
            todo += [(one, depth + 1) for one in value]
    try:
        size = len(json.dumps(raw, ensure_ascii=False).encode())
    except ValueError:
        return "must not contain numbers of thousands of digits"
    return "must not be larger than 1 MiB" if size > _MOST_BYTES else ""


def _not_json(value: object) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"must not contain characters that do not exist: {ascii(value)[:80]}"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"must not contain {value}, which JSON cannot say"
    elif value is not None and not isinstance(value, int | float | dict | list | tuple):
        return f"must be JSON, and contain no {type(value).__name__}"
    return ""
