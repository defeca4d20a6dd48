"""What a backup works with."""

from dataclasses import dataclass, field

from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.ports import (
    Clock,
    DiskExports,
    Fingerprint,
    FreezeGuard,
    Hypervisor,
    Observer,
    ScratchPlaces,
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The world as a backup meets it, and who is told how it goes."""

    hypervisor: Hypervisor
    exports: DiskExports
    places: ScratchPlaces
    guard: FreezeGuard
    clock: Clock
    fingerprint: Fingerprint
    observer: Observer
    cancel: Cancel
    versions: dict[str, str] = field(default_factory=dict)
    """Our own version and such, kept in each point."""
    compress: bool = False
    """Whether the images of points are compressed: their size is not known before."""
