"""Errors about disk images and the connections that they are read over."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError


@dataclass(eq=False)
class ImageUnreadable(BabysitterError):
    """A disk image cannot be opened or understood."""

    code: ClassVar[str] = "image-unreadable"
    template: ClassVar[str] = "The disk image {path!r} cannot be read: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = "Check that the file exists and is a disk image."


@dataclass(eq=False)
class ImageRefused(BabysitterError):
    """A disk image is not written to, because that would not be safe or not work."""

    code: ClassVar[str] = "image-refused"
    template: ClassVar[str] = "The disk image {path!r} is not written to: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class TransferFailed(BabysitterError):
    """Reading from or writing to an NBD export failed."""

    code: ClassVar[str] = "transfer-failed"
    template: ClassVar[str] = "{action} at offset {offset} failed: {reason}."
    transient: ClassVar[bool] = True
    action: str
    offset: int
    reason: str


@dataclass(eq=False)
class ProtocolViolation(BabysitterError):
    """The other side of an NBD connection broke the protocol."""

    code: ClassVar[str] = "protocol-violation"
    template: ClassVar[str] = "The NBD server broke the protocol: {reason}."
    reason: str


@dataclass(eq=False)
class ConnectionLost(BabysitterError):
    """The other side of a connection went away or fell silent."""

    code: ClassVar[str] = "connection-lost"
    template: ClassVar[str] = "The connection to {address!r} was lost: {reason}."
    transient: ClassVar[bool] = True
    address: str
    reason: str
