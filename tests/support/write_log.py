"""Every write that QEMU makes to an image file, one by one: what kill -9 may leave behind."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("<QQQI")  # magic, version, number of entries, bytes in a sector
_ENTRY = struct.Struct("<QQQQ")  # sector, number of sectors, flags, length of data
_FLUSH, _FUA, _DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Write:
    """One write; zeros where something was discarded."""

    offset: int
    data: bytes


def logging_image(image: Path, log: Path) -> str:
    """Name a qcow2 image to QEMU's tools so that all writes to its file are kept in ``log``."""
    log.touch()
    files = [{"driver": "file", "filename": str(path)} for path in (image, log)]
    file = {"driver": "blklogwrites", "file": files[0], "log": files[1]}
    return "json:" + json.dumps({"driver": "qcow2", "file": file})


def read_log(log: Path) -> Iterator[Write]:
    """Return the writes in their order."""
    content = log.read_bytes()
    _, _, count, sector = _HEAD.unpack_from(content)
    at = sector
    for _ in range(count):
        start, sectors, flags, _ = _ENTRY.unpack_from(content, at)
        at += sector
        length = sectors * sector
        assert flags in {0, _FLUSH, _FUA, _DISCARD}
        if flags == _DISCARD:
            yield Write(start * sector, bytes(length))
        elif length:
            yield Write(start * sector, content[at : at + length])
            at += length


def apply(write: Write, image: Path) -> None:
    """Carry out one write."""
    with image.open("r+b") as file:
        file.seek(write.offset)
        file.write(write.data)
