"""The fingerprint of a block, in the one way that is written into stores."""

from collections.abc import Iterator

from blake3 import blake3

from vm_babysitter.domain.blocks import BLOCK_SIZE, HASH_SIZE


def fingerprint(data: bytes | bytearray | memoryview) -> bytes:
    """Return the BLAKE3 hash of ``data``, cut to 16 bytes. Lets other threads run."""
    return blake3(data).digest(length=HASH_SIZE)


def fingerprints(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """Return the fingerprint of each block of ``data``; the last block may be short."""
    view = memoryview(data)
    for start in range(0, len(view), BLOCK_SIZE):
        yield fingerprint(view[start : start + BLOCK_SIZE])
