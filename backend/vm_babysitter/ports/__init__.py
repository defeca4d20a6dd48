"""What the engine needs of the world, as protocols. Adapters implement them."""

from vm_babysitter.ports.disks import (
    DiskExports,
    DiskReader,
    DiskWriter,
    Fingerprint,
    ImageInfo,
    ImageTool,
)
from vm_babysitter.ports.host import (
    Clock,
    FreezeGuard,
    FreezeWatch,
    Observer,
    RestoreFiles,
    RestorePlace,
    ScratchPlaces,
)
from vm_babysitter.ports.hypervisor import (
    ActiveJob,
    BackupRequest,
    DiskRequest,
    Export,
    Hypervisor,
    JobKind,
)
from vm_babysitter.ports.store import (
    BlockIndex,
    ImageWriter,
    IndexWriter,
    PointDraft,
    Store,
    StoredVm,
    WrittenFile,
)

__all__ = [
    "ActiveJob",
    "BackupRequest",
    "BlockIndex",
    "Clock",
    "DiskExports",
    "DiskReader",
    "DiskRequest",
    "DiskWriter",
    "Export",
    "Fingerprint",
    "FreezeGuard",
    "FreezeWatch",
    "Hypervisor",
    "ImageInfo",
    "ImageTool",
    "ImageWriter",
    "IndexWriter",
    "JobKind",
    "Observer",
    "PointDraft",
    "RestoreFiles",
    "RestorePlace",
    "ScratchPlaces",
    "Store",
    "StoredVm",
    "WrittenFile",
]
