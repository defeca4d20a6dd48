"""What lies in a backup folder and is not as it was left there: seen, told, never touched."""

from dataclasses import dataclass
from enum import StrEnum


class OddityKind(StrEnum):
    """What somebody has done to the backup folder, as far as it shows."""

    FOREIGN = "foreign"
    """A file or folder that is not ours."""
    COPIED_VM = "copied-vm"
    """A second folder with backups of one VM."""
    COPIED_CHAIN = "copied-chain"
    """A second folder of one chain."""
    OTHER_VMS_CHAIN = "other-vms-chain"
    """A chain of another VM among those of this one."""
    UNREADABLE_CHAIN = "unreadable-chain"
    """A chain of which no document can be read, so that not even its points are known."""
    OTHER_CHAINS_POINT = "other-chains-point"
    """A restore point of another chain among those of this one."""
    RENAMED_POINT = "renamed-point"
    """A restore point whose folder has another name than it was given."""
    COPIED_POINT = "copied-point"
    """A second folder of one restore point."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """One thing in the backup folder that is not as it was left there."""

    kind: OddityKind
    path: str
    """Where it lies, relative to the backup folder."""
    reason: str
    """What is odd about it, as a sentence without its full stop."""
    way_out: str = ""
    """What can be done about it, as a sentence; empty where nothing need be done."""
    vm_uuid: str = ""
    """The VM in whose folder it lies; empty for what lies in the backup folder itself."""
    chain: str = ""
    """The directory of the chain that it lies in."""
    seq: int | None = None
    """Of the restore point that it is or lies in."""
    target: str = ""
    """Of the disk that it is about."""
    home: str = ""
    """Where it belongs, relative to the backup folder, if that is known."""
