"""``seen.json``: in what run of the host and of the VM a VM was backed up last."""

from pathlib import Path

from vm_babysitter.adapters.store import documents, layout
from vm_babysitter.domain.errors import Damaged, UnsupportedFormat
from vm_babysitter.domain.presence import Seen

_KIND = "seen"


def read_seen(vm: Path) -> Seen | None:
    """Read it from a VM's directory; None where nothing tells. Raises StoreFailed."""
    try:
        return documents.read(vm / layout.SEEN_FILE, _KIND, Seen)
    except (Damaged, UnsupportedFormat):
        return None


def write_seen(vm: Path, seen: Seen) -> None:
    """Write it, if it says something new. Raises StoreFailed."""
    old = read_seen(vm)
    if old is None or not old.same_run(seen):
        documents.write(vm / layout.SEEN_FILE, _KIND, seen)
