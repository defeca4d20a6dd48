"""Errors about telling users what has happened."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError


@dataclass(eq=False)
class NotifyFailed(BabysitterError):
    """A message was not sent now; later it may be."""

    code: ClassVar[str] = "notify-failed"
    template: ClassVar[str] = "The notification by {channel} was not sent: {reason}."
    hint_template: ClassVar[str] = "`vm-babysitter notify test` says whether it works."
    transient: ClassVar[bool] = True
    channel: str
    reason: str


@dataclass(eq=False)
class NotifyRefused(NotifyFailed):
    """A message was not sent, and never will be the way it is set up."""

    code: ClassVar[str] = "notify-refused"
    hint_template: ClassVar[str] = (
        "Correct it in the settings (notify); `vm-babysitter notify test` says whether it works."
    )
    transient: ClassVar[bool] = False


def unthought_of(channel: str, error: Exception) -> NotifyFailed:
    """Return what a user is told of a mistake of ours: its own words may hold a secret address."""
    name = type(error).__name__
    return NotifyFailed(channel, f"an error that nobody thought of ({name}); the log says more")
