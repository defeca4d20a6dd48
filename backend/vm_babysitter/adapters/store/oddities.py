"""What lies in a backup folder and is not as it was left there. Looks only."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from vm_babysitter.adapters.store import layout
from vm_babysitter.adapters.store.documents import failing
from vm_babysitter.adapters.store.places import ChainPlace, VmPlace, chain_places, vm_places
from vm_babysitter.adapters.store.points import FoundPoints, find_points
from vm_babysitter.domain.oddity import Oddity, OddityKind
from vm_babysitter.domain.point import Point

_MANY = 3
_LEFT = "it is left alone"
_USE_THE_COPY = "To use the copy, move the other folder away."


def in_store(store: Path) -> Iterator[Oddity]:
    """Tell what in the backup folder itself is no VM's. Raises UnsupportedFormat, StoreFailed."""
    places = vm_places(store)
    known = {path for place in places for path in (place.path, *place.copies)}
    known |= {store / name for name in layout.IN_STORE}
    yield from _Teller(store, "").foreign(store, known)


def of_vm(store: Path, place: VmPlace) -> Iterator[Oddity]:
    """Tell what is odd about the backups of one VM. Raises UnsupportedFormat, StoreFailed."""
    return _Teller(store, place.document.uuid).of_vm(place)


class _Teller:
    """Tells what is odd in the folder of one VM."""

    def __init__(self, store: Path, uuid: str) -> None:
        self._store = store
        self._uuid = uuid

    def of_vm(self, place: VmPlace) -> Iterator[Oddity]:
        """Tell of a VM's folder and all in it."""
        for copy in place.copies:
            what = f"holds backups of this VM as well, as a copy of {_shown(place.path.name)!r}"
            yield self._tell(OddityKind.COPIED_VM, copy, f"{what}; {_LEFT}", _USE_THE_COPY)
        found = chain_places(place.path, self._uuid)
        for stranger, _ in found.strangers:
            what = f"is a backup series of another VM; {_LEFT}"
            way_out = "Move it into the folder of its VM."
            yield self._tell(OddityKind.OTHER_VMS_CHAIN, stranger, what, way_out)
        for chain in found.chains:
            yield from self._of_chain(chain)
        unreadable = {path for path in found.others if _has_manifests(path)}
        for path in sorted(unreadable):
            what = f"is a backup series of which nothing can be read; {_LEFT}"
            yield self._tell(OddityKind.UNREADABLE_CHAIN, path, what, "")
        known = {place.path / name for name in layout.IN_VM} | unreadable
        yield from self.foreign(place.path, known, found.others)

    def _of_chain(self, place: ChainPlace) -> Iterator[Oddity]:
        path = place.path
        for copy in place.copies:
            what = f"is a copy of the backup series {_shown(path.name)!r}; {_LEFT}"
            yield self._tell(OddityKind.COPIED_CHAIN, copy, what, _USE_THE_COPY)
        entries = failing(path, lambda: sorted(path.iterdir()))
        points = failing(path, lambda: find_points(entries, place.document.id))
        yield from self._of_points(path, points)
        known = {path / name for name in layout.IN_CHAIN}
        known |= {entry for entry in entries if layout.OF_POINTS.fullmatch(entry.name)}
        known |= {folder for folder, _ in (*points.points, *points.copies, *points.strangers)}
        yield from self.foreign(path, known, entries)
        for folder, point in points.points:
            yield from self.foreign(folder, {folder / name for name in _files(point)})

    def _of_points(self, path: Path, points: FoundPoints) -> Iterator[Oddity]:
        for each in points.renamed:
            what = (
                f"is the folder of restore point {path.name}/{each.seq:06d}, called {each.home!r}"
            )
            what += " before: by that name others know it"
            folder = path / each.folder
            yield self._tell(OddityKind.RENAMED_POINT, folder, what, "", path.name, each.seq)
        for folder, point in points.copies:
            what = f"is a copy of restore point {path.name}/{point.seq:06d}; {_LEFT}"
            yield self._tell(OddityKind.COPIED_POINT, folder, what, "", path.name, point.seq)
        for folder, _ in points.strangers:
            what = f"is a restore point of another series; {_LEFT}"
            way_out = "Move it into the folder of its series."
            yield self._tell(OddityKind.OTHER_CHAINS_POINT, folder, what, way_out, path.name)

    def foreign(
        self, folder: Path, known: Collection[Path], entries: Sequence[Path] | None = None
    ) -> Iterator[Oddity]:
        """Tell in one sentence what in a folder is not ours, nor what systems leave everywhere."""
        if entries is None:
            entries = failing(folder, lambda: sorted(folder.iterdir()))
        names = [
            _shown(entry.name)
            for entry in entries
            if entry not in known
            and entry.name not in layout.HARMLESS
            and not layout.UNWRITTEN.fullmatch(entry.name)
        ]
        if names:
            shown = ", ".join(map(repr, names[:_MANY]))
            more = f" and {len(names) - _MANY} more" if names[_MANY:] else ""
            what = f"holds files or folders of others, which stay: {shown}{more}"
            yield self._tell(OddityKind.FOREIGN, folder, what, "")

    def _tell(
        self,
        kind: OddityKind,
        path: Path,
        what: str,
        way_out: str,
        chain: str = "",
        seq: int | None = None,
    ) -> Oddity:
        place = _shown(str(path.relative_to(self._store)))
        name = "the backup folder" if path == self._store else repr(place)
        return Oddity(kind, place, f"{name} {what}", way_out, self._uuid, _shown(chain), seq)


def _has_manifests(path: Path) -> bool:
    manifests = path.glob(f"*/{layout.POINT_FILE}")
    return any(layout.POINT_PATTERN.fullmatch(manifest.parent.name) for manifest in manifests)


def _files(point: Point) -> Iterator[str]:
    yield layout.POINT_FILE
    for disk in point.disks:
        yield from (disk.file, disk.index)
    for file in point.files:
        yield file.name


def _shown(name: str) -> str:
    """Return a name that can be printed, whatever bytes it has."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
