"""Finds out which compression QEMU on this host reads: zstd is an option of its build."""

import tempfile
from pathlib import Path

from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.qemu.compression import Compression, Zlib, Zstd
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer
from vm_babysitter.domain.blocks import BLOCK_SIZE, Piece
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.ports import ImageTool, Observer

_CONTENT = b"Does it shrink? ".ljust(32, b"\xa5") * (BLOCK_SIZE // 32)


def choose_compression(images: ImageTool, observer: Observer) -> Compression:
    """Return zstd if QEMU reads it here, else zlib, which takes longer; say so in a note."""
    zstd = Zstd()
    reason = why_not(zstd, images)
    if not reason:
        return zstd
    observer.note(
        f"QEMU on this host does not read what is compressed with zstd ({reason}). "
        "zlib is used instead, which takes more time."
    )
    return Zlib()


def why_not(compression: Compression, images: ImageTool) -> str:
    """Write a tiny image and have it checked and read; return what fails, empty if nothing."""
    try:
        with tempfile.TemporaryDirectory(prefix="vm-babysitter-") as folder:
            path = Path(folder) / "probe.qcow2"
            _write(path, compression)
            problem = images.check(path)
            if problem:
                return problem
            return "" if _read(path, images) == _CONTENT else "it reads something else"
    except BabysitterError as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)


def _write(path: Path, compression: Compression) -> None:
    writer = Qcow2Writer(path, len(_CONTENT), compression=compression)
    try:
        writer.map_data(0, writer.append(memoryview(_CONTENT), [fingerprint(_CONTENT)]), 1)
        writer.finish()
    finally:
        writer.discard()


def _read(path: Path, images: ImageTool) -> bytes:
    found = bytearray(len(_CONTENT))

    def keep(piece: Piece, _tag: None, data: memoryview) -> None:
        found[piece.offset : piece.offset + piece.length] = data

    with images.open_for_reading([(path, "qcow2")]) as reader:
        if reader.size != len(_CONTENT):
            return b""
        reader.read([(Piece(0, reader.size), None)], keep)
    return bytes(found)
