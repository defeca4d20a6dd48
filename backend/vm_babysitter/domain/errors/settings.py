"""Errors about the settings."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError, Exit


@dataclass(eq=False)
class InvalidSettings(BabysitterError):
    """Values in the settings break rules; all of them are told at once."""

    code: ClassVar[str] = "invalid-settings"
    exit_code: ClassVar[Exit] = Exit.USAGE
    template: ClassVar[str] = "The settings in {path!r} are wrong in {count} place(s): {mistakes}"
    hint_template: ClassVar[str] = "Correct them; until then nothing is backed up by schedule."
    path: str
    count: int
    mistakes: str
    """One sentence or two for each."""


@dataclass(eq=False)
class SettingsChanged(BabysitterError):
    """They are not any more what was read before they were changed."""

    code: ClassVar[str] = "settings-changed"
    exit_code: ClassVar[Exit] = Exit.BUSY
    template: ClassVar[str] = "The settings in {path!r} were changed by somebody else meanwhile."
    hint_template: ClassVar[str] = "Nothing was saved. Load them again and repeat your change."
    path: str


@dataclass(eq=False)
class SettingsFailed(BabysitterError):
    """The file of the settings cannot be read or written."""

    code: ClassVar[str] = "settings-failed"
    template: ClassVar[str] = "Using the settings in {path!r} failed: {reason}."
    hint_template: ClassVar[str] = (
        "What was saved there before is unharmed. Is the flash drive there, writable, not full?"
    )
    path: str
    reason: str
