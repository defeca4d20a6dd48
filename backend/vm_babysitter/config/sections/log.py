"""What is written down, and how long it is kept."""

from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.forms import SIZE
from vm_babysitter.config.keys import about


class Log(Struct, frozen=True):
    """What is written down, and how long it is kept."""

    level: Annotated[
        Literal["error", "warning", "info", "debug"],
        about("How much is written to the main log.", example="info"),
    ] = "info"
    size: Annotated[
        int,
        about(
            "How large one file of the main log becomes before the next is begun.",
            example="5 MiB",
            unit="bytes",
            least=64 << 10,
            most=1 << 30,
            form=SIZE,
        ),
    ] = 5 << 20
    files: Annotated[
        int,
        about(
            "How many files of the main log are kept, the one being written included.",
            example=5,
            unit="files",
            least=2,
            most=100,
        ),
    ] = 5
    job_days: Annotated[
        int,
        about(
            "How long the history of jobs and their logs are kept.",
            example=90,
            unit="days",
            least=1,
            most=3650,
        ),
    ] = 90
