"""How the daemon and what it depends on are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PartState(StrEnum):
    """How a part is."""

    OK = "ok"
    WAITS = "waits"
    """For something that is expected to come."""
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PartView:
    """One part: libvirt, the backup folder, the journal, the settings, and so on."""

    name: str
    state: PartState
    text: str
    """A sentence."""
    hint: str = ""
    """What to do about it; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class SystemView:
    """How the daemon is."""

    version: str
    started: datetime
    ready: bool
    """Whether its start is complete."""
    time_zone: str
    parts: tuple[PartView, ...]
