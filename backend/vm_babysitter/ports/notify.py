"""The ways in which users are told what has happened."""

from typing import Protocol

from vm_babysitter.domain.message import Message


class Channel(Protocol):
    """One way of telling. Used by one thread at a time."""

    @property
    def name(self) -> str:
        """What it is called, for people and in the journal."""

    def missing(self) -> str:
        """Return why this host has no such way at all; empty if it has."""

    def send(self, message: Message, within: float) -> None:
        """Tell a user.

        Args:
            message: what is told.
            within: seconds after which it is given up.

        Raises:
            NotifyFailed: it may have been sent, see ``was_sent``.
            NotifyRefused: another try would not help.
        """

    def was_sent(self, message: Message) -> bool:
        """Return whether it surely was sent: after a crash or failure. False: it is not known."""


class Pinger(Protocol):
    """Tells a service that watches over schedules how their runs go."""

    def ping(self, what: str, text: str, within: float) -> None:
        """Tell it.

        Args:
            what: ``start``, ``success`` or ``fail``.
            text: what there is to say of it.
            within: seconds after which it is given up.

        Raises:
            NotifyFailed, NotifyRefused.
        """
