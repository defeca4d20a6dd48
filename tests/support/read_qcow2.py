"""Reads simple qcow2 images, by the format's specification and nothing of ours."""

import struct
from collections.abc import Sequence
from pathlib import Path

_CLUSTER = 1 << 16
_OFFSET = 0x00FFFFFFFFFFFE00


def read_layers(paths: Sequence[Path]) -> bytes:
    """Return the content of a disk whose images these are, the newest first.

    Only images of version 3 with clusters of 64 KiB, neither compressed nor encrypted.
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
        assert not entry & 1 << 62, "compressed"
        start = number * _CLUSTER
        length = min(_CLUSTER, size - start)
        if entry & 1:
            content[start : start + length] = bytes(length)
        elif place := entry & _OFFSET:
            content[start : start + length] = image[place : place + length]
    return bytes(content)
