"""The settings, and what is wrong with some that were given."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldErrorView:
    """One value that breaks a rule."""

    path: str
    """Where it is: ``schedules.0.when``."""
    value: str
    rule: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NoteView:
    """What is worth knowing of some settings and forbids nothing."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class CheckedView:
    """What a check of settings found."""

    errors: tuple[FieldErrorView, ...]
    """All there are; none if they could be saved."""
    notes: tuple[NoteView, ...]


@dataclass(frozen=True, slots=True)
class SettingsView:
    """The settings as they are on disk."""

    tag: str
    """Another one after every change; what a later change says it is made from."""
    settings: dict[str, Any]
    notes: tuple[NoteView, ...]
