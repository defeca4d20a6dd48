"""The space of file systems."""

import os
from pathlib import Path

from vm_babysitter.domain.space import Room

_UNKNOWN = 1 << 62


def room(path: Path) -> Room:
    """Return the file system that ``path`` lies on. Raises OSError."""
    state = os.statvfs(path)
    if not state.f_blocks:  # a file system that does not tell
        return Room(_UNKNOWN, _UNKNOWN, path.stat().st_dev)
    return Room(
        free=state.f_bavail * state.f_frsize,
        total=state.f_blocks * state.f_frsize,
        device=path.stat().st_dev,
    )
