"""The qcow2 format as far as we write it: QEMU's docs/interop/qcow2.txt, version 3."""

import os
import struct
import sys
from array import array
from typing import NamedTuple

from vm_babysitter.domain.blocks import BLOCK_SIZE

CLUSTER = BLOCK_SIZE
SECTOR = 512
TABLE_ENTRIES = CLUSTER // 8
"""Entries of an L2 table: it maps 512 MiB."""
REFCOUNTS = CLUSTER // 2
"""Entries of a refcount block: it counts 2 GiB of file."""
COPIED = 1 << 63
"""The entry's cluster has refcount 1: QEMU may write to it in place."""
READS_ZERO = 1
"""The cluster is zero whatever the backing file holds."""
ZERO_CLUSTER = bytes(CLUSTER)

_CLUSTER_BITS = 16
_COMPRESSED = 1 << 62
_SECTORS_SHIFT = 62 - (_CLUSTER_BITS - 8)
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_LONG_HEADER = 112
"""Length of a header that has the field of the compression type, and its padding."""
_COMPRESSION_TYPE = 1 << 3
"""The incompatible feature: the compression type is not zlib."""
_BACKING_FORMAT = 0xE2792ACA
_LONGEST_BACKING = 1023

Backing = tuple[bytes, bytes]
"""Header extensions and the name of the backing file, as stored."""


class Tables(NamedTuple):
    """Where the two tables lie that all others are found by; places are cluster numbers."""

    l1_place: int
    l1_entries: int
    counts_place: int
    counts_clusters: int


def header(size: int, backing: Backing, compression_type: int, tables: Tables) -> bytes:
    """Return the first cluster of a file."""
    extensions, name = backing
    length = _LONG_HEADER if compression_type else _HEADER.size
    name_offset = length + len(extensions) if name else 0
    fixed = _HEADER.pack(
        b"QFI\xfb",
        3,
        name_offset,
        len(name),
        _CLUSTER_BITS,
        size,
        0,  # not encrypted
        tables.l1_entries,
        tables.l1_place * CLUSTER,
        tables.counts_place * CLUSTER,
        tables.counts_clusters,
        0,  # no snapshots
        0,
        _COMPRESSION_TYPE if compression_type else 0,  # features: incompatible,
        0,  # compatible,
        0,  # autoclear
        4,  # refcounts of 1 << 4 bits
        length,
    )
    if compression_type:
        fixed += bytes([compression_type]).ljust(_LONG_HEADER - len(fixed), b"\0")
    return (fixed + extensions + name).ljust(CLUSTER, b"\0")


def encode_backing(backing: str | None, backing_format: str | None) -> Backing:
    """Return what a header says of a backing file. Raises ValueError."""
    end = bytes(8)
    if backing is None and backing_format is None:
        return end, b""
    if not backing or not backing_format:
        raise ValueError("a backing file needs its format, and a format its file")
    name, kind = os.fsencode(backing), backing_format.encode("ascii")
    if len(name) > _LONGEST_BACKING:
        raise ValueError(f"the backing file's name is longer than {_LONGEST_BACKING} bytes")
    padded = kind + bytes(-len(kind) % 8)
    return struct.pack(">II", _BACKING_FORMAT, len(kind)) + padded + end, name


def compressed_entry(start: int, length: int) -> int:
    """Return the L2 entry of a block whose compressed data lies at byte ``start``.

    It tells the length in sectors only: how many follow that in which the data begins.
    """
    sectors = (start + length - 1) // SECTOR - start // SECTOR
    return _COMPRESSED | sectors << _SECTORS_SHIFT | start


def refcount_clusters(others: int, written: int = 0) -> tuple[int, int]:
    """Return how many refcount blocks and table clusters ``others`` and they themselves need.

    ``written`` refcount blocks are among the others already and are left aside.
    """
    blocks = table = 0
    while True:
        total = others + blocks + table
        wanted = -(-total // REFCOUNTS)
        wanted_table = -(-wanted // TABLE_ENTRIES)
        if (wanted - written, wanted_table) == (blocks, table):
            return blocks, table
        blocks, table = wanted - written, wanted_table


def big_endian(entries: "array[int]") -> bytes:
    """Return numbers as a file holds them."""
    if sys.byteorder == "little":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()
