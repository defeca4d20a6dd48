"""Removing a restore point so that a crash half way is finished by whoever comes next.

A mark beside the point's directory says what is going to be removed. From then on the point counts
as gone. Then go the manifest, so that nobody takes what is left for a point; the files it named;
the directory; what else was noted of it; and the mark last. Files that the manifest does not name
are not ours: they stay, and with them the directory and the mark, which says what it is.

Whoever can write to the folder must not make us remove elsewhere, nor another point: a link in the
place of the directory is not followed, and a mark does not count beside a manifest that it does not
speak of.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.domain.chain import Chain, Removal
from vm_babysitter.domain.errors import Damaged, InvalidInput
from vm_babysitter.domain.point import Point
from vm_babysitter.lib.atomicfile import fsync_directory


def read_removals(entries: Sequence[Path]) -> Iterator[Removal]:
    """Find the marks among the entries of a chain's directory.

    A damaged one does not count: what it told of is then there, or damaged, as it looks. Nor does
    one in whose directory another point lies by now.

    Raises:
        UnsupportedFormat, StoreFailed.
    """
    for entry in entries:
        match = layout.REMOVAL_PATTERN.fullmatch(entry.name)
        if match is None:
            continue
        try:
            removal = documents.read(entry, "removal", Removal)
        except Damaged:
            continue
        named_well = all(map(layout.FILE_NAME.fullmatch, removal.files))
        if removal.directory != match[1] or not named_well:
            continue
        if not _is_anothers(entry.with_name(removal.directory), removal):
            yield removal


def remove_points(path: Path, chain: Chain, seqs: Sequence[int]) -> None:
    """Remove points of a chain, the newest first.

    Raises:
        InvalidInput: there is no such point, or another one builds on it; nothing is removed.
        StoreFailed: doing it again goes on.
    """
    _refuse(path, chain, seqs)
    for seq in sorted(seqs, reverse=True):
        stored = chain.find(seq)
        if stored is not None:
            removal = _removal_of(stored.point)
            mark = path / layout.removal_file(removal.directory)
            documents.write(mark, "removal", removal)
            finish_removal(path, removal)


def finish_removal(path: Path, removal: Removal) -> None:
    """Remove what is left of a point that is marked. Raises StoreFailed."""
    point = path / removal.directory
    failing(point, partial(_finish, path, point, removal))


def forget_unwritten(path: Path) -> None:
    """Remove marks of a chain that were never written to their end. Raises StoreFailed."""
    for entry in failing(path, lambda: sorted(path.glob(".*.removal.json.tmp"))):
        failing(entry, partial(entry.unlink, missing_ok=True))


def _refuse(path: Path, chain: Chain, seqs: Sequence[int]) -> None:
    for seq in seqs:
        name, stored = f"{path.name}/{seq:06d}", chain.find(seq)
        if stored is None:
            raise InvalidInput("POINT", name, "is not there or not readable")
        if not all(map(layout.FILE_NAME.fullmatch, _removal_of(stored.point).files)):
            raise InvalidInput("POINT", name, "names files outside of its folder")
        if seq in {each.seq for each in chain.renamed}:  # its directory may be another's
            way_out = "`repair` gives it its name back."
            raise InvalidInput("POINT", name, "lies in a folder of another name", way_out)
    children = chain.children(set(seqs))
    if children:
        names = ", ".join(f"{path.name}/{seq:06d}" for seq in children)
        raise InvalidInput("POINT", names, "builds on what is to be removed", "Remove it as well.")


def _removal_of(point: Point) -> Removal:
    files = [name for disk in point.disks for name in (disk.file, disk.index)]
    files += [file.name for file in point.files]
    return Removal(point.seq, point.level, point.nonce, tuple(files))


def _is_anothers(point: Path, removal: Removal) -> bool:
    """Whether a directory has the manifest of another point than the one to be removed."""
    try:
        return documents.read(point / layout.POINT_FILE, "point", Point).nonce != removal.nonce
    except Damaged:
        return False


def _finish(path: Path, point: Path, removal: Removal) -> None:
    if _is_anothers(point, removal):
        return
    if not _is_emptied(point, removal):
        if not removal.done:
            mark = path / layout.removal_file(removal.directory)
            documents.write(mark, "removal", replace(removal, done=True))
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        point.rmdir()
        fsync_directory(path)
    (path / layout.damage_file(removal.directory)).unlink(missing_ok=True)
    (path / layout.removal_file(removal.directory)).unlink(missing_ok=True)
    fsync_directory(path)


def _is_emptied(point: Path, removal: Removal) -> bool:
    """Remove a point's files. Returns False if something of others keeps the directory there."""
    try:
        folder = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
        return not point.is_symlink()  # what it leads to is not ours
    try:
        _unlink(layout.POINT_FILE, folder)
        os.fsync(folder)
        for name in removal.files:
            _unlink(name, folder)
        return not os.listdir(folder)  # noqa: PTH208 - the one that was opened
    finally:
        os.close(folder)


def _unlink(name: str, folder: int) -> None:
    with suppress(FileNotFoundError, IsADirectoryError):  # a directory is none of ours
        os.unlink(name, dir_fd=folder)
