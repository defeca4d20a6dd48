"""How backups are made."""

from typing import Annotated

from msgspec import Struct

from vm_babysitter.config.forms import RATE
from vm_babysitter.config.keys import about
from vm_babysitter.domain.reread import DEFAULT_RUNS

Compress = Annotated[
    bool, about("Whether what shrinks is stored compressed: less space, more work.", example=True)
]
Limit = Annotated[
    int,
    about(
        "How much a backup or verification reads at most. 0: as fast as it goes.",
        example="50 MiB",
        unit="bytes per second",
        least=0,
        most=1 << 40,
        form=RATE,
    ),
]
LowPriority = Annotated[
    bool, about("Whether VMs come first at processor and disks while a job runs.", example=True)
]
RereadRuns = Annotated[
    int,
    about(
        "Within how many backups every block is read again that change tracking calls unchanged, "
        "as a check. 0: never.",
        example=30,
        unit="backups",
        least=0,
        most=10_000,
    ),
]
Longest = Annotated[
    int,
    about(
        "How long the backup of one VM may take before it is stopped: while it runs, snapshots "
        "of the VM are refused. 0: without end. Full backups are never stopped for it: the "
        "first one of a large VM would never be completed.",
        example=4,
        unit="hours",
        least=0,
        most=240,
    ),
]
TrackSnapshots = Annotated[
    bool,
    about(
        "Whether changes are tracked in images with internal snapshots, too. Faster, but going "
        "back to such a snapshot then needs an extra step.",
        example=False,
    ),
]


class Backup(Struct, frozen=True):
    """How backups are made."""

    compress: Compress = False
    limit: Limit = 0
    low_priority: LowPriority = True
    parallel: Annotated[
        int,
        about(
            "How many VMs are backed up at the same time.", example=2, unit="VMs", least=1, most=4
        ),
    ] = 1
    reread_runs: RereadRuns = DEFAULT_RUNS
    longest: Longest = 12
    track_snapshots: TrackSnapshots = False
