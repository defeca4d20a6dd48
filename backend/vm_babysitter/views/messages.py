"""What users are told, and how a try of that went."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from vm_babysitter.domain.event import Severity
from vm_babysitter.domain.message import Message
from vm_babysitter.views.events import EventView


@dataclass(frozen=True, slots=True)
class MessageView:
    """What a web hook is sent."""

    key: str
    """Tells messages apart: one that is sent twice has the same."""
    at: datetime
    severity: Severity
    subject: str
    text: str
    """One line."""
    details: str
    """Lines."""
    vm: str
    """Empty where it is about several VMs, or none."""
    link: str
    """The page of ours, on the web pages of the host."""
    events: tuple[EventView, ...]

    @classmethod
    def of(cls, message: Message) -> Self:
        """Show a message."""
        return cls(
            key=message.key,
            at=message.at,
            severity=message.severity,
            subject=message.subject,
            text=message.text,
            details=message.details,
            vm=message.vm_name,
            link=message.link,
            events=tuple(map(EventView.of, message.events)),
        )


@dataclass(frozen=True, slots=True)
class NotifyTestView:
    """How a try of one way of telling went."""

    channel: str
    on: bool
    """Whether it is set up."""
    sent: bool
    text: str
    """A sentence."""
    hint: str = ""
    """What to do about it; empty where nothing is."""
