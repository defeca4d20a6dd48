"""When what is done by itself."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule of the settings, and what it comes to."""

    name: str
    kind: str
    when: str
    """As the settings have it."""
    words: str
    """The same for people: ``every day at 02:00``."""
    vms: tuple[str, ...]
    """As the settings have them; none for all that are backed up."""
    enabled: bool
    next: datetime | None
    """None if it is not enabled."""
    last: datetime | None
    """When it was due last and begun; None for never."""
    warnings: tuple[str, ...]
    """What is odd about it."""
