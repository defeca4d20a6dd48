"""Whether the backups of a VM are good, and what is done if not."""

from dataclasses import dataclass
from typing import Self

from vm_babysitter.domain.diagnosis import Diagnosis, Health
from vm_babysitter.domain.findings import Finding
from vm_babysitter.domain.repair_plan import RepairPlan, Step, plan_repair
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.repair import Repaired


@dataclass(frozen=True, slots=True)
class PointHealthView:
    """Whether one restore point can be restored, as far as a look tells."""

    point: str
    """``<chain>/<seq>``."""
    problem: str
    """Why it cannot be restored as a whole; empty if it can."""
    disks: tuple[str, ...]
    """The disks that can be restored."""
    waits: bool
    """Whether a repair has to put something of it right before."""


@dataclass(frozen=True, slots=True)
class HealthView:
    """What was found of a VM's backups, and what is done about it."""

    vm: str
    uuid: str
    state: PowerState | None
    """None if libvirt has no such VM any more."""
    health: Health | None
    """None where there is no backup folder to look into."""
    newest: str | None
    """The newest restore point that can be restored as a whole."""
    unchanged_since: str | None
    """The restore point that a VM which is off still is as."""
    findings: tuple[Finding, ...]
    points: tuple[PointHealthView, ...]
    steps: tuple[Step, ...]
    lost: tuple[str, ...]
    """The restore points that cannot be restored as a whole any more."""

    @classmethod
    def of(
        cls, diagnosis: Diagnosis, plan: RepairPlan | None = None, *, known: bool = True
    ) -> Self:
        """Show a diagnosis and what is done about it.

        Args:
            diagnosis: what was found.
            plan: that of the repair; left out, it is the one without consent.
            known: whether there is a backup folder: else no health is told, and no steps.
        """
        facts = diagnosis.facts
        planned = plan_repair(diagnosis) if plan is None else plan
        return cls(
            vm=facts.name,
            uuid=facts.uuid,
            state=None if facts.vm is None else facts.vm.state,
            health=diagnosis.health if known else None,
            newest=None if diagnosis.newest is None else diagnosis.newest.name,
            unchanged_since=facts.current or None,
            findings=diagnosis.findings,
            points=tuple(
                PointHealthView(p.name, p.problem, p.disks, p.waits) for p in diagnosis.points
            ),
            steps=planned.steps if known else (),
            lost=planned.lost,
        )


@dataclass(frozen=True, slots=True)
class RepairView:
    """What a repair came to."""

    done: tuple[Step, ...]
    left: tuple[Step, ...]
    """What the next backup, or repair, tries again."""
    failed: tuple[Step, ...]
    """What was tried in vain, and is not tried again."""
    before: Health
    after: HealthView

    @classmethod
    def of(cls, result: Repaired) -> Self:
        """Show the result of a repair."""
        after = HealthView.of(result.after.diagnosis, result.plan)
        return cls(result.done, result.left, result.failed, result.before.health, after)
