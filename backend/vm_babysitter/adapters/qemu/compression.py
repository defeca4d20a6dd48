"""The ways of compressing a cluster that qcow2 knows."""

import threading
import zlib
from typing import Protocol

import zstandard


class Compression(Protocol):
    """Compresses clusters as QEMU wants them. Safe for threads, and lets others run."""

    name: str
    """As the manifest has it."""
    type: int
    """As the qcow2 header has it."""

    def compress(self, cluster: memoryview) -> bytes:
        """Return the compressed form, however long it is."""


class Zstd:
    """One zstd frame per cluster; needs a QEMU that was built with zstd."""

    name = "zstd"
    type = 1

    def __init__(self, level: int = 1) -> None:
        self._level = level
        self._own = threading.local()  # a compressor is of one thread at a time

    def compress(self, cluster: memoryview) -> bytes:
        """See Compression."""
        compressor: zstandard.ZstdCompressor | None = getattr(self._own, "compressor", None)
        if compressor is None:
            # No checksum, as QEMU writes frames: the block index has a better one.
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=False)
            self._own.compressor = compressor
        return compressor.compress(cluster)


class Zlib:
    """A raw deflate stream per cluster with a window of 4 KiB; every QEMU reads it."""

    name = "zlib"
    type = 0

    def __init__(self, level: int = 1) -> None:
        self._level = level

    def compress(self, cluster: memoryview) -> bytes:
        """See Compression."""
        stream = zlib.compressobj(self._level, zlib.DEFLATED, -12, 9)
        return stream.compress(cluster) + stream.flush()


COMPRESSION_TYPES = {way.name: way.type for way in (Zstd, Zlib)}
"""What the header says of each way, by its name in the manifest."""


def expand(kind: int, data: bytes, size: int) -> bytes:
    """Return a cluster of ``size`` bytes from its compressed form; what follows that is ignored.

    ``kind`` is the compression type of the header.

    Raises:
        ValueError: it is damaged, or of a kind that we do not know.
    """
    try:
        if kind == Zstd.type:
            if zstandard.get_frame_parameters(data).content_size != size:
                raise ValueError("compressed data is damaged (it tells of another length)")
            found = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif kind == Zlib.type:
            found = zlib.decompressobj(-15).decompress(data, size)
        else:
            raise ValueError(f"compression of type {kind} is unknown")
    except (zstandard.ZstdError, zlib.error) as error:
        raise ValueError(f"compressed data is damaged ({error})") from error
    if len(found) != size:
        raise ValueError("compressed data is damaged (it has another length)")
    return found
