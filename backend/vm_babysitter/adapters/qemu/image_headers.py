"""Headers of images in the backup folder: ``ports.ImageHeaders``.

``qemu-img rebase -u`` gives an image another backing file, and a flipped bit in the header can
make all of it unreadable, though every block is still there. All that a header says follows from
the manifest and from the order in which an image is written; the digest over all clusters, in
which the header comes last, proves it before anything is written. It is written into the very file
that was read: never through a link, nor into what has got its name meanwhile.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from vm_babysitter.adapters.fingerprint import fingerprint, fingerprints
from vm_babysitter.adapters.qemu.compression import COMPRESSION_TYPES
from vm_babysitter.adapters.qemu.qcow2_format import (
    CLUSTER,
    REFCOUNTS,
    TABLE_ENTRIES,
    Tables,
    backing_of,
    encode_backing,
    header,
    parse_header,
)
from vm_babysitter.adapters.store.damage import is_evidence
from vm_babysitter.adapters.store.files import StoredFile
from vm_babysitter.domain.blocks import block_count
from vm_babysitter.domain.errors import StoreFailed
from vm_babysitter.domain.point import PointDisk
from vm_babysitter.ports import Passed

_TELLING = 4096
"""Bytes at the beginning that hold all that a header says."""
_READ_SIZE = 16 * CLUSTER


class FileImageHeaders:
    """Implements ``ports.ImageHeaders``."""

    def problem(self, path: Path, disk: PointDisk) -> str:
        """See the port."""
        with StoredFile(path) as file:
            found = file.read(0, min(_TELLING, file.size))
        if any(found == right[:_TELLING] for right in _possible(disk)):
            return ""
        try:
            parse_header(found)
            backing = backing_of(found)
        except ValueError as error:
            return str(error)
        if backing != disk.backing:
            return f"it builds on {backing!r}, not on {disk.backing!r}"
        return "its header is not what was written"

    def mend(self, path: Path, disk: PointDisk, passed: Passed = lambda _: None) -> bool:
        """See the port."""
        if path.is_symlink() or path.parent.is_symlink():
            return False
        with StoredFile(path) as file:
            identity = file.identity
            try:
                rest = _digest_of_rest(file, passed)
            except StoreFailed as error:
                if is_evidence(error):  # it is damaged, and no failure of the store
                    return False
                raise
        for right in _possible(disk):
            digest = rest.copy()
            digest.update(fingerprint(right))
            if digest.hexdigest() == disk.digest:
                _put(path, identity, right)
                return True
        return False


def _digest_of_rest(file: StoredFile, passed: Passed) -> blake3:
    """Return the digest over all clusters but the first, to be gone on with."""
    rest = blake3()
    for offset in range(0, file.size, _READ_SIZE):
        part = file.read(offset, min(_READ_SIZE, file.size - offset))
        hashes = list(fingerprints(part))
        rest.update(b"".join(hashes[1:] if offset == 0 else hashes))
        file.forget(offset, len(part))
        passed(len(part))
    return rest


def _possible(disk: PointDisk) -> Iterator[bytes]:
    """Yield all headers that this image may have had; there is one up to 2 GiB of file.

    The L1 table, the last refcount blocks and their table end the file. How many refcount blocks
    were written before is not known, because that depends on how writing went.
    """
    backing = encode_backing(disk.backing, None if disk.backing is None else "qcow2")
    kind = COMPRESSION_TYPES.get(disk.compression, 0)
    clusters = -(-disk.file_size // CLUSTER)
    l1_entries = max(1, -(-block_count(disk.virtual_size) // TABLE_ENTRIES))
    l1_clusters = -(-l1_entries // TABLE_ENTRIES)
    all_blocks = -(-clusters // REFCOUNTS)
    counts_clusters = -(-all_blocks // TABLE_ENTRIES)
    counts_place = clusters - counts_clusters
    for blocks in range(1, all_blocks + 1):
        l1_place = counts_place - blocks - l1_clusters
        if l1_place > 0:
            tables = Tables(l1_place, l1_entries, counts_place, counts_clusters)
            yield header(disk.virtual_size, backing, kind, tables)


def _open_itself(path: Path) -> int:
    """Open a file to write into it, reached by no link, nor its folder by one."""
    alone = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | alone)
    try:
        return os.open(path.name, os.O_WRONLY | alone, dir_fd=folder)
    finally:
        os.close(folder)


def _put(path: Path, identity: tuple[int, int], content: bytes) -> None:
    """Write a header; if this is cut off, doing it again does not need what was there."""
    try:
        descriptor = _open_itself(path)
        try:
            state = os.fstat(descriptor)
            if (state.st_dev, state.st_ino) != identity:
                raise StoreFailed(str(path), "it was exchanged while it was checked")
            done = 0
            while done < len(content):
                done += os.pwrite(descriptor, content[done:], done)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreFailed(str(path), error.strerror or str(error)) from error
