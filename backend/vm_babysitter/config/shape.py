"""The shape of the settings as their types say it, in words for people."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

import msgspec.inspect as kinds
from msgspec import NODEFAULT, UNSET, to_builtins

from vm_babysitter.config.keys import Form, Where
from vm_babysitter.config.settings import Settings
from vm_babysitter.lib.units import format_bytes

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)
_LONGEST_VALUE = 80
MISSING = object()
"""Stands for a default that is not there."""


@dataclass(frozen=True, slots=True)
class Described:
    """A type, and what its declaration says about it."""

    kind: kinds.Type
    form: Form | None
    unit: str
    own: bool
    description: str
    example: object
    """``MISSING`` if none is given."""


@cache
def root() -> kinds.StructType:
    """Return the type of all settings."""
    found = kinds.type_info(Settings)
    assert isinstance(found, kinds.StructType)  # noqa: S101 - tells the type checker
    return found


def described(kind: kinds.Type) -> Described:
    """Take a type and its declaration apart."""
    if not isinstance(kind, kinds.Metadata):
        return Described(kind, None, "", False, "", MISSING)
    extra, schema = kind.extra or {}, kind.extra_json_schema or {}
    examples = schema.get("examples") or [MISSING]
    return Described(
        kind.type,
        extra.get("form"),
        extra.get("unit", ""),
        extra.get("own", False),
        schema.get("description", ""),
        examples[0],
    )


def default_of(field: kinds.Field) -> object:
    """Return the default of a key as JSON has it; ``MISSING`` if it has none."""
    if field.default_factory is not NODEFAULT:
        return to_builtins(field.default_factory())
    if field.default is NODEFAULT or field.default is UNSET:
        return MISSING
    return plain(to_builtins(field.default))


def plain(value: object) -> object:
    """Return a value with lists in place of tuples, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def is_list(kind: kinds.Type) -> TypeGuard[kinds.VarTupleType]:
    """Whether values are lists."""
    return isinstance(kind, kinds.VarTupleType)


def words_of(kind: kinds.Type) -> str:
    """Return what a value of this type must be: ``a whole number from 1 to 4``."""
    found = described(kind)
    if found.form is not None:
        return found.form.words
    return _words_of_one(found.kind) or _words_of_many(found.kind) or "a section {…}"


def _words_of_one(kind: kinds.Type) -> str:
    words = ""
    match kind:
        case kinds.BoolType():
            words = "true or false"
        case kinds.IntType(ge=least, le=most):
            words = f"a whole number{_between(least, most)}"
        case kinds.StrType(min_length=least, max_length=most):
            words = f"a text{_between(least, most, ' characters')}"
        case kinds.LiteralType(values=values):
            words = "one of " + ", ".join(quoted(value) for value in values)
        case kinds.NoneType():
            words = "null"
    return words


def _words_of_many(kind: kinds.Type) -> str:
    words = ""
    match kind:
        case kinds.VarTupleType(item_type=item, max_length=most):
            limit = f"at most {most} entries, " if most else ""
            words = f"a list ({limit}each {words_of(item)})"
        case kinds.DictType(key_type=key, value_type=value):
            words = f"a table {{{words_of(key)}: {words_of(value)}}}"
        case kinds.UnionType(types=types):
            words = " or ".join(words_of(one) for one in types)
    return words


def _between(least: int | None, most: int | None, unit: str = "") -> str:
    if least is None:
        return "" if most is None else f" of at most {most}{unit}"
    if most is None:
        return f" of at least {least}{unit}"
    return f" {'of' if unit else 'from'} {least} to {most}{unit}"


def quoted(value: object) -> str:
    """Return a value as JSON has it, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def shown(value: object, unit: str) -> str:
    """Return a value as people read it: amounts of bytes in larger units."""
    amount = unit.startswith("bytes") and type(value) is int and value > 0
    return format_bytes(value) if amount and isinstance(value, int) else quoted(value)


def path_of(where: Where) -> str:
    """Return the way to a value as people write it: ``schedules[0].when``."""
    return "".join(_steps(where))


def _steps(where: Where) -> Iterator[str]:
    for number, step in enumerate(where):
        if isinstance(step, int):
            yield f"[{step}]"
        elif _PLAIN.fullmatch(step):
            yield f".{step}" if number else step
        else:
            yield f"[{quoted(step)}]"
