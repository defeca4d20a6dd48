"""Where VMs and chains lie in a backup folder, whatever people have copied or renamed there.

Folders are known by what is in them. Of several that say they are the same, one is the original:
the one with the name that we gave it, else the one with the newest content. The others are left
alone: nothing is read from them, and nothing is written.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vm_babysitter.adapters.store import layout
from vm_babysitter.adapters.store.documents import ChainDocument, VmDocument, as_failures, failing
from vm_babysitter.adapters.store.owners import find_chain, find_vm
from vm_babysitter.domain.errors import BabysitterError, StoreFailed, UnsupportedFormat

D = TypeVar("D", VmDocument, ChainDocument)


@dataclass(frozen=True, slots=True)
class VmPlace:
    """The folder of a VM's backups."""

    path: Path
    document: VmDocument
    copies: tuple[Path, ...] = ()
    """Other folders that say the same."""


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """The folder of a chain."""

    path: Path
    document: ChainDocument
    copies: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainPlaces:
    """What lies in the folder of a VM."""

    chains: tuple[ChainPlace, ...]
    strangers: tuple[tuple[Path, ChainDocument], ...]
    """Chains of other VMs."""
    others: tuple[Path, ...]
    """What is no chain."""


@as_failures
def vm_places(store: Path) -> tuple[VmPlace, ...]:
    """Find the VMs of a store. Raises UnsupportedFormat, StoreFailed."""
    places, failed = _look_for_vms(store)
    for error in failed.values():
        raise error
    return places


def vm_place(store: Path, uuid: str) -> VmPlace | None:
    """Find one VM; what fails with the folders of others does not matter, if it is found.

    Raises:
        UnsupportedFormat, StoreFailed: a folder cannot be read that may be the one.
    """
    places, failed = _look_for_vms(store)
    found = next((place for place in places if place.document.uuid == uuid), None)
    for folder, error in failed.items():
        if found is None or layout.names_vm(folder.name, uuid):
            raise error
    return found


def _look_for_vms(store: Path) -> tuple[tuple[VmPlace, ...], dict[Path, BabysitterError]]:
    """Return the VMs that are found, and the folders that cannot be read, with the reason."""
    found: dict[str, list[tuple[Path, VmDocument]]] = {}
    failed: dict[Path, BabysitterError] = {}
    for entry in failing(store, lambda: sorted(store.iterdir())):
        try:
            document = find_vm(entry) if failing(entry, entry.is_dir) else None
        except (UnsupportedFormat, StoreFailed) as error:
            failed[entry] = error
            continue
        if document is not None:
            found.setdefault(document.uuid, []).append((entry, document))
    places = []
    for same in found.values():
        (path, document), *others = _original_first(same, _named_as_vm, "*/*")
        places.append(VmPlace(path, document, tuple(other for other, _ in others)))
    return tuple(sorted(places, key=lambda place: place.path.name)), failed


@as_failures
def chain_places(directory: Path, vm_uuid: str) -> ChainPlaces:
    """Find what lies in the folder of a VM. Raises UnsupportedFormat, StoreFailed."""
    found: dict[str, list[tuple[Path, ChainDocument]]] = {}
    strangers: list[tuple[Path, ChainDocument]] = []
    folders = list(_folders(directory))
    others = failing(directory, lambda: sorted(directory.iterdir()))
    for entry in folders:
        document = find_chain(entry)
        if document is None:
            continue
        others.remove(entry)
        if document.vm_uuid == vm_uuid:
            found.setdefault(document.id, []).append((entry, document))
        else:
            strangers.append((entry, document))
    places = []
    for same in found.values():
        (path, document), *copies = _original_first(same, _named_as_chain, "*")
        places.append(ChainPlace(path, document, tuple(copy for copy, _ in copies)))
    places.sort(key=lambda place: (place.document.created, place.path.name))
    return ChainPlaces(tuple(places), tuple(strangers), tuple(others))


def _folders(path: Path) -> Iterator[Path]:
    entries = failing(path, lambda: sorted(path.iterdir()))
    return (entry for entry in entries if failing(entry, entry.is_dir))


def _original_first(
    same: Sequence[tuple[Path, D]], is_named: Callable[[Path, D], bool], depth: str
) -> list[tuple[Path, D]]:
    if len(same) == 1:
        return list(same)
    # Those with our own name first, then the newest content, then by name.
    ordered = sorted(same, key=lambda found: found[0].name)
    ordered.sort(key=lambda found: _newest(found[0], depth), reverse=True)
    ordered.sort(key=lambda found: not is_named(*found))
    return ordered


def _named_as_vm(path: Path, document: VmDocument) -> bool:
    names = {layout.vm_directory(name, document.uuid) for name in document.names}
    return path.name in names | {f"{name}-{document.uuid}" for name in names}


def _named_as_chain(path: Path, document: ChainDocument) -> bool:
    return path.name == layout.chain_directory(document.created)


def _newest(path: Path, depth: str) -> tuple[str, ...]:
    """Tell how new the content of a folder is: its newest manifest, by the folders it is in."""
    manifests = path.glob(f"{depth}/{layout.POINT_FILE}")
    found = (manifest.relative_to(path).parts for manifest in manifests)
    return max(found, default=())
