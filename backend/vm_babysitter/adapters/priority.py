"""Leaves processor and disks to the VMs while a job copies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NICE = 10
"""Of 19. Linux derives the priority at the disk from it, too (see ionice(1)): 6 of 7."""


@contextmanager
def lowered() -> Iterator[None]:
    """Run the calling thread, and all that it starts, at a low priority."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if before < _NICE:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    try:
        yield
    finally:
        with suppress(PermissionError):  # only root may go up again
            os.setpriority(os.PRIO_PROCESS, 0, before)
