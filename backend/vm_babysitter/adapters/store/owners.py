"""Whose backups a directory holds: ``vm.json``, ``chain.json``, and what stands in for them.

Both say little that the manifests beneath do not say too. So where one is damaged or lost, the
restore points are still found, and the next backup writes it anew.
"""

import logging
from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import ChainDocument, VmDocument
from vm_babysitter.domain.chain import ChainState
from vm_babysitter.domain.errors import Damaged
from vm_babysitter.domain.point import Point

log = logging.getLogger(__name__)


def find_vm(directory: Path) -> VmDocument | None:
    """Read who a directory of the store belongs to, None if nothing in it tells.

    Raises:
        UnsupportedFormat, StoreFailed.
    """
    try:
        return documents.read(directory / layout.VM_FILE, "vm", VmDocument)
    except Damaged as error:
        point = _newest_point(directory, "*/*", error)
        return None if point is None else VmDocument(point.vm_uuid, (point.vm_name,))


def find_chain(directory: Path) -> ChainDocument | None:
    """Read what a chain is, None if nothing in it tells. One that only points tell of is live.

    Raises:
        UnsupportedFormat, StoreFailed.
    """
    try:
        return documents.read(directory / layout.CHAIN_FILE, "chain", ChainDocument)
    except Damaged as error:
        point = _newest_point(directory, "*", error)
        if point is None:
            return None
        begun = layout.chain_begun(directory.name) or point.started
        return ChainDocument(point.chain_id, point.vm_uuid, ChainState.LIVE, "", begun)


def note_vm(directory: Path, uuid: str, name: str) -> None:
    """Note the present name of a VM, in a new ``vm.json`` if the old one is damaged.

    Raises:
        UnsupportedFormat, StoreFailed.
    """
    known = find_vm(directory)
    names = () if known is None else known.names
    document = VmDocument(uuid, (*(other for other in names if other != name), name))
    if not _is_written(directory / layout.VM_FILE, "vm", document):
        documents.write(directory / layout.VM_FILE, "vm", document)


def mend_chain(directory: Path) -> None:
    """Write ``chain.json`` anew if it is damaged. Raises UnsupportedFormat, StoreFailed."""
    document = find_chain(directory)
    if document and not _is_written(directory / layout.CHAIN_FILE, "chain", document):
        documents.write(directory / layout.CHAIN_FILE, "chain", document)


def _is_written(path: Path, kind: str, document: object) -> bool:
    try:
        return documents.read(path, kind, type(document)) == document
    except Damaged:
        return False


def _newest_point(directory: Path, depth: str, problem: Damaged) -> Point | None:
    """Return the newest readable manifest below a directory."""
    for manifest in sorted(directory.glob(f"{depth}/{layout.POINT_FILE}"), reverse=True):
        try:
            return documents.read(manifest, "point", Point)
        except Damaged:
            continue
    if Path(problem.path).exists():
        log.warning("%s The folder is passed over.", problem)
    return None
