"""Where the backup folder is to be, as a daemon looks at it."""

from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.store_standing import FoundStore

GIB = 1 << 30
MARKED = FoundStore(there=True, id="store-1", filesystem="xfs /dev/md1 at /mnt/disk1")
UNMARKED = FoundStore(there=True, filesystem=MARKED.filesystem)
NOTHING = FoundStore(there=False)


@dataclass
class FakeStorePlace:
    """Implements ``ports.FindStore`` by ``find``, and tells the space by ``room``."""

    found: FoundStore = MARKED
    error: BabysitterError | None = None
    free: int = 500 * GIB
    unknown: OSError | None = None
    """Why the space cannot be told."""

    def find(self, _path: Path) -> FoundStore:
        if self.error is not None:
            raise self.error
        return self.found

    def room(self, _path: Path) -> Room:
        if self.unknown is not None:
            raise self.unknown
        return Room(self.free, 1000 * GIB, 1)
