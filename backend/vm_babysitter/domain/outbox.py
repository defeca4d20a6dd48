"""What was told by which way, and since when there is that way. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Outbox:
    """What a journal has noted of telling, to be handed to another one."""

    since: Mapping[str, datetime | None] = field(default_factory=dict)
    """By channel: since when it is on; None: it is off."""
    told: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """By channel and key of an event: whether it was told; False: it is being told."""


NOTHING_NOTED = Outbox()
