"""What is different for one VM."""

from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from vm_babysitter.config.keys import about
from vm_babysitter.config.sections.backup import (
    Compress,
    Limit,
    Longest,
    LowPriority,
    RereadRuns,
    TrackSnapshots,
)
from vm_babysitter.config.sections.hooks import After, Before


class BackupOfOne(Struct, frozen=True):
    """How one VM is backed up; what is left out is as for all."""

    compress: Compress | UnsetType = UNSET
    limit: Limit | UnsetType = UNSET
    low_priority: LowPriority | UnsetType = UNSET
    reread_runs: RereadRuns | UnsetType = UNSET
    longest: Longest | UnsetType = UNSET
    track_snapshots: TrackSnapshots | UnsetType = UNSET


class HooksOfOne(Struct, frozen=True):
    """The commands around the backup of one VM; what is left out is as for all."""

    before: Before | UnsetType = UNSET
    after: After | UnsetType = UNSET


class OneVm(Struct, frozen=True):
    """What is different for one VM."""

    backup: Annotated[BackupOfOne, about("As the section `backup`.")] = BackupOfOne()
    hooks: Annotated[
        HooksOfOne,
        about("As the section `hooks`; a command replaces that for all, an empty one is none."),
    ] = HooksOfOne()
