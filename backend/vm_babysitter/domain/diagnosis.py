"""What is wrong with a VM's backups, and whether they can go on. Pure.

Facts in, findings out. What is done about them is planned in ``repair_plan``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vm_babysitter.domain.chain import Chain, live_chain
from vm_babysitter.domain.findings import Facts, Finding, Weight, find, restorable
from vm_babysitter.domain.oddity import OddityKind


class Health(StrEnum):
    """What the backups of a VM are good for."""

    GOOD = "good"
    """The newest point is whole, and nothing is to be repaired."""
    REPAIRABLE = "repairable"
    """The chain goes on; what is wrong is mended or passed over without a person."""
    RESTORE_ONLY = "restore-only"
    """There are points to restore, but none to build on: the next backup is a full one."""
    LOST = "lost"
    """There were points, and of none of them all disks can be restored."""
    NONE = "none"
    """There is no backup yet."""
    UNKNOWN = "unknown"
    """It cannot be told now: what would tell is out of reach."""


@dataclass(frozen=True, slots=True)
class PointHealth:
    """Whether one point can be restored, as far as is known without reading all of it."""

    chain: str
    seq: int
    problem: str = ""
    """Why it cannot be restored as a whole; empty if it can."""
    disks: tuple[str, ...] = ()
    """The disks that can be restored."""
    missing: tuple[str, ...] = ()
    """Those that cannot; of a point whose manifest cannot be read they are not known."""
    out_of_reach: bool = False
    """Whether it only cannot be read now, which is no evidence of damage."""
    waits: bool = False
    """Whether a repair has to put something of it right before all of this is so."""

    @property
    def name(self) -> str:
        """As a user writes it: ``<chain>/<seq>``."""
        return f"{self.chain}/{self.seq:06d}"

    @property
    def has_all_disks(self) -> bool:
        """Whether all its disks can be restored, whatever is wrong with files beside them."""
        return bool(self.disks) and not self.missing


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found of a VM's backups."""

    facts: Facts
    health: Health
    findings: tuple[Finding, ...]
    points: tuple[PointHealth, ...]
    """All there are, in order."""

    @property
    def newest(self) -> PointHealth | None:
        """The newest point that can be restored as a whole."""
        good = [point for point in self.points if not point.problem]
        return good[-1] if good else None

    @property
    def lost(self) -> tuple[PointHealth, ...]:
        """The points of which disks cannot be restored any more."""
        return tuple(
            point
            for point in self.points
            if point.problem and not point.out_of_reach and not point.has_all_disks
        )


def diagnose(facts: Facts) -> Diagnosis:
    """Find what is wrong with a VM's backups."""
    points = tuple(_points(facts))
    findings = find(facts)
    return Diagnosis(facts, _health(facts, points, findings), findings, points)


def _health(facts: Facts, points: Sequence[PointHealth], findings: Sequence[Finding]) -> Health:
    live = live_chain(facts.chains)
    if facts.unread:
        return Health.UNKNOWN
    if not points:
        lost = any(oddity.kind is OddityKind.UNREADABLE_CHAIN for oddity in facts.oddities)
        return Health.LOST if lost else Health.NONE
    if not any(point.has_all_disks for point in points):
        return Health.UNKNOWN if any(p.out_of_reach for p in points) else Health.LOST
    if live is None or live.newest_intact is None:
        return Health.RESTORE_ONLY
    newest = live.newest_intact.seq
    passed_over = any(seq > newest for seq in live.unfit) or newest in live.broken
    unreadable = any(u.seq > newest and not u.unfinished for u in live.unreadable)
    mended = any(finding.weight is Weight.MENDED for finding in findings)
    return Health.REPAIRABLE if passed_over or unreadable or mended else Health.GOOD


def _points(facts: Facts) -> Iterator[PointHealth]:
    for chain in sorted(facts.chains, key=lambda c: (c.created, c.directory)):
        broken, waiting = chain.broken, _waiting(facts, chain)
        found = [
            PointHealth(chain.directory, u.seq, u.problem)
            for u in chain.unreadable
            if not u.unfinished
        ]
        for point in (stored.point for stored in chain.points):
            disks = restorable(chain, point)
            found.append(
                PointHealth(
                    chain.directory,
                    point.seq,
                    broken.get(point.seq, ""),
                    disks,
                    missing=tuple(d.target for d in point.disks if d.target not in disks),
                    out_of_reach=chain.out_of_reach(point.seq),
                    waits=point.seq in waiting,
                )
            )
        yield from sorted(found, key=lambda point: point.seq)


def _waiting(facts: Facts, chain: Chain) -> set[int]:
    """Return the points that build on something that is to be put back, or are it."""
    waiting = {link.seq for link in facts.unlinked if link.chain == chain.directory}
    waiting |= {each.seq for each in chain.renamed}
    for stored in chain.points:  # parents come before children
        if stored.point.parent in waiting:
            waiting.add(stored.point.seq)
    return waiting
