"""Reads simple qcow2 images, by the format's specification and nothing of ours."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import zstandard

_CLUSTER = 1 << 16
_COMPRESSED = 1 << 62
_OFFSET = 0x00FFFFFFFFFFFE00


def read_layers(paths: Sequence[Path]) -> bytes:
    """Return the content of a disk whose images these are, the newest first.

    Only images of version 3 with clusters of 64 KiB, not encrypted.
    """
    below = read_layers(paths[1:]) if len(paths) > 1 else b""
    image = paths[0].read_bytes()
    magic, version, *_, bits, size, crypt, _length, l1 = struct.unpack_from(">4sIQIIQIIQ", image)
    assert (magic, version, bits, crypt) == (b"QFI\xfb", 3, 16, 0)
    content = bytearray(below[:size].ljust(size, b"\0"))
    for number in range(-(-size // _CLUSTER)):
        (table,) = struct.unpack_from(">Q", image, l1 + 8 * (number // (_CLUSTER // 8)))
        if not table & _OFFSET:
            continue
        at = (table & _OFFSET) + 8 * (number % (_CLUSTER // 8))
        (entry,) = struct.unpack_from(">Q", image, at)
        start = number * _CLUSTER
        length = min(_CLUSTER, size - start)
        if entry & _COMPRESSED:
            content[start : start + length] = _expanded(image, entry)[:length]
        elif entry & 1:
            content[start : start + length] = bytes(length)
        elif place := entry & _OFFSET:
            content[start : start + length] = image[place : place + length]
    return bytes(content)


def _expanded(image: bytes, entry: int) -> bytes:
    """Return the cluster that an L2 entry of a compressed one tells of."""
    start, sectors = entry & (1 << 54) - 1, (entry >> 54 & 0xFF) + 1
    data = image[start : start + sectors * 512 - start % 512]
    (features,) = struct.unpack_from(">Q", image, 72)
    (header,) = struct.unpack_from(">I", image, 100)
    if features & 1 << 3:
        assert (features, header, image[104]) == (1 << 3, 112, 1)
        found = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    else:
        assert (features, header) == (0, 104)
        found = zlib.decompressobj(-12).decompress(data)
    assert len(found) == _CLUSTER
    return found
