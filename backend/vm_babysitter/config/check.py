"""Checks settings as they come: all that is wrong is found at once, and told in plain words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import msgspec
import msgspec.inspect as kinds

from vm_babysitter.config.context import Context, FieldError, Note
from vm_babysitter.config.document import Document, unkeepable
from vm_babysitter.config.keys import Refusal, Refused, Where
from vm_babysitter.config.migrate import VERSION
from vm_babysitter.config.notes import notes_on
from vm_babysitter.config.settings import Settings
from vm_babysitter.config.shape import (
    MISSING,
    Described,
    default_of,
    described,
    path_of,
    plain,
    quoted,
    root,
    shown,
    words_of,
)
from vm_babysitter.lib.units import format_bytes

_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to."""

    settings: Settings | None
    """None if there are errors."""
    document: Document
    """What is to be kept: as it came, each value in its stored form. Only if there is no error."""
    errors: tuple[FieldError, ...] = ()
    notes: tuple[Note, ...] = ()


def check(raw: object, known: Context | None = None) -> Checked:
    """Check settings.

    Args:
        raw: what JSON, or a form, says.
        known: the VMs that there are; None if that is not known now.
    """
    problem = unkeepable(raw)
    if problem:
        return Checked(None, {}, (FieldError("", "", problem, "Is this a file of settings?"),))
    if not isinstance(raw, dict):
        rule = 'must be an object {"version": …}'
        return Checked(
            None, {}, (FieldError("", quoted(raw), rule, "Is this a file of settings?"),)
        )
    walk = _Walk()
    walk.version(raw)
    body = {key: value for key, value in raw.items() if key != "version"}
    document = walk.value(root(), body, ())
    notes = tuple(walk.unknown)
    if walk.errors or not isinstance(document, dict):
        return Checked(None, {}, tuple(walk.errors), notes)
    settings = msgspec.convert(document, Settings)
    document = {"version": raw["version"], **document}
    return Checked(settings, document, (), (*notes, *notes_on(settings, known)))


@dataclass(slots=True)
class _Walk:
    """Walks through a document beside its type."""

    errors: list[FieldError] = field(default_factory=list)
    unknown: list[Note] = field(default_factory=list)

    def version(self, raw: Document) -> None:
        """Look whether it says that it is of this version."""
        found = raw.get("version", MISSING)
        if found is MISSING:
            self._error(
                ("version",), MISSING, f"must be there: {VERSION}", "Is this a settings file?"
            )
        elif type(found) is not int or found != VERSION:
            hint = "Settings of a newer version of VM Babysitter need that version."
            self._error(("version",), found, f"must be {VERSION}", hint)

    def value(
        self, kind: kinds.Type, raw: object, where: Where, default: object = MISSING
    ) -> object:
        """Check one value; return its stored form."""
        found, first = described(kind), len(self.errors)
        stored = self._judged(found, kind, raw, where, default)
        if found.form is not None and found.form.secret:
            self.errors[first:] = [replace(one, value=_HIDDEN) for one in self.errors[first:]]
        return stored

    def _judged(
        self, found: Described, kind: kinds.Type, raw: object, where: Where, default: object
    ) -> object:
        hint = _hint(found, default)
        if found.form is not None:
            try:
                raw = found.form.read(plain(raw))
            except Refused as refused:
                self._refuse(refused.refusal, where, raw, hint)
                return raw
        value = self._typed(found.kind, raw, where, words=f"must be {words_of(kind)}", hint=hint)
        if found.form is not None:
            for refusal in found.form.judge(value):
                self._refuse(refusal, where, value, hint)
        return value

    def _typed(
        self, kind: kinds.Type, raw: object, where: Where, *, words: str, hint: str
    ) -> object:
        match kind, raw:
            case kinds.StructType(), dict():
                return self._section(kind, raw, where)
            case kinds.DictType(), dict():
                self._length(kind, len(raw), where)
                for key in raw:
                    self.value(kind.key_type, key, (*where, key))
                return {key: self.value(kind.value_type, raw[key], (*where, key)) for key in raw}
            case kinds.VarTupleType(), list() | tuple():
                self._length(kind, len(raw), where)
                return [self.value(kind.item_type, one, (*where, i)) for i, one in enumerate(raw)]
            case kinds.UnionType(), _:
                return self._union(kind, raw, where, words, hint)
        if isinstance(raw, float) and raw.is_integer() and isinstance(kind, kinds.IntType):
            raw = int(raw)  # JavaScript and PHP know no difference
        if not _fits(kind, raw):
            self._error(where, raw, words + _range(kind, words), hint)
        return raw

    def _section(self, kind: kinds.StructType, raw: Document, where: Where) -> Document:
        fields = {one.encode_name: one for one in kind.fields}
        kept: Document = {}
        for key, value in raw.items():
            if key in fields:
                one = fields[key]
                kept[key] = self.value(one.type, value, (*where, key), default_of(one))
            else:
                kept[key] = value
                self.unknown.append(Note(path_of((*where, key)), _unknown(key, fields)))
        for key in (k for k, one in fields.items() if one.required and k not in raw):
            missing = described(fields[key].type)
            rule = f"must be there: {words_of(fields[key].type)}"
            self._error((*where, key), MISSING, rule, _hint(missing, MISSING))
        return kept

    def _union(
        self, kind: kinds.UnionType, raw: object, where: Where, words: str, hint: str
    ) -> object:
        for one in kind.types:
            tried = _Walk()
            value = tried._typed(one, raw, where, words=words, hint=hint)
            if not tried.errors:
                return value
            if isinstance(raw, list) and isinstance(one, kinds.VarTupleType):
                self.errors += tried.errors
                return raw
        self._error(where, raw, words, hint)
        return raw

    def _length(self, kind: kinds.DictType | kinds.VarTupleType, length: int, where: Where) -> None:
        if kind.max_length is not None and length > kind.max_length:
            rule = f"must have at most {kind.max_length} entries"
            self._error(where, f"{length} entries", rule, "Leave some out, or name a group.")

    def _refuse(self, refusal: Refusal, where: Where, value: object, hint: str) -> None:
        for step in refusal.where:
            value = value[step] if isinstance(value, dict | list) else value  # type: ignore[index]
        self._error((*where, *refusal.where), value, refusal.rule, refusal.hint or hint)

    def _error(self, where: Where, value: object, rule: str, hint: str) -> None:
        text = "" if value is MISSING else quoted(value)
        self.errors.append(FieldError(path_of(where), text, rule, hint))


_TESTS: dict[type[kinds.Type], Callable[[object], bool]] = {
    kinds.BoolType: lambda raw: isinstance(raw, bool),
    kinds.IntType: lambda raw: isinstance(raw, int) and not isinstance(raw, bool),
    kinds.StrType: lambda raw: isinstance(raw, str),
    kinds.NoneType: lambda raw: raw is None,
}


def _fits(kind: kinds.Type, raw: object) -> bool:
    if isinstance(kind, kinds.LiteralType):
        return isinstance(raw, str) and raw in kind.values
    test = _TESTS.get(type(kind))
    if test is None or not test(raw):
        return False
    match kind, raw:
        case kinds.IntType(ge=least, le=most), int():
            return _within(raw, least, most)
        case kinds.StrType(min_length=least, max_length=most), str():
            return _within(len(raw), least, most)
    return True


def _within(number: int, least: int | None, most: int | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _range(kind: kinds.Type, words: str) -> str:
    """Return the limits where the words of a form do not say them: those of amounts of bytes."""
    if isinstance(kind, kinds.IntType) and kind.ge is not None and f"from {kind.ge}" not in words:
        return f", from {format_bytes(kind.ge)} to {format_bytes(kind.le or 0)}"
    return ""


def _unknown(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key, known, 1)
    meant = f" Did you mean `{near[0]}`?" if near else ""
    return f"This version does not know this key. It is kept, and does nothing.{meant}"


def _hint(found: Described, default: object) -> str:
    """Return the way out that fits any mistake: an example, and what is without the key."""
    parts = []
    if found.example is not MISSING:
        parts.append(f"For example {quoted(found.example)}.")
    if default is not MISSING:
        parts.append(f"Left out, it is {shown(default, found.unit)}.")
    return " ".join(parts)
