"""Time and chance that a test controls: ``ports.Clock``."""

import uuid
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Implements ``ports.Clock``: time stands still until ``advance``; ids count up."""

    def __init__(self, now: datetime = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)) -> None:
        self._now = now
        self._ids = 0
        self._nonces = 0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._now

    def new_id(self) -> str:
        self._ids += 1
        return str(uuid.UUID(int=self._ids << 96, version=4))

    def new_nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:06x}"
