"""How a chain is read from its directory: what is committed, unfinished or unreadable."""

import errno
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.damage import noted_flaws
from vm_babysitter.adapters.store.documents import ChainDocument, as_failures, failing
from vm_babysitter.adapters.store.index_file import index_size
from vm_babysitter.adapters.store.points import find_points
from vm_babysitter.adapters.store.removing import read_removals
from vm_babysitter.domain.chain import Attempt, Chain, Flaw, StoredPoint, UnreadablePoint
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat
from vm_babysitter.domain.offline import Current
from vm_babysitter.domain.point import Point
from vm_babysitter.lib.atomicfile import is_there

_MANIFEST = layout.POINT_FILE
_DAMAGED = frozenset({errno.ELOOP, errno.ENOTDIR})
"""What looking at a file says that is something else now. All else says that it is out of reach."""


@as_failures
def read_chain(path: Path, document: ChainDocument) -> Chain:
    """Read the chain that ``document`` tells of, with a look at every file's presence and size.

    Raises:
        Damaged, UnsupportedFormat, StoreFailed.
    """
    entries = failing(path, lambda: sorted(path.iterdir()))
    attempts = tuple(_attempts(entries))
    removals = tuple(read_removals(entries))
    ignored = {removal.directory for removal in removals}
    ignored |= {a.directory for a in attempts if not is_there(path / a.directory / _MANIFEST)}
    found = find_points([e for e in entries if e.name not in ignored], document.id)
    nonces = {point.seq: point.nonce for _, point in found.points}
    points = [
        StoredPoint(
            point,
            (*_on_another(point, nonces), *_look(folder, point), *noted_flaws(path, point)),
        )
        for folder, point in found.points
    ]
    return Chain(
        id=document.id,
        directory=path.name,
        state=document.state,
        why=document.why,
        created=document.created,
        points=tuple(sorted(points, key=lambda stored: stored.point.seq)),
        attempts=attempts,
        unreadable=tuple(_as_begun(path, each, points) for each in found.unreadable),
        removals=removals,
        renamed=found.renamed,
        taken=found.taken,
        noted=_noted(path),
    )


def _as_begun(path: Path, found: UnreadablePoint, points: Sequence[StoredPoint]) -> UnreadablePoint:
    """Tell a backup that was never completed from a point that lost its manifest.

    The mark of an attempt is there until its point is complete. Where it is damaged, and nothing
    speaks of a manifest, there was none.
    """
    mark = path / layout.attempt_file(found.directory)
    damage = path / layout.damage_file(found.directory)
    built_on = any(
        stored.point.parent == found.seq
        or any(disk.parent == found.directory for disk in stored.point.disks)
        for stored in points
    )
    manifest = path / found.directory / _MANIFEST
    known = built_on or is_there(damage) or is_there(manifest)
    if known or not is_there(mark):
        return found
    problem = f"the backup was not completed, and its mark {mark.name} is damaged"
    return replace(found, problem=problem, unfinished=True)


def _noted(path: Path) -> Current | None:
    """Read until when the newest point is current. Where nothing tells, the disks are read."""
    try:
        return documents.read(path / layout.CURRENT_FILE, "current", Current)
    except (Damaged, UnsupportedFormat):
        return None


def _attempts(entries: Sequence[Path]) -> Iterator[Attempt]:
    for entry in entries:
        match = layout.ATTEMPT_PATTERN.fullmatch(entry.name)
        if match is None:
            continue
        try:
            attempt = documents.read(entry, "attempt", Attempt)
        except Damaged:  # its point then counts as unreadable and is kept
            continue
        if attempt.directory == match[1]:
            yield attempt


def _on_another(point: Point, nonces: Mapping[int, str]) -> Iterator[Flaw]:
    """Tell if what lies in the place of a point's parent is not what it was made on.

    Images, indexes and digests would all agree, on a content that the disk never had: folders
    were taken away, backups went on, and some of them came back.
    """
    there = None if point.parent is None else nonces.get(point.parent)
    if there and point.parent_nonce and there != point.parent_nonce:
        which = f"{point.parent:06d}"
        yield Flaw("", f"it was made on another restore point {which} than the one that is there")


def _look(path: Path, point: Point) -> Iterator[Flaw]:
    """Tell what of a point's files is missing or has another size."""
    names = [disk.file for disk in point.disks] + [file.name for file in point.files]
    names += [disk.index for disk in point.disks] + [disk.target for disk in point.disks]
    if not all(layout.FILE_NAME.fullmatch(name) for name in names):
        yield Flaw("", "its manifest names a file outside of its folder")
        return  # nothing outside is so much as looked at
    if point.parent is not None and point.parent >= point.seq:
        yield Flaw("", f"it claims to build on a later restore point, {point.parent:06d}")
    for disk in point.disks:
        yield from _look_at(path, disk.file, disk.file_size)
        yield from _look_at(path, disk.index, index_size(disk.index_entries))
    for file in point.files:
        yield from _look_at(path, file.name, file.size)


def _look_at(path: Path, name: str, size: int) -> Iterator[Flaw]:
    try:
        found = (path / name).stat()
    except FileNotFoundError:
        yield Flaw(name, "it is missing")
    except OSError as error:
        evidence = error.errno in _DAMAGED
        yield Flaw(name, f"it cannot be looked at ({error.strerror})", evidence=evidence)
    else:
        if not stat.S_ISREG(found.st_mode):
            yield Flaw(name, "it is no file")
        elif found.st_size != size:
            yield Flaw(name, f"it has {found.st_size} bytes instead of {size}")
