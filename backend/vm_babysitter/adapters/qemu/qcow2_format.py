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

_MAGIC = b"QFI\xfb"
_VERSION = 3
_CLUSTER_BITS = 16
_OFFSET = 0x00FF_FFFF_FFFF_FE00
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
        _MAGIC,
        _VERSION,
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


class Header(NamedTuple):
    """What is needed of an image's header to read it."""

    size: int
    """Virtual size in bytes."""
    compression_type: int
    l1_offset: int
    l1_entries: int


def parse_header(data: bytes) -> Header:
    """Read the header of an image as we write them.

    Raises:
        ValueError: it is another kind of image; with the reason.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("it is no qcow2 image")
    fields = _HEADER.unpack_from(data)
    version, bits, size, encryption = fields[1], fields[4], fields[5], fields[6]
    l1_entries, l1_offset, snapshots, features = fields[7], fields[8], fields[11], fields[13]
    strange = version != _VERSION or bits != _CLUSTER_BITS or encryption or snapshots
    if strange or features & ~_COMPRESSION_TYPE or len(data) < _LONG_HEADER:
        raise ValueError("it is a qcow2 image of a kind that restore points do not have")
    kind = data[_HEADER.size] if features & _COMPRESSION_TYPE else 0
    return Header(size, kind, l1_offset, l1_entries)


def backing_of(data: bytes) -> str | None:
    """Return the backing file that the beginning of an image names, None without one."""
    offset, length = _HEADER.unpack_from(data)[2:4]
    return os.fsdecode(data[offset : offset + length]) if offset else None


def data_offset(entry: int) -> int:
    """Return the byte at which the cluster or table of an entry begins, 0 if it has none."""
    return entry & _OFFSET


def is_compressed(entry: int) -> bool:
    """Whether an L2 entry tells of compressed data."""
    return bool(entry & _COMPRESSED)


def compressed_range(entry: int) -> tuple[int, int]:
    """Return where compressed data begins, and how many bytes from there it has at most."""
    start = entry & (1 << _SECTORS_SHIFT) - 1
    sectors = (entry & ~_COMPRESSED) >> _SECTORS_SHIFT
    return start, (start // SECTOR + sectors + 1) * SECTOR - start


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


def from_big_endian(data: bytes) -> "array[int]":
    """Return the numbers that a file holds."""
    entries = array("Q", data)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def big_endian(entries: "array[int]") -> bytes:
    """Return numbers as a file holds them."""
    if sys.byteorder == "little":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()
