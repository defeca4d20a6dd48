"""What backups and verifications wait for."""

from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.keys import about


class Waits(Struct, frozen=True):
    """What jobs wait for."""

    parity: Annotated[
        Literal["wait", "ignore"],
        about(
            "Whether scheduled jobs wait while the array is checked, rebuilt or cleared: both "
            "would take much longer.",
            example="wait",
        ),
    ] = "wait"
    mover: Annotated[
        Literal["wait", "ignore"],
        about("Whether scheduled jobs wait while the mover moves files.", example="wait"),
    ] = "wait"
