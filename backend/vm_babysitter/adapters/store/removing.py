"""Removing a restore point so that a crash half way is finished by whoever comes next.

A mark beside the point's directory says what is going to be removed. From then on the point counts
as gone. Then go the manifest, so that nobody takes what is left for a point; the files it named;
the directory; what else was noted of it; and the mark last. Files that the manifest does not name
are not ours: they stay, and with them the directory and the mark, which says what it is.
"""

from collections.abc import Iterator, Sequence
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

    A damaged one does not count: what it told of is then there, or damaged, as it looks.

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
        if removal.directory == match[1] and named_well:
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
        if chain.find(seq) is None:
            raise InvalidInput("POINT", f"{path.name}/{seq:06d}", "is not there or not readable")
    children = chain.children(set(seqs))
    if children:
        names = ", ".join(f"{path.name}/{seq:06d}" for seq in children)
        raise InvalidInput("POINT", names, "builds on what is to be removed", "Remove it as well.")


def _removal_of(point: Point) -> Removal:
    files = [name for disk in point.disks for name in (disk.file, disk.index)]
    files += [file.name for file in point.files]
    return Removal(point.seq, point.level, point.nonce, tuple(files))


def _finish(path: Path, point: Path, removal: Removal) -> None:
    if point.is_dir():
        (point / layout.POINT_FILE).unlink(missing_ok=True)
        fsync_directory(point)
        for name in removal.files:
            (point / name).unlink(missing_ok=True)
        if any(point.iterdir()):  # somebody else's files
            if not removal.done:
                mark = path / layout.removal_file(removal.directory)
                documents.write(mark, "removal", replace(removal, done=True))
            return
        point.rmdir()
        fsync_directory(path)
    (path / layout.damage_file(removal.directory)).unlink(missing_ok=True)
    (path / layout.removal_file(removal.directory)).unlink(missing_ok=True)
    fsync_directory(path)
