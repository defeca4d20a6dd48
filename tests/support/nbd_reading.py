"""What tests read over NBD, and what should come."""

import struct
import threading
from collections.abc import Iterator

from vm_babysitter.domain.blocks import Piece

MIB = 1 << 20


def pieces(size: int, length: int = MIB) -> Iterator[tuple[Piece, int]]:
    """Cut a disk into pieces, numbered."""
    for number, offset in enumerate(range(0, size, length)):
        yield Piece(offset, min(length, size - offset)), number


def pattern(offset: int, length: int) -> bytes:
    """What nbdkit's pattern plugin serves."""
    return struct.pack(f">{length // 8}Q", *range(offset, offset + length, 8))


class Collected:
    """Takes what is read, in any order and from any thread."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(b"\xee" * size)
        self.tags: list[object] = []
        self.threads: set[str] = set()

    def __call__(self, piece: Piece, tag: object, data: memoryview) -> None:
        assert len(data) == piece.length
        self.data[piece.offset : piece.offset + piece.length] = data
        self.tags.append(tag)
        self.threads.add(threading.current_thread().name)
