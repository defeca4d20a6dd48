"""How a chain is read from its directory: what is committed, unfinished or unreadable."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import ChainDocument, failing
from vm_babysitter.domain.chain import (
    Attempt,
    Chain,
    Point,
    StoredPoint,
    UnreadablePoint,
)
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat
from vm_babysitter.domain.offline import Current


def read_chain(path: Path, document: ChainDocument) -> Chain:
    """Read the chain that ``document`` tells of, with a look at every file's presence and size.

    Raises:
        Damaged, UnsupportedFormat, StoreFailed.
    """
    entries = failing(path, lambda: sorted(path.iterdir()))
    attempts = tuple(_attempts(entries))
    unfinished = {attempt.directory for attempt in attempts}
    points: list[StoredPoint] = []
    unreadable: list[UnreadablePoint] = []
    for entry in entries:
        parsed = layout.parse_point_directory(entry.name)
        if parsed is None or not entry.is_dir():
            continue
        manifest = entry / layout.POINT_FILE
        if entry.name in unfinished and not manifest.exists():
            continue
        try:
            point = documents.read(manifest, "point", Point)
        except Damaged as error:
            problem = f"its manifest {layout.POINT_FILE}: {error.reason}"
            unreadable.append(UnreadablePoint(parsed[0], entry.name, problem))
            continue
        if point.directory != entry.name or point.chain_id != document.id:
            problem = "its manifest belongs to another restore point"
            unreadable.append(UnreadablePoint(parsed[0], entry.name, problem))
        else:
            points.append(StoredPoint(point, _look(entry, point)))
    return Chain(
        id=document.id,
        directory=path.name,
        state=document.state,
        why=document.why,
        points=tuple(points),
        attempts=attempts,
        unreadable=tuple(unreadable),
        noted=_noted(path),
    )


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


def _look(path: Path, point: Point) -> str:
    """Say what of a point's files is missing or has another size, empty if nothing."""
    wanted = [(disk.file, disk.file_size) for disk in point.disks]
    wanted += [(file.name, file.size) for file in point.files]
    wanted_names = [name for name, _ in wanted] + [disk.index for disk in point.disks]
    wanted_names += [disk.target for disk in point.disks]
    if not all(layout.FILE_NAME.fullmatch(name) for name in wanted_names):
        return "its manifest names a file outside of its folder"
    if point.parent is not None and point.parent >= point.seq:
        return f"it claims to build on a later restore point, {point.parent:06d}"
    for name, size in wanted:
        try:
            found = (path / name).stat().st_size
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    missing = [disk.index for disk in point.disks if not (path / disk.index).is_file()]
    return f"{missing[0]} is missing" if missing else ""
