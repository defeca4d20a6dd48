"""What was done. A verify and a conversion are documents as the engine returns them."""

from dataclasses import dataclass
from typing import Self

from vm_babysitter.domain.point import Point
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.restore import Restored
from vm_babysitter.views.points import stored_bytes


@dataclass(frozen=True, slots=True)
class BackupView:
    """What a backup came to."""

    point: str
    """``<chain>/<seq>``."""
    seconds: float
    stored_bytes: int
    left: str
    """What of the cleaning up is left to the next backup; empty if nothing."""
    vm_resumed: bool
    """Whether QEMU had paused the VM for a while."""
    unchanged: bool
    """Whether no new restore point was needed."""
    manifest: Point

    @classmethod
    def of(cls, result: BackedUp) -> Self:
        """Show the result of a backup."""
        return cls(
            f"{result.chain}/{result.point.seq:06d}",
            result.seconds,
            stored_bytes(result.point),
            result.left,
            result.vm_resumed,
            result.unchanged,
            result.point,
        )


@dataclass(frozen=True, slots=True)
class RestoreView:
    """What a restore came to."""

    point: str
    files: tuple[str, ...]
    content_bytes: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, result: Restored) -> Self:
        """Show the result of a restore."""
        files = tuple(map(str, result.files))
        return cls(result.point, files, result.content_bytes, result.notes)
