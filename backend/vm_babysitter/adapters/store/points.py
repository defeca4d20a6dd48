"""Which restore points lie in the folder of a chain, whatever their folders are called now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.domain.chain import Renamed, UnreadablePoint
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat
from vm_babysitter.domain.point import Point
from vm_babysitter.lib.atomicfile import fsync_directory, is_there

_ASIDE = ".{}.aside"


@dataclass(frozen=True, slots=True)
class FoundPoints:
    """What was found among the entries of a chain's folder."""

    points: tuple[tuple[Path, Point], ...]
    """The points of the chain, and where each lies."""
    unreadable: tuple[UnreadablePoint, ...]
    renamed: tuple[Renamed, ...]
    """Those of ``points`` whose folders have other names than they were given."""
    copies: tuple[tuple[Path, Point], ...]
    """Second folders of points of this chain."""
    strangers: tuple[tuple[Path, Point], ...]
    """Points of other chains, in folders with names of their own."""
    taken: tuple[int, ...]
    """Numbers that no new point can have, because something is called so."""


def find_points(entries: Sequence[Path], chain_id: str) -> FoundPoints:
    """Find the points of a chain among the entries of its folder.

    Raises:
        UnsupportedFormat, StoreFailed.
    """
    sorter = _Sorter(chain_id)
    for entry in entries:
        sorter.take(entry)
    back, copies = _sort_moved(sorter.moved, {entry.name for entry in entries})
    renamed = tuple(Renamed(p.seq, p.directory, entry.name) for entry, p in back)
    parents = {point.parent for _, point in (*sorter.own, *back)}
    replaced = [c for c in copies if _number(c[0]) in parents]
    for entry, _ in replaced:  # something builds on what lay there before
        sorter.belongs_elsewhere(entry, _number(entry))
    return FoundPoints(
        (*sorter.own, *back),
        tuple(sorter.unreadable),
        renamed,
        tuple(copy for copy in copies if copy not in replaced),
        tuple(sorter.strangers),
        tuple(sorter.taken),
    )


class _Sorter:
    """Tells by the manifests what the entries of a chain's folder are."""

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id
        self.own: list[tuple[Path, Point]] = []
        self.moved: list[tuple[Path, Point]] = []
        self.strangers: list[tuple[Path, Point]] = []
        self.unreadable: list[UnreadablePoint] = []
        self.taken: list[int] = []

    def take(self, entry: Path) -> None:
        """Sort one entry; what is not like a point is left aside."""
        parsed = layout.parse_point_directory(entry.name)
        if parsed is None:
            self._with_a_name_of_its_own(entry)
        elif not entry.is_dir():
            self.taken.append(parsed[0])
        else:
            self._named_like_a_point(entry, parsed[0])

    def _with_a_name_of_its_own(self, entry: Path) -> None:
        if not (entry / layout.POINT_FILE).is_file():
            return
        try:
            point = documents.read(entry / layout.POINT_FILE, "point", Point)
        except (Damaged, UnsupportedFormat):
            return
        (self.moved if point.chain_id == self._chain_id else self.strangers).append((entry, point))

    def _named_like_a_point(self, entry: Path, seq: int) -> None:
        try:
            point = documents.read(entry / layout.POINT_FILE, "point", Point)
        except Damaged as error:
            problem = f"its manifest {layout.POINT_FILE}: {error.reason}"
            self.unreadable.append(UnreadablePoint(seq, entry.name, problem))
            return
        if point.chain_id != self._chain_id:
            self.belongs_elsewhere(entry, seq)
        elif point.directory == entry.name:
            self.own.append((entry, point))
        else:
            self.moved.append((entry, point))
            self.taken.append(seq)

    def belongs_elsewhere(self, entry: Path, seq: int) -> None:
        """Note that a folder has the manifest of another point."""
        problem = "its manifest belongs to another restore point"
        self.unreadable.append(UnreadablePoint(seq, entry.name, problem))


def _number(entry: Path) -> int:
    """Return the sequence number in the name of a folder, -1 where it has none."""
    parsed = layout.parse_point_directory(entry.name)
    return -1 if parsed is None else parsed[0]


def put_back(path: Path, renamed: Sequence[Renamed]) -> None:
    """Give the folders of points in a chain's folder their names back.

    Where two have each other's names, one is put aside first: killed in between, it is found by
    what is in it, as before.

    Raises:
        StoreFailed: doing it again goes on.
    """
    homes = {each.home for each in renamed}
    folders = {}
    for each in renamed:
        folders[each.home] = each.folder
        if each.folder in homes:
            folders[each.home] = _ASIDE.format(each.folder)
            _rename(path / each.folder, path / folders[each.home])
    for home, folder in folders.items():
        _rename(path / folder, path / home)


def _rename(old: Path, new: Path) -> None:
    def rename() -> None:
        if not is_there(new):  # nothing of anybody's is ever replaced
            old.rename(new)
            fsync_directory(new.parent)

    failing(old, rename)


def _sort_moved(
    moved: Sequence[tuple[Path, Point]], names: set[str]
) -> tuple[list[tuple[Path, Point]], list[tuple[Path, Point]]]:
    """Tell the folders that can have their names back from those that are copies."""
    away = {entry.name for entry, _ in moved}
    back: list[tuple[Path, Point]] = []
    copies: list[tuple[Path, Point]] = []
    for entry, point in moved:
        free = point.directory not in names or point.directory in away
        first = all(other.seq != point.seq for _, other in back)
        (back if free and first else copies).append((entry, point))
    return back, copies
