"""What is handed in and out when settings are checked and used."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VmRef:
    """A VM that there is."""

    uuid: str
    name: str

    def called(self, text: str) -> bool:
        """Whether ``text`` is its name or UUID; letters of a UUID may be capital."""
        return text == self.name or text.lower() == self.uuid.lower()


@dataclass(frozen=True, slots=True)
class Context:
    """What is known about the host when settings are checked."""

    vms: Sequence[VmRef]


@dataclass(frozen=True, slots=True)
class FieldError:
    """A value that breaks a rule."""

    path: str
    """Where it is: ``schedules[0].when``; empty for the whole."""
    value: str
    """As JSON has it, cut where it is long; empty where none is there."""
    rule: str
    """What it must be, must not be, or is: read after the value, without an end of sentence."""
    hint: str
    """The way out, in whole sentences."""

    def __str__(self) -> str:
        value = f" {self.value}" if self.value else ""
        return f"{self.path or 'settings'}:{value} {self.rule}. {self.hint}".strip()


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is allowed, and may not be what was meant."""

    path: str
    text: str
    """Whole sentences."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"
