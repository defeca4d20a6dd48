"""Is the backup folder the one that was set up, and is it there? Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """What lies where the backup folder should be."""

    RIGHT = "right"
    """The one that was set up, or one of ours where none was yet."""
    NEW = "new"
    """No backup folder yet: the first backup makes it one."""
    RENEWED = "renewed"
    """The folder that was set up, without what marks it: it was emptied, or that file is lost."""
    OTHER = "other"
    """Another backup folder."""
    AWAY = "away"
    """Nothing, or a folder on another file system: its disk is not mounted."""


@dataclass(frozen=True, slots=True)
class FoundStore:
    """What was found at the path of the backup folder."""

    there: bool
    """Whether there is a folder."""
    id: str = ""
    """Of the backup folder that it is; empty if it is none, or its mark is damaged or lost."""
    filesystem: str = ""
    """What tells the file system that it lies on from others, as long as it is mounted so."""


def standing(known_id: str, known_filesystem: str, found: FoundStore) -> Standing:
    """Judge what was found by what was noted when the folder was set up; empty: it was not."""
    if not found.there:
        return Standing.AWAY
    if found.id:
        return Standing.RIGHT if known_id in ("", found.id) else Standing.OTHER
    if not known_id:
        # Of one that was emptied the file system is still known.
        new = known_filesystem in ("", found.filesystem)
        return Standing.NEW if new else Standing.AWAY
    # A disk may have another name after a restart. Then a folder without its mark waits for
    # a person: better than backing up into the folder where the disk is to be mounted.
    return Standing.RENEWED if known_filesystem == found.filesystem else Standing.AWAY


def why_not(found: Standing, path: str) -> str:
    """Say why there can be no backups now, as a part of a sentence; empty if there can."""
    if found is Standing.AWAY:
        return f"the backup folder {path!r} is not there; its disk may not be mounted"
    if found is Standing.OTHER:
        return f"another backup folder than the one that was set up lies at {path!r}"
    return ""
