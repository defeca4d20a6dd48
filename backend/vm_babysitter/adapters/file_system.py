"""What kind of file system a path lies on."""

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system_type(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return what the kernel calls it (``xfs``, ``fuse.shfs``, ``nfs4``); empty if unknown."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
        real = os.path.realpath(path)
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and right:  # noqa: PLR2004 - see proc(5): the fifth is the place
            place = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            # Of two mounts on one place, the later one is what is seen.
            if _lies_under(real, place) and len(place) >= len(best):
                best, kind = place, right.split(" ")[0]
    return kind


def _lies_under(path: str, place: str) -> bool:
    return place in {"/", path} or path.startswith(f"{place}/")
