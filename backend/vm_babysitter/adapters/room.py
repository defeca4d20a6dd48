"""The space of file systems."""

import os
from pathlib import Path

from vm_babysitter.domain.space import Room


def room(path: Path) -> Room:
    """Return the file system that ``path`` lies on. Raises OSError."""
    state = os.statvfs(path)
    return Room(
        free=state.f_bavail * state.f_frsize,
        total=state.f_blocks * state.f_frsize,
        device=path.stat().st_dev,
    )
