"""The NBD protocol on the wire: numbers and layouts.

Only what we need of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md:
fixed newstyle handshake, simple and structured replies, metadata contexts.
"""

import errno
import os
import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from vm_babysitter.domain.errors import ProtocolViolation

ALLOCATION = "base:allocation"
DIRTY_BITMAP = "qemu:dirty-bitmap:"

NBD_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
STRUCTURED_MAGIC = 0x668E33EF

FIXED_NEWSTYLE = 1
NO_ZEROES = 2

OPTION_REQUEST = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
EXPORT_INFO = struct.Struct(">HQH")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
STRUCTURED_REPLY = struct.Struct(">IHHQI")
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")


class Option(IntEnum):
    """What the client asks for before the export is open."""

    GO = 7
    STRUCTURED_REPLY = 8
    SET_META_CONTEXT = 10


ANSWER_ACK, ANSWER_INFO, ANSWER_META_CONTEXT = 1, 3, 4
ANSWER_ERROR = 1 << 31


class Command(IntEnum):
    """What a request asks for."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class Feature(IntFlag):
    """What an export says of itself (transmission flags)."""

    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_WRITE_ZEROES = 1 << 6
    CAN_MULTI_CONN = 1 << 8


class ChunkType(IntEnum):
    """The kinds of chunks that make up a structured reply."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_DONE = 1
CHUNK_ERROR = 1 << 15


class Reply(NamedTuple):
    """The header of a simple reply or of one chunk of a structured one."""

    handle: int
    simple: bool
    error: int = 0
    """Simple replies: 0 or an errno."""
    done: bool = True
    """Whether this is the last we hear of the request."""
    kind: int = 0
    """Structured replies: the chunk's type."""
    length: int = 0
    """Structured replies: bytes that follow."""


def reason(number: int) -> str:
    """Return an errno in words and by its name."""
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def request(command: Command, handle: int, offset: int, length: int) -> bytes:
    """Return the header of a request."""
    return REQUEST.pack(REQUEST_MAGIC, 0, command, handle, offset, length)


def chunk_error(payload: bytes, kind: int) -> tuple[int, int | None]:
    """Return the errno of an error chunk, and the offset if it names one.

    Raises:
        ProtocolViolation: the chunk is malformed.
    """
    try:
        number, words = struct.unpack_from(">IH", payload)
        offset = None
        if kind == ChunkType.ERROR_OFFSET:
            offset = U64.unpack_from(payload, 6 + words)[0]
    except struct.error:
        raise ProtocolViolation("an error reply is too short") from None
    return number, offset
