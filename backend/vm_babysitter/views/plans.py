"""What the next backup of a VM would do, and why."""

from dataclasses import dataclass
from typing import Any, Literal, Self

from msgspec import UNSET, UnsetType

from vm_babysitter.domain.backup_plan import DiskPlan
from vm_babysitter.domain.cost import Cost, DiskCost, estimate
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.engine.planning import Planned
from vm_babysitter.views.health import HealthView


def cost_of(planned: Planned) -> Cost:
    """Estimate what a planned backup costs."""
    return estimate(
        planned.plan, planned.disks, planned.states, planned.chain, reread_runs=DEFAULT_RUNS
    )


@dataclass(frozen=True, slots=True)
class PlanDiskView:
    """How one disk comes into the next restore point."""

    target: str
    method: Method
    reason: str
    since: str | None
    """The checkpoint whose change tracking says what to read."""
    tracked: bool
    read_bytes: int | None
    """About; None where it is not known before the backup begins."""
    convertible: bool

    @classmethod
    def of(cls, disk: DiskPlan, cost: DiskCost) -> Self:
        """Show the plan of a disk with its cost."""
        since = None if disk.since is None else disk.since.name
        return cls(
            disk.target,
            disk.method,
            disk.reason,
            since,
            disk.track,
            cost.read_bytes,
            cost.convertible,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """The next backup of a VM, and how its backups are now.

    Where there is nothing to do, ``level`` is null, ``unchanged_since`` says since which restore
    point, and all that tells of a backup is left out. Else ``unchanged_since`` is left out.
    """

    vm: str
    uuid: str
    level: Literal["full", "inc"] | None
    unchanged_since: str | UnsetType | None = UNSET
    new_chain: bool | UnsetType = UNSET
    parent: int | UnsetType | None = UNSET
    """Number of the restore point that it builds on."""
    reasons: tuple[str, ...] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET
    notes: tuple[str, ...] | UnsetType = UNSET
    read_bytes: int | UnsetType = UNSET
    read_bytes_complete: bool | UnsetType = UNSET
    """Whether it is known of each disk; else it is at least that much."""
    seconds: float | UnsetType = UNSET
    bytes_per_second: int | UnsetType = UNSET
    speed_measured: bool | UnsetType = UNSET
    """Whether an earlier backup read at that speed; else it is assumed."""
    foreign: tuple[str, ...] | UnsetType = UNSET
    """What other programs have on this VM."""
    disks: tuple[PlanDiskView, ...] | UnsetType = UNSET
    diagnosis: HealthView

    @classmethod
    def of(cls, found: Diagnosed) -> Self:
        """Show what was found of a VM and planned for it."""
        diagnosis = found.diagnosis
        facts = diagnosis.facts
        planned = found.planned
        doing: dict[str, Any]
        if planned is None:
            doing = {"level": None, "unchanged_since": facts.current or None}
        else:
            doing = _doing(planned)
        return cls(vm=facts.name, uuid=facts.uuid, **doing, diagnosis=HealthView.of(diagnosis))


def _doing(planned: Planned) -> dict[str, Any]:
    plan, cost = planned.plan, cost_of(planned)
    return {
        "level": plan.level,
        "new_chain": plan.new_chain,
        "parent": None if plan.parent is None else plan.parent.seq,
        "reasons": plan.reasons,
        "warnings": plan.warnings,
        "notes": plan.notes,
        "read_bytes": cost.read_bytes,
        "read_bytes_complete": cost.complete,
        "seconds": round(cost.seconds, 1),
        "bytes_per_second": round(cost.bytes_per_second),
        "speed_measured": cost.measured,
        "foreign": plan.foreign,
        "disks": tuple(
            PlanDiskView.of(disk, its) for disk, its in zip(plan.disks, cost.disks, strict=True)
        ),
    }
