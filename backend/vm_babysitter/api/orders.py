"""Orders: what ``POST /jobs`` takes, one type for each kind of job.

What an option that is left out means is said by the settings. One that says what holds anyway is
left out, too: a job that a user asks for is then the same as one that a schedule has queued.
"""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field, to_builtins

from vm_babysitter.api.parameters import VmName
from vm_babysitter.domain.job import JobKind, Option

_Target = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9]+$(?!\n)",
        description="A disk of the VM, by its target.",
        examples=["vda"],
    ),
]
_PointName = Annotated[
    str,
    Meta(
        max_length=128,
        pattern=r"^(latest|[A-Za-z0-9._-]+/[0-9]{1,18})$(?!\n)",
        description="A restore point: `<chain>/<number>`, or `latest`.",
        examples=["latest", "20261124T021500Z/000003"],
    ),
]
_Folder = Annotated[
    str,
    Meta(
        max_length=4096,
        pattern=r"^/[^\x00]*$(?!\n)",
        description="Absolute path of a new or empty folder.",
        examples=["/mnt/user/restored"],
    ),
]
_Rate = Annotated[
    int, Meta(ge=64 << 10, le=1 << 50, description="The most bytes a second that are read.")
]
_Runs = Annotated[
    int,
    Meta(
        ge=0,
        le=10_000,
        description="In the course of so many backups what is called unchanged is read again.",
    ),
]


class _Effort(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How hard a job may work."""

    limit: _Rate | UnsetType = UNSET
    low_priority: (
        Annotated[bool, Meta(description="Whether the VMs come first at processor and disks.")]
        | UnsetType
    ) = UNSET


class BackupOptions(
    _Effort, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of a backup."""

    full: Annotated[bool, Meta(description="Begin a new series with a full backup.")] = False
    compress: Annotated[bool, Meta(description="Compress what shrinks.")] | UnsetType = UNSET
    track_snapshots: (
        Annotated[
            bool, Meta(description="Have change tracking in images with internal snapshots, too.")
        ]
        | UnsetType
    ) = UNSET
    reread_runs: _Runs | UnsetType = UNSET


class VerifyOptions(
    _Effort, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of a verify; without a point all points of the VM are verified."""

    point: _PointName | UnsetType = UNSET
    structure: Annotated[bool, Meta(description="Check the files only, do not read the disks.")] = (
        False
    )


class RepairOptions(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of a repair."""

    remove_lost: Annotated[
        bool, Meta(description="Remove restore points of which nothing can be restored.")
    ] = False


class ReleaseOptions(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of giving a VM back."""

    any_folder: Annotated[
        bool,
        Meta(
            description="Remove the change tracking of all backup folders of VM Babysitter, even "
            "of those that are gone."
        ),
    ] = False


class RestoreOptions(
    _Effort, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of a restore; without disks all are restored, without a format in their own."""

    point: _PointName
    to: _Folder
    disks: Annotated[list[_Target], Meta(max_length=256)] = []
    format: Literal["qcow2", "raw"] | UnsetType = UNSET


class ConvertOptions(
    _Effort, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Options of a conversion."""

    disk: _Target
    undo: Annotated[bool, Meta(description="Give the disk the raw image back that it had.")] = False
    lose_changes: Annotated[
        bool,
        Meta(
            description="With `undo` only: even if the VM has written to the disk since; that is "
            "then lost."
        ),
    ] = False


class _Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    kind: ClassVar[JobKind]
    vm: VmName


class BackupOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="backup"):
    """Make the next restore point of a VM."""

    kind = JobKind.BACKUP
    options: BackupOptions = field(default_factory=BackupOptions)


class VerifyOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="verify"):
    """Prove that restore points would restore what was backed up."""

    kind = JobKind.VERIFY
    options: VerifyOptions = field(default_factory=VerifyOptions)


class RepairOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="repair"):
    """Repair the backups of a VM."""

    kind = JobKind.REPAIR
    options: RepairOptions = field(default_factory=RepairOptions)


class RestoreOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="restore"):
    """Bring the disks of a restore point back as image files."""

    kind = JobKind.RESTORE
    options: RestoreOptions


_LOSE_WITH_UNDO = {
    "if": {"properties": {"lose_changes": {"const": True}}, "required": ["lose_changes"]},
    "then": {"properties": {"undo": {"const": True}}, "required": ["undo"]},
}


class ConvertOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="convert"):
    """Turn a raw disk into qcow2, or back."""

    kind = JobKind.CONVERT
    options: Annotated[ConvertOptions, Meta(extra_json_schema=_LOSE_WITH_UNDO)]


class ReleaseOrder(_Order, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="release"):
    """Give a VM back: it is left alone from now on, and its restore points stay."""

    kind = JobKind.RELEASE
    options: ReleaseOptions = field(default_factory=ReleaseOptions)


Order = BackupOrder | VerifyOrder | RepairOrder | RestoreOrder | ConvertOrder | ReleaseOrder


def options_of(order: Order) -> dict[str, Option]:
    """Return the options as a job has them: those that were given and change something."""
    found: dict[str, Any] = to_builtins(order.options)
    return found


def mistake_in(order: Order) -> tuple[str, str] | None:
    """Say what is wrong with options that do not go together: path and rule."""
    if isinstance(order, ConvertOrder) and order.options.lose_changes and not order.options.undo:
        return "options.lose_changes", "goes with undo only"
    return None
