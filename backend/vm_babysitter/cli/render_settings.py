"""Settings as text for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vm_babysitter.cli.colours import bad, good, warning
from vm_babysitter.cli.dotted import NoSuchKey, join, leaves, value_at
from vm_babysitter.cli.render import table
from vm_babysitter.views import CheckedView, FieldErrorView, NoteView


def settings_text(document: Mapping[str, Any], complete: Mapping[str, Any]) -> str:
    """List all settings; ``complete`` has the defaults of those that are not in the document."""
    rows = [
        (join(keys), value_text(value), "" if _is_in(document, keys) else "(default)")
        for keys, value in leaves(complete)
    ]
    return table(("KEY", "VALUE", ""), rows)


def value_text(value: Any) -> str:
    """Return a value as ``settings set`` takes it."""
    return json.dumps(value, ensure_ascii=False)


def notes_text(notes: Sequence[NoteView]) -> list[str]:
    """Say what is worth knowing."""
    return [warning(f"Note: {note.path}: {note.text}") for note in notes]


def errors_text(errors: Sequence[FieldErrorView]) -> list[str]:
    """Say what is wrong, each with its way out."""
    lines = []
    for error in errors:
        value = f" {error.value}" if error.value else ""
        lines.append(f"{bad('Error:')} {error.path}:{value} {error.rule}.")
        if error.hint:
            lines.append(f"      -> {error.hint}")
    return lines


def checked_text(checked: CheckedView) -> str:
    """Say what a check found."""
    summary = "They can be imported." if not checked.errors else "Nothing of them can be imported."
    colour = bad if checked.errors else good
    lines = [*errors_text(checked.errors), *notes_text(checked.notes), colour(summary)]
    return "\n".join(lines)


def _is_in(document: Mapping[str, Any], keys: Sequence[str]) -> bool:
    try:
        value_at(document, keys)
    except NoSuchKey:
        return False
    return True
