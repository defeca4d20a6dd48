"""All keys of the settings as data: for the reference, the JSON schema and the Settings page."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import msgspec.inspect as kinds

from vm_babysitter.config.settings import Settings
from vm_babysitter.config.shape import MISSING, default_of, described, is_list, root, words_of


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key."""

    path: str
    """``backup.limit``; ``[]`` stands for any entry of a list, ``<name>`` for any name."""
    type: str
    """What a value must be, in words."""
    unit: str
    least: int | None
    """The smallest number; None if it is no number, or has no limit."""
    most: int | None
    """The greatest number, or the most entries or characters."""
    choices: tuple[str, ...]
    """The values that are possible, if they are few."""
    default: object
    """As JSON has it; None together with ``required``."""
    required: bool
    """Whether it must be there, where its entry is."""
    description: str
    example: object
    own: bool
    """Whether it is filled by the program, not by people."""


@dataclass(frozen=True, slots=True)
class SectionInfo:
    """One section."""

    name: str
    description: str
    keys: tuple[KeyInfo, ...]


def describe() -> list[KeyInfo]:
    """Return all keys, section by section."""
    return [key for section in sections() for key in section.keys]


def sections() -> list[SectionInfo]:
    """Return the sections in their order."""
    return [
        SectionInfo(
            one.encode_name, described(one.type).description, tuple(_keys(one, one.encode_name))
        )
        for one in root().fields
    ]


def schema() -> dict[str, object]:
    """Return the JSON schema of the settings."""
    found = msgspec.json.schema(Settings)
    definition = found["$defs"]["Settings"]
    definition["properties"] = {"version": {"type": "integer"}, **definition["properties"]}
    definition["required"] = ["version"]
    _take_other_types(found)
    return found


def _take_other_types(node: object) -> None:
    """Put the types of forms in place of those in Python, which msgspec insists on."""
    if isinstance(node, dict):
        if "x-type" in node:
            node["type"] = node.pop("x-type")
        for one in node.values():
            _take_other_types(one)


def _keys(field: kinds.Field, path: str) -> Iterator[KeyInfo]:
    """Yield the keys below a key; the key itself, if it holds a value."""
    kind = described(field.type).kind
    if isinstance(kind, kinds.DictType) and isinstance(
        described(kind.value_type).kind, kinds.StructType
    ):
        path, kind = f"{path}.<VM>", described(kind.value_type).kind
    elif is_list(kind) and isinstance(described(kind.item_type).kind, kinds.StructType):
        path, kind = f"{path}[]", described(kind.item_type).kind
    if not isinstance(kind, kinds.StructType):
        yield _key(field, path)
        return
    for one in kind.fields:
        yield from _keys(one, f"{path}.{one.encode_name}")


def _key(field: kinds.Field, path: str) -> KeyInfo:
    found, default = described(field.type), default_of(field)
    least, most = _limits(found.kind)
    choices = found.kind.values if isinstance(found.kind, kinds.LiteralType) else ()
    return KeyInfo(
        path=path,
        type=words_of(field.type),
        unit=found.unit,
        least=least,
        most=most,
        choices=tuple(map(str, choices)),
        default=None if default is MISSING else default,
        required=field.required,
        description=found.description,
        example=None if found.example is MISSING else found.example,
        own=found.own,
    )


def _limits(kind: kinds.Type) -> tuple[int | None, int | None]:
    match kind:
        case kinds.IntType(ge=least, le=most):
            return least, most
        case kinds.StrType(max_length=most) | kinds.VarTupleType(max_length=most):
            return None, most
        case kinds.DictType(max_length=most):
            return None, most
        case _:
            return None, None
