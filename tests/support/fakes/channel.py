"""A way of telling that a test controls: ``ports.Channel``."""

import threading
from collections.abc import Callable

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.message import Message


class FakeChannel:
    """Implements ``ports.Channel``: remembers what it was given to send."""

    name = "fake"

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.absent = ""
        self.error: Exception | None = None
        """Raised in place of sending."""
        self.arrives = False
        """Whether a message is sent although there is an error."""
        self.knows = True
        """Whether it can say what was sent."""
        self.gate: threading.Event | None = None
        """What sending waits for, whatever limit it is given."""
        self.before: Callable[[Message], None] = lambda _: None
        self.asked: list[float] = []

    def missing(self) -> str:
        return self.absent

    def send(self, message: Message, within: float) -> None:
        self.asked.append(within)
        self.before(message)
        if self.gate is not None:
            self.gate.wait(60)
        if self.error is None or self.arrives:
            self.sent.append(message)
        if self.error is not None:
            raise self.error

    def was_sent(self, message: Message) -> bool:
        return self.knows and message.key in {each.key for each in self.sent}

    def told(self) -> list[str]:
        """Return the subjects of all events that were told, those of digests included."""
        return [event.subject for message in self.sent for event in message.events]


def failing(error: BabysitterError) -> FakeChannel:
    """Return a channel that fails."""
    made = FakeChannel()
    made.error = error
    return made
