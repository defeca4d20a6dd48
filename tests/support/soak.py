"""Whether this is a soak, which takes hours and has all cases, and everything as users have it."""

import os

SOAK = os.environ.get("VMB_SOAK") == "1"
