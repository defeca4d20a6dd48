"""What a backup works with."""

from contextlib import nullcontext
from dataclasses import dataclass, field

from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.pace import Pace
from vm_babysitter.ports import (
    Clock,
    DiskExports,
    Fingerprint,
    FreezeGuard,
    Hypervisor,
    ImageHeaders,
    ImageTool,
    Observer,
    OfflineBitmaps,
    OfflineDisks,
    Priority,
    ScratchPlaces,
    SideFiles,
    ThisHost,
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What it takes to look at VMs, running or off, and at their backups."""

    hypervisor: Hypervisor
    offline: OfflineDisks
    side_files: SideFiles
    fingerprint: Fingerprint
    headers: ImageHeaders
    places: ScratchPlaces
    host: ThisHost


@dataclass(frozen=True, slots=True)
class Tools:
    """The world as a backup meets it, and who is told how it goes."""

    hypervisor: Hypervisor
    exports: DiskExports
    offline: OfflineDisks
    bitmaps: OfflineBitmaps
    places: ScratchPlaces
    side_files: SideFiles
    headers: ImageHeaders
    guard: FreezeGuard
    clock: Clock
    fingerprint: Fingerprint
    observer: Observer
    cancel: Cancel
    pace: Pace
    priority: Priority
    """For the time of the copying."""
    host: ThisHost
    compress: bool = False
    """Whether the images of points are compressed: their size is not known before."""
    versions: dict[str, str] = field(default_factory=dict)
    """Our own version and such, kept in each point."""

    @property
    def sight(self) -> Sight:
        """What of it only looks."""
        return Sight(
            self.hypervisor,
            self.offline,
            self.side_files,
            self.fingerprint,
            self.headers,
            self.places,
            self.host,
        )


@dataclass(frozen=True, slots=True)
class ReadTools:
    """What reading restore points takes, and who is told how it goes."""

    images: ImageTool
    fingerprint: Fingerprint
    observer: Observer
    cancel: Cancel
    pace: Pace
    priority: Priority = nullcontext
