"""Keys that no two things share."""

import os


def new_key() -> str:
    """Return 16 random hex digits."""
    return os.urandom(8).hex()
