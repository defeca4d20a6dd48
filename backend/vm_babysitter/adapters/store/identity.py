"""Which backup folder lies at a path, and on what: ``ports.FindStore``."""

from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.adapters.store.documents import StoreDocument
from vm_babysitter.adapters.store.place import mount_of
from vm_babysitter.domain.errors import Damaged, StoreFailed
from vm_babysitter.domain.store_standing import FoundStore


def find_store(path: Path) -> FoundStore:
    """See the port."""
    try:
        there = path.is_dir()
        mount = mount_of(path)
    except OSError as error:
        raise StoreFailed(str(path), error.strerror or str(error)) from error
    except (RuntimeError, ValueError) as error:  # links in a circle; a name that cannot be one
        raise StoreFailed(str(path), str(error)) from error
    if not there:
        return FoundStore(there=False)
    filesystem = f"{mount.kind} {mount.source} at {mount.point}"
    try:
        document = documents.read(path / layout.STORE_FILE, "store", StoreDocument)
    except Damaged:
        return FoundStore(there=True, filesystem=filesystem)
    return FoundStore(there=True, id=document.id, filesystem=filesystem)
