"""Which host may write to a backup folder."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """The one host that writes to a backup folder, until another takes it over."""

    host: str
    """Its identity, see ``ports.ThisHost``."""
    host_name: str
    """In a user's words."""
    taken: datetime
