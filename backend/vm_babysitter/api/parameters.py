"""Types of what comes in paths and queries."""

from typing import Annotated

from msgspec import Meta

LARGEST = (1 << 53) - 1
"""The largest whole number that every reader of JSON knows."""
MOST = 500
"""Entries of a list."""
VmName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)",
        description="UUID or name of a VM.",
        examples=["Windows 11"],
    ),
]
JobNumber = Annotated[int, Meta(ge=1, le=LARGEST, description="Number of a job.")]
Count = Annotated[int, Meta(ge=1, le=MOST, description="The most that are listed.")]
