"""What is done about a diagnosis, step by step: what it costs, and what is lost by it. Pure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vm_babysitter.domain.chain import Chain, StoredPoint, Trouble, live_chain
from vm_babysitter.domain.cost import ASSUMED_SPEED
from vm_babysitter.domain.diagnosis import Diagnosis, Health
from vm_babysitter.domain.findings import Code, Finding, Weight
from vm_babysitter.domain.oddity import OddityKind
from vm_babysitter.domain.presence import Since


class StepKind(StrEnum):
    """What a step does; stable, for programs."""

    UNDO = "undo"
    """What an interrupted backup left: its job, working space, change tracking, files."""
    FINISH = "finish"
    """What a completed backup had still to do: end its job, remove its working space."""
    RESUME = "resume"
    """Have a VM go on that QEMU paused for want of working space."""
    FORGET = "forget"
    """Have libvirt forget checkpoints of ours; change tracking itself stays."""
    ARCHIVE = "archive"
    """Close a series that an older backup was to close."""
    RENAME = "rename"
    """Give the folder of a restore point its name back."""
    REMOVE = "remove"
    """Finish the removal of a restore point that was begun."""
    RELINK = "relink"
    """Put the header of an image back, if that proves to be all that is wrong with it."""
    REREAD = "reread"
    """Read the newest restore point once more, which a crash of the host may have spoilt."""
    COMPARE = "compare"
    """Compare a disk as a whole, because change tracking cannot tell what changed."""
    UNTRACK = "untrack"
    """Take damaged change tracking out of the VM's images."""
    REMOVE_LOST = "remove-lost"
    """Remove restore points of which nothing can be restored."""
    BACKUP = "backup"
    """The next backup: its new point, and an older series closed when it is complete."""


class By(StrEnum):
    """Who takes a step."""

    BOTH = "both"
    """`repair` does, and so does each backup before it begins."""
    BACKUP = "backup"
    """Only the next backup does."""
    REPAIR = "repair"
    """Only `repair` does."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a repair."""

    kind: StepKind
    by: By
    what: str
    """A sentence for a user, without a full stop."""
    read_bytes: int | None = 0
    """About how many bytes are read for it; None where that is not known yet."""
    seconds: float = 0.0
    """About how long that takes."""
    loss: str = ""
    """What is lost by it; empty if nothing is."""
    needs_consent: bool = False
    """Whether it is taken only if the user says so."""
    chain: str = ""
    seqs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """What the user agrees to."""

    remove_lost: bool = False
    """Remove restore points of which nothing can be restored."""


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What is done about a diagnosis, in this order."""

    steps: tuple[Step, ...]
    lost: tuple[str, ...]
    """The points that cannot be restored as a whole any more, by name. No step loses them:
    they are lost already, and stay where they are."""

    def of(self, *takers: By) -> tuple[Step, ...]:
        """Return the steps that these take, those aside that wait for consent."""
        return tuple(s for s in self.steps if s.by in takers and not s.needs_consent)


NO_CONSENT = RepairPolicy()


def plan_repair(diagnosis: Diagnosis, policy: RepairPolicy = NO_CONSENT) -> RepairPlan:
    """Plan what `repair` and the next backup do about what was found."""
    steps = [
        step
        for finding in diagnosis.findings
        for step in _STEPS.get(finding.code, _nothing)(finding, diagnosis)
    ]
    steps += _remove_lost(diagnosis, policy)
    steps += _next_backup(diagnosis)
    order = list(StepKind)
    steps.sort(key=lambda step: order.index(step.kind))
    return RepairPlan(tuple(steps), tuple(point.name for point in diagnosis.lost))


_Steps = Callable[[Finding, Diagnosis], Iterator[Step]]


def _nothing(_finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    return iter(())


def _undo(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    name = f"{finding.chain}/{finding.seqs[0]:06d}"
    what = f"undo what the interrupted backup {name} left; it never was a restore point"
    yield Step(StepKind.UNDO, By.BOTH, what, chain=finding.chain, seqs=finding.seqs)


def _finish(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    name = f"{finding.chain}/{finding.seqs[0]:06d}"
    what = f"do what was left to do after the backup {name}"
    yield Step(StepKind.FINISH, By.BOTH, what, chain=finding.chain, seqs=finding.seqs)


def _resume(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    if finding.weight is Weight.PERSON:  # not known to be our doing
        return
    yield Step(StepKind.RESUME, By.BOTH, "have the VM go on, once its working space is freed")


def _forget(_finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    what = "have libvirt forget its record of our checkpoints; the change tracking stays"
    yield Step(StepKind.FORGET, By.BOTH, what)


def _archive(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    what = f"close the series {finding.chain}; it is kept"
    yield Step(StepKind.ARCHIVE, By.BOTH, what, chain=finding.chain)


def _rename(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    what = "give the folder its name back"
    yield Step(StepKind.RENAME, By.BOTH, what, chain=finding.chain, seqs=finding.seqs)


def _reread(_finding: Finding, diagnosis: Diagnosis) -> Iterator[Step]:
    facts = diagnosis.facts
    chain = live_chain(facts.chains)
    point = None if chain is None else chain.newest_intact
    if facts.since is Since.WENT_DOWN_HARD and point is not None:
        size = sum(disk.file_size for disk in point.disks)
        what = "read the newest restore point once more: it was written last before that"
        yield Step(StepKind.REREAD, By.BACKUP, what, size, size / ASSUMED_SPEED)


def _compare(finding: Finding, diagnosis: Diagnosis) -> Iterator[Step]:
    what = f"compare {_disks(finding)} as a whole, and store what differs"
    cost = diagnosis.facts.cost
    known = () if cost is None else cost.disks
    amounts = [disk.read_bytes for disk in known if disk.target in finding.targets]
    amount = sum(a for a in amounts if a is not None) if amounts and None not in amounts else None
    seconds = 0.0 if cost is None or amount is None else amount / cost.bytes_per_second
    yield Step(StepKind.COMPARE, By.BACKUP, what, amount, seconds)


def _remove(finding: Finding, _diagnosis: Diagnosis) -> Iterator[Step]:
    name = f"{finding.chain}/{finding.seqs[0]:06d}"
    what = f"finish the removal of {name}, but for files that are not ours"
    yield Step(StepKind.REMOVE, By.BOTH, what, chain=finding.chain, seqs=finding.seqs)


def _untrack(finding: Finding, diagnosis: Diagnosis) -> Iterator[Step]:
    if diagnosis.facts.next is not None and diagnosis.facts.next.parent is not None:
        yield from _compare(finding, diagnosis)
    disks = _disks(finding)
    what = f"take the damaged change tracking out of {disks}: QEMU resizes no disk that has such"
    yield Step(StepKind.UNTRACK, By.BACKUP, what)


def _relink(finding: Finding, diagnosis: Diagnosis) -> Iterator[Step]:
    size = sum(
        link.size
        for link in diagnosis.facts.unlinked
        if link.chain == finding.chain and link.seq in finding.seqs
    )
    what = (
        f"put the header of {', '.join(finding.evidence)} back, once reading the image has proven "
        "that nothing else is wrong with it"
    )
    yield Step(
        StepKind.RELINK,
        By.BOTH,
        what,
        size,
        size / ASSUMED_SPEED,
        "",
        False,
        finding.chain,
        finding.seqs,
    )


def _remove_lost(diagnosis: Diagnosis, policy: RepairPolicy) -> Iterator[Step]:
    """Offer to remove what takes room and can never be restored, not even a disk of it."""
    facts = diagnosis.facts
    for chain in facts.chains:
        copied = {
            oddity.seq
            for oddity in facts.oddities
            if oddity.kind is OddityKind.COPIED_POINT and oddity.chain == chain.directory
        }
        found = {s.point.seq for s in chain.points if _is_gone(chain, s, copied)}
        seqs = tuple(sorted(_with_nothing_on_top(chain, found)))
        if seqs:
            names = ", ".join(f"{seq:06d}" for seq in seqs)
            yield Step(
                StepKind.REMOVE_LOST,
                By.REPAIR,
                f"remove what is left of {chain.directory}: {names}, to have the room",
                loss="what only an expert might still get out of these files",
                needs_consent=not policy.remove_lost,
                chain=chain.directory,
                seqs=seqs,
            )


def _is_gone(chain: Chain, stored: StoredPoint, copied: Collection[int | None]) -> bool:
    """Whether it is certain that nothing of a point can be restored, now or later.

    Not where its manifest lies: that is not to be trusted with names of files. Nor where only
    indexes are lost: `qemu-img convert` needs none.
    """
    seq = stored.point.seq
    if stored.flaw_of() is not None:
        return False
    found = [chain.troubles(seq, disk.target) for disk in stored.point.disks]
    return (
        bool(found)
        and all(any(_loses_data(chain, trouble) for trouble in troubles) for troubles in found)
        and all(
            _is_proof(chain, trouble, seq, copied) for troubles in found for trouble in troubles
        )
    )


def _loses_data(chain: Chain, trouble: Trouble) -> bool:
    """Whether it is about an image, and not an index."""
    stored = chain.find(trouble.seq)
    if trouble.flaw is None or stored is None:
        return True
    return trouble.flaw.file not in {disk.index for disk in stored.point.disks}


def _is_proof(chain: Chain, trouble: Trouble, seq: int, copied: Collection[int | None]) -> bool:
    """Whether what is wrong cannot turn out to be harmless, or be made good.

    What cannot be read may be readable later, and a manifest, or the point that another one was
    made on, be put back. A second folder of a point may take its place. A file that is not what
    was written may differ where nothing lies, and what a verify read wrong in an older point lie
    in blocks that this one does not need: only restoring it would tell.
    """
    if trouble.seq in copied:
        return False
    if trouble.flaw is None:
        known = {s.point.seq for s in chain.points} | {u.seq for u in chain.unreadable}
        return trouble.seq not in known
    flaw, own = trouble.flaw, trouble.seq == seq
    noted = flaw.found is not None
    return bool(flaw.file) and flaw.evidence and (not noted or (flaw.content and own))


def _with_nothing_on_top(chain: Chain, seqs: set[int]) -> set[int]:
    """Return those of the points on which none builds that stays."""
    while needed := {seq for seq in seqs if not set(chain.children({seq})) <= seqs}:
        seqs = seqs - needed
    return seqs


def _next_backup(diagnosis: Diagnosis) -> Iterator[Step]:
    facts = diagnosis.facts
    plan, cost = facts.next, facts.cost
    if plan is None:
        return
    if plan.parent is None:
        what = f"begin a new series with a full backup: {'; '.join(plan.reasons)}"
        if diagnosis.health is Health.RESTORE_ONLY and live_chain(facts.chains) is not None:
            what += "; the old series is closed when that is complete, and kept"
    else:
        what = f"go on in the same series: {'; '.join(plan.reasons)}"
    yield Step(
        StepKind.BACKUP,
        By.BACKUP,
        what,
        cost.read_bytes if cost is not None and cost.complete else None,
        0.0 if cost is None else cost.seconds,
    )


_STEPS: dict[Code, _Steps] = {
    Code.INTERRUPTED: _undo,
    Code.UNFINISHED: _finish,
    Code.STUCK: _resume,
    Code.METADATA_LEFT: _forget,
    Code.SEVERAL_LIVE: _archive,
    Code.RENAMED: _rename,
    Code.REMOVAL: _remove,
    Code.RELINK: _relink,
    Code.HOST: _reread,
    Code.TRACKING_DAMAGED: _untrack,
    Code.TRACKING_LOST: _compare,
}


def _disks(finding: Finding) -> str:
    targets = finding.targets
    return f"{'disk' if len(targets) == 1 else 'disks'} {', '.join(targets)}"
