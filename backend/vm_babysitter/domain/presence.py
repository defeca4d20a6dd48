"""What has become of a VM and its host since its last backup. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Seen:
    """In what run of which host, and in what run of its own, a VM was backed up last."""

    host: str
    """Identity of the host, see ``ports.ThisHost``."""
    host_name: str
    boot_id: str
    """Empty where it is not known."""
    started: str
    """Tells the QEMU process of the VM from others; empty where it was off."""
    at: datetime
    crashed: bool = False
    """Whether the host has gone down hard, and nothing was read again since.

    Written when that is found: what else tells of it is gone once the backup has tidied up.
    """

    def same_run(self, other: "Seen") -> bool:
        """Whether both are of the same runs, at whatever time."""
        mine = (self.host, self.boot_id, self.started, self.crashed)
        return mine == (other.host, other.boot_id, other.started, other.crashed)


class Since(StrEnum):
    """What happened since a backup; the values are sentences."""

    SAME_RUN = "The VM and its host have run on since the last backup, or the VM was off all along."
    VM_RESTARTED = "The VM was started, or switched off, since the last backup."
    HOST_RESTARTED = "The host was restarted in good order since the last backup."
    WENT_DOWN_HARD = "The host went down hard since the last backup: a power cut, or a crash."
    ANOTHER_HOST = "The last backup was made by another host."
    UNKNOWN = "Nothing tells what happened since the last backup."


def since(
    old: Seen | None, new: Seen, *, attempt_of_other_boot: bool, tracking_damaged: bool
) -> Since:
    """Say what happened between two looks at a VM.

    Args:
        old: of the last backup, if there was one that noted it.
        new: of now.
        attempt_of_other_boot: a backup that another run of the host has begun is unfinished.
        tracking_damaged: change tracking of ours was not stored in good order.
    """
    if attempt_of_other_boot or (old is not None and old.crashed):
        return Since.WENT_DOWN_HARD
    if old is None:
        return Since.UNKNOWN
    if old.host != new.host:
        return Since.ANOTHER_HOST
    if not old.boot_id or not new.boot_id:
        return Since.UNKNOWN
    if old.boot_id != new.boot_id:
        return Since.WENT_DOWN_HARD if tracking_damaged else Since.HOST_RESTARTED
    return Since.SAME_RUN if old.started == new.started else Since.VM_RESTARTED
