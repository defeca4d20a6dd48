"""Time and chance."""

import os
import uuid
from datetime import UTC, datetime


class SystemClock:
    """Implements ``ports.Clock``."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)

    def new_id(self) -> str:
        """See the port."""
        return str(uuid.uuid4())

    def new_nonce(self) -> str:
        """See the port."""
        return os.urandom(3).hex()
