"""Everything that can go wrong, as types.

Each error has a stable ``code``, typed fields, a message made from them, and a hint that
says the way out. They become exit codes, problem documents and notifications at the edges.

Those that import them need not know in which module each is.
"""

from vm_babysitter.domain.errors.asked import (
    Busy,
    Cancelled,
    DaemonMissing,
    InvalidCron,
    InvalidInput,
)
from vm_babysitter.domain.errors.base import (
    BabysitterError,
    Exit,
)
from vm_babysitter.domain.errors.host import (
    CommandFailed,
    NotEnoughSpace,
    ProgramMissing,
    ScratchUnfit,
    SpaceRunningOut,
    SystemFailed,
)
from vm_babysitter.domain.errors.images import (
    ConnectionLost,
    ImageRefused,
    ImageUnreadable,
    ProtocolViolation,
    TransferFailed,
)
from vm_babysitter.domain.errors.jobs import (
    JobNotFound,
    JobStalled,
    JobTooLong,
    JournalFailed,
)
from vm_babysitter.domain.errors.notify import (
    NotifyFailed,
    NotifyRefused,
    unthought_of,
)
from vm_babysitter.domain.errors.settings import (
    InvalidSettings,
    SettingsChanged,
    SettingsFailed,
)
from vm_babysitter.domain.errors.store import (
    Damaged,
    PointDamaged,
    PointNotFound,
    StoreAway,
    StoreFailed,
    StoreNotGiven,
    StoreNotSetUp,
    StoreRefused,
    StoreTaken,
    UnsupportedFormat,
)
from vm_babysitter.domain.errors.vms import (
    ConversionFailed,
    HypervisorError,
    HypervisorMissing,
    HypervisorUnreachable,
    NotConverted,
    VmInUse,
    VmNotEligible,
    VmNotFound,
    VmStopped,
    VmStuck,
)

__all__ = [
    "BabysitterError",
    "Busy",
    "Cancelled",
    "CommandFailed",
    "ConnectionLost",
    "ConversionFailed",
    "DaemonMissing",
    "Damaged",
    "Exit",
    "HypervisorError",
    "HypervisorMissing",
    "HypervisorUnreachable",
    "ImageRefused",
    "ImageUnreadable",
    "InvalidCron",
    "InvalidInput",
    "InvalidSettings",
    "JobNotFound",
    "JobStalled",
    "JobTooLong",
    "JournalFailed",
    "NotConverted",
    "NotEnoughSpace",
    "NotifyFailed",
    "NotifyRefused",
    "PointDamaged",
    "PointNotFound",
    "ProgramMissing",
    "ProtocolViolation",
    "ScratchUnfit",
    "SettingsChanged",
    "SettingsFailed",
    "SpaceRunningOut",
    "StoreAway",
    "StoreFailed",
    "StoreNotGiven",
    "StoreNotSetUp",
    "StoreRefused",
    "StoreTaken",
    "SystemFailed",
    "TransferFailed",
    "UnsupportedFormat",
    "VmInUse",
    "VmNotEligible",
    "VmNotFound",
    "VmStopped",
    "VmStuck",
    "unthought_of",
]
