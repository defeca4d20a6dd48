"""Reads what a request brings; all that is wrong with it is told at once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import inspect as kinds
from werkzeug.datastructures import MultiDict

from vm_babysitter.api.parameters import LARGEST
from vm_babysitter.api.problems import Refused, refused
from vm_babysitter.views import FieldErrorView

T = TypeVar("T")
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MANY = 100
_LONG = 80


def read_body(raw: bytes, kind: Any) -> Any:
    """Return what a JSON body says, as a value of a type.

    Raises:
        Refused: it is no JSON (400), or not what it has to be (422).
    """
    try:
        plain = _whole(msgspec.json.decode(raw))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        detail = f"The body is no JSON that can be read: {reason}."
        raise refused(HTTPStatus.BAD_REQUEST, "malformed", detail) from error
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise invalid(_mistakes(plain, kind)) from error


def read_query(given: MultiDict[str, str], kind: type[T]) -> T:
    """Return what a query says, as a value of a Struct type.

    Raises:
        Refused: a parameter is unknown, there twice, or not what it has to be (422).
    """
    info = kinds.type_info(kind)
    assert isinstance(info, kinds.StructType)  # noqa: S101 - what our own types are
    known = {field.name: _bare(field.type) for field in info.fields}
    values: dict[str, Any] = {}
    errors: list[FieldErrorView] = []
    for name, texts in given.lists():
        if name not in known:
            errors.append(_unknown(name, known))
        elif isinstance(known[name], kinds.ListType | kinds.VarTupleType):
            values[name] = texts
        elif len(texts) > 1:
            errors.append(FieldErrorView(name, _short(texts), "is there more than once"))
        else:
            values[name] = _from_text(texts[0], known[name])
    errors += _mistakes(values, kind) if not errors else []
    if errors:
        raise invalid(errors)
    return msgspec.convert(values, kind)


def invalid(errors: Sequence[FieldErrorView]) -> Refused:
    """Return what is raised where values break rules."""
    first = errors[0]
    detail = f"{first.path or 'the body'}: {first.value} {first.rule}."
    if len(errors) > 1:
        detail += f" {len(errors) - 1} more."
    return refused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input", detail, errors=errors[:_MANY])


def _whole(plain: Any) -> Any:
    """Make ``5.0`` a whole number: JavaScript and PHP, and JSON schema, know no difference."""
    match plain:
        case float() if plain.is_integer() and abs(plain) <= LARGEST:
            return int(plain)
        case dict():
            return {key: _whole(value) for key, value in plain.items()}
        case list():
            return [_whole(value) for value in plain]
    return plain


def _bare(kind: kinds.Type) -> kinds.Type:
    """Return a type without what describes it, and without None: nothing is null in a query."""
    match kind:
        case kinds.Metadata():
            return _bare(kind.type)
        case kinds.UnionType():
            return _bare(next(t for t in kind.types if not isinstance(t, kinds.NoneType)))
    return kind


def _from_text(text: str, kind: kinds.Type) -> object:
    match kind:
        case kinds.BoolType() if text in {"true", "false"}:
            return text == "true"
        case kinds.IntType() if _NUMBER.fullmatch(text):
            return int(text)
    return text


def _mistakes(plain: object, kind: Any, path: str = "") -> list[FieldErrorView]:
    """Return what keeps a value from being of a type; one sentence for each place."""
    info = kinds.type_info(kind)
    while isinstance(info, kinds.Metadata):
        info = info.type
    if isinstance(info, kinds.UnionType):
        structs = [each for each in info.types if isinstance(each, kinds.StructType)]
        tags = {str(each.tag): each for each in structs}
        if structs and isinstance(plain, dict):
            tag_field = structs[0].tag_field or ""
            chosen = plain.get(tag_field)
            if not isinstance(chosen, str) or chosen not in tags:
                rule = f"has to be one of {', '.join(tags)}"
                return [FieldErrorView(tag_field, _short(chosen), rule)]
            return _mistakes(plain, tags[chosen].cls, path)
    if isinstance(info, kinds.StructType) and isinstance(plain, dict):
        return list(_in_struct(plain, info, path))
    try:
        msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        reason = str(error).split(" - at `")[0]
        return [FieldErrorView(path, _short(plain), f"is not allowed: {reason}")]
    return []


def _in_struct(
    plain: Mapping[str, object], info: kinds.StructType, path: str
) -> Iterator[FieldErrorView]:
    known = {field.encode_name: field for field in info.fields}
    hints = get_type_hints(info.cls, include_extras=True)
    for name, value in plain.items():
        if name == info.tag_field:
            continue
        if name not in known:
            yield _unknown(_join(path, name), known)
        else:
            yield from _mistakes(value, hints[known[name].name], _join(path, name))
    for name, field in known.items():
        if field.required and name not in plain:
            yield FieldErrorView(_join(path, name), "", "is missing")


def _unknown(path: str, known: Mapping[str, object]) -> FieldErrorView:
    hint = f"Known are: {', '.join(known)}." if known else "There is none."
    return FieldErrorView(_short_text(path), "", "is unknown", hint)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _short(value: object) -> str:
    if value is None:
        return ""
    return _short_text(value if isinstance(value, str) else repr(value))


def _short_text(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
