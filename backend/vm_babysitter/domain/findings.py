"""What is wrong with a VM's backups, one finding for each thing. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vm_babysitter.domain.backup_plan import BackupPlan
from vm_babysitter.domain.bitmaps import bitmaps_of
from vm_babysitter.domain.chain import Attempt, Chain, ChainState, Flaw, live_chain
from vm_babysitter.domain.cost import Cost
from vm_babysitter.domain.oddity import Oddity, OddityKind
from vm_babysitter.domain.point import Method, Point, checkpoint_prefix
from vm_babysitter.domain.presence import Since
from vm_babysitter.domain.vm import DiskState, PowerState, Vm


class Code(StrEnum):
    """What a finding is about; stable, for programs."""

    INTERRUPTED = "interrupted"
    UNFINISHED = "unfinished"
    UNDER_WAY = "under-way"
    STUCK = "stuck"
    METADATA_LEFT = "metadata-left"
    SEVERAL_LIVE = "several-live"
    RENAMED = "renamed"
    RELINK = "relink"
    REMOVAL = "removal-unfinished"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    OUT_OF_REACH = "out-of-reach"
    MISSING = "missing"
    TRACKING_DAMAGED = "tracking-damaged"
    TRACKING_LOST = "tracking-lost"
    ODD = "odd"
    HOST = "host"
    VM_GONE = "vm-gone"
    NO_BACKUP = "no-backup-possible"


class Weight(StrEnum):
    """What a finding asks for."""

    NOTE = "note"
    """Nothing."""
    MENDED = "mended"
    """It is mended or worked around by itself, and nothing is lost."""
    LOSS = "loss"
    """Restore points are lost; backups go on by themselves."""
    PERSON = "person"
    """Somebody has to see to it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    code: Code
    weight: Weight
    what: str
    """A sentence for a user, without a full stop."""
    evidence: tuple[str, ...] = ()
    """What shows it: names of files, bitmaps, jobs."""
    chain: str = ""
    """Directory of the chain it is about."""
    seqs: tuple[int, ...] = ()
    """Sequence numbers of the points it is about."""
    targets: tuple[str, ...] = ()
    """The disks that it is about."""
    way_out: str = ""
    """What a person can do, where one has to."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """An image of a point whose header is not what was written."""

    chain: str
    seq: int
    file: str
    reason: str
    size: int
    """Bytes of the image, all of which are read to tell whether the header can be put back."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a VM and its backups at one moment."""

    name: str
    uuid: str
    chains: tuple[Chain, ...] = ()
    """All of them, with the flaws that a look at files, indexes and headers shows."""
    vm: Vm | None = None
    """None if libvirt has no such VM."""
    states: tuple[DiskState, ...] = ()
    """Bitmaps of its disks; empty where they could not be looked at."""
    checkpoints: tuple[str, ...] = ()
    """Names of those that libvirt knows."""
    under_way: Mapping[str, str] = field(default_factory=dict)
    """The attempts that a process is at: which, by their nonces."""
    out_of_sight: str = ""
    """Why an interrupted backup may still have a job though libvirt has no such VM."""
    job_socket: str = ""
    """NBD socket of the backup job that libvirt has under way for it."""
    oddities: tuple[Oddity, ...] = ()
    unlinked: tuple[Unlinked, ...] = ()
    """Of all chains; the backup is planned as if these headers were put back."""
    next: BackupPlan | None = None
    """What the next backup would do; None where it cannot be planned, or has nothing to do."""
    cost: Cost | None = None
    """Of the next backup."""
    hindrance: str = ""
    """Why it cannot be planned, with the way out; empty if it can."""
    transient: bool = False
    """Whether that may well be otherwise in a moment."""
    unread: str = ""
    """Why its chains are not known, with the way out; empty if they are."""
    current: str = ""
    """Name of the point that the VM, which is off, still is; then nothing is to be done."""
    since: Since = Since.UNKNOWN
    """What became of host and VM since the last backup."""


STUCK = (
    "QEMU has paused the VM because of a disk error, most likely for want of space: see to the "
    "disks that its images lie on; then `Resume` on Unraid's page of VMs, or `virsh resume`, has "
    "it go on"
)
"""What is said of a VM that nothing of ours has go on."""
_WORTH_A_WORD = frozenset({Since.HOST_RESTARTED, Since.WENT_DOWN_HARD, Since.ANOTHER_HOST})


def find(facts: Facts) -> tuple[Finding, ...]:
    """Find all that is not as it should be."""
    return (
        *_of_attempts(facts),
        *_of_leftovers(facts),
        *(_of_oddity(oddity) for oddity in facts.oddities),
        *(found for chain in facts.chains for found in _of_removals(chain)),
        *map(_of_header, facts.unlinked),
        *(found for chain in facts.chains for found in _of_damage(chain)),
        *_of_tracking(facts),
        *_of_surroundings(facts),
    )


def restorable(chain: Chain, point: Point) -> tuple[str, ...]:
    """Return the disks of a point that can be restored, by their targets."""
    targets = [disk.target for disk in point.disks]
    return tuple(t for t in targets if not chain.disk_problem(point.seq, t))


def _of_attempts(facts: Facts) -> Iterator[Finding]:
    for chain in facts.chains:
        for attempt in chain.attempts:
            name = f"{chain.directory}/{attempt.seq:06d}"
            who = facts.under_way.get(attempt.nonce)
            if who:
                yield Finding(
                    Code.UNDER_WAY,
                    Weight.NOTE,
                    f"a backup, {name}, is under way",
                    (f"begun {attempt.started:%Y-%m-%d %H:%M:%S} UTC by {who}",),
                    chain.directory,
                    (attempt.seq,),
                )
                continue
            stored = chain.find(attempt.seq)
            committed = stored is not None and stored.point.nonce == attempt.nonce
            if committed:
                code, what = Code.UNFINISHED, f"{name} is complete, but not what follows"
            else:
                code, what = Code.INTERRUPTED, f"a backup, {name}, was interrupted"
            evidence = tuple(_remains(facts, attempt))
            yield Finding(code, Weight.MENDED, what, evidence, chain.directory, (attempt.seq,))
            if attempt.ran and facts.vm and facts.vm.state is PowerState.STUCK:
                yield Finding(
                    Code.STUCK,
                    Weight.MENDED,
                    "QEMU has paused the VM because of a disk error while that backup ran, for "
                    "want of working space most likely",
                    chain=chain.directory,
                    seqs=(attempt.seq,),
                )


def _remains(facts: Facts, attempt: Attempt) -> Iterator[str]:
    yield f"begun {attempt.started:%Y-%m-%d %H:%M:%S} UTC"
    if attempt.socket and attempt.socket == facts.job_socket:
        yield "its job is still running in QEMU"
    bitmaps = bitmaps_of(facts.states, attempt.checkpoint)
    if bitmaps:
        targets = sorted({target for _, targets in bitmaps for target in targets})
        yield f"its change tracking is still on {_disks(targets)}"


def _of_leftovers(facts: Facts) -> Iterator[Finding]:
    ours = _ours(facts)
    left = tuple(name for name in facts.checkpoints if name.startswith(ours)) if ours else ()
    if left and not facts.under_way:  # else it needs them, for a moment
        what = (
            "libvirt still has checkpoints of ours on record, which keep the VM from being removed"
        )
        yield Finding(Code.METADATA_LEFT, Weight.MENDED, what, left)
    growing = live_chain(facts.chains)
    older = [
        chain.directory
        for chain in facts.chains
        if chain.state is ChainState.LIVE
        and chain.points
        and chain is not growing
        and not facts.under_way
    ]
    for directory in older:
        what = f"the series {directory} was to be closed when a newer one was begun"
        yield Finding(Code.SEVERAL_LIVE, Weight.MENDED, what, chain=directory)


def _of_oddity(oddity: Oddity) -> Finding:
    if oddity.kind is OddityKind.RENAMED_POINT:
        code, weight = Code.RENAMED, Weight.MENDED
    elif oddity.kind is OddityKind.UNREADABLE_CHAIN:
        code, weight = Code.UNREADABLE, Weight.LOSS
    else:
        code, weight = Code.ODD, Weight.NOTE
    seqs = () if oddity.seq is None else (oddity.seq,)
    return Finding(
        code, weight, oddity.reason, (oddity.path,), oddity.chain, seqs, way_out=oddity.way_out
    )


def _of_removals(chain: Chain) -> Iterator[Finding]:
    for removal in (removal for removal in chain.removals if not removal.done):
        name = f"{chain.directory}/{removal.seq:06d}"
        what = f"the removal of {name} was interrupted"
        evidence = (f"what is left of it: {removal.directory}",)
        yield Finding(Code.REMOVAL, Weight.MENDED, what, evidence, chain.directory, (removal.seq,))


def _of_header(link: Unlinked) -> Finding:
    name = f"{link.chain}/{link.seq:06d}"
    return Finding(
        Code.RELINK,
        Weight.MENDED,
        f"the header of an image of restore point {name} is not what was written: {link.reason}",
        (f"{name}/{link.file}",),
        link.chain,
        (link.seq,),
    )


def _of_damage(chain: Chain) -> Iterator[Finding]:
    """Name each point that is damaged itself or gone, and those that it takes with it."""
    taken = _taken_along(chain)
    for stored in chain.points:
        if not stored.flaws:
            continue
        seq, evidence = stored.point.seq, tuple(map(_words, stored.flaws))
        seqs = (seq, *taken.get(seq, ()))
        if not any(flaw.evidence for flaw in stored.flaws):
            yield _out_of_reach(chain, seqs, evidence)
            continue
        what = f"restore point {chain.directory}/{seq:06d} is damaged"
        if len(restorable(chain, stored.point)) == len(stored.point.disks):
            what += ", but all its disks are whole"
        yield _loss(Code.DAMAGED, what, evidence, chain, seqs)
    yield from _of_unreadable(chain, taken)
    told = {s.point.seq for s in chain.points if s.flaws} | {u.seq for u in chain.unreadable}
    for seq, children in taken.items():
        if seq not in told:
            gone = "is missing" if chain.find(seq) is None else "lacks what others build on"
            what = f"restore point {chain.directory}/{seq:06d} {gone}"
            yield _loss(Code.MISSING, what, (), chain, (seq, *children))


def _of_unreadable(chain: Chain, taken: Mapping[int, Sequence[int]]) -> Iterator[Finding]:
    for unreadable in chain.unreadable:
        seq = unreadable.seq
        name = f"{chain.directory}/{seq:06d}"
        evidence = (f"{unreadable.directory}: {unreadable.problem}",)
        if unreadable.unfinished:
            what = f"an unfinished backup, {name}, is left; it never was a restore point, and stays"
            way_out = "Its folder, and what lies beside it and is called alike, can be moved away."
            yield Finding(
                Code.ODD, Weight.NOTE, what, evidence, chain.directory, (seq,), way_out=way_out
            )
            continue
        what = f"restore point {name} cannot be read"
        yield _loss(Code.UNREADABLE, what, evidence, chain, (seq, *taken.get(seq, ())))


def _words(flaw: Flaw) -> str:
    return f"{flaw.file}: {flaw.reason}" if flaw.file else flaw.reason


def _out_of_reach(chain: Chain, seqs: tuple[int, ...], evidence: tuple[str, ...]) -> Finding:
    what = f"restore point {chain.directory}/{seqs[0]:06d} cannot be read now"
    return Finding(
        Code.OUT_OF_REACH,
        Weight.PERSON,
        f"{_with_those_taken(what, seqs)}; that is no evidence of damage, and nothing is done",
        evidence,
        chain.directory,
        seqs,
        way_out="See to it that these files can be read again.",
    )


def _loss(
    code: Code, what: str, evidence: tuple[str, ...], chain: Chain, seqs: tuple[int, ...]
) -> Finding:
    what = _with_those_taken(what, seqs)
    partly = _partly(chain, seqs)
    if partly:
        what = f"{what}. Single disks can still be restored: {partly}"
    return Finding(code, Weight.LOSS, what, evidence, chain.directory, seqs)


def _with_those_taken(what: str, seqs: tuple[int, ...]) -> str:
    """Add to what is said of a point which others it takes along."""
    taken = seqs[1:]
    names = ", ".join(f"{seq:06d}" for seq in taken)
    return f"{what}; {names} {'builds' if len(taken) == 1 else 'build'} on it" if taken else what


def _partly(chain: Chain, seqs: Sequence[int]) -> str:
    """Say of which disks of these points at least something can be had, where not all can."""
    found: dict[str, list[str]] = {}
    for stored in chain.points:
        targets = restorable(chain, stored.point)
        if stored.point.seq in seqs and len(targets) < len(stored.point.disks):
            for target in targets:
                found.setdefault(target, []).append(f"{stored.point.seq:06d}")
    return "; ".join(f"{target} of {', '.join(names)}" for target, names in found.items())


def _taken_along(chain: Chain) -> dict[int, list[int]]:
    """Return which points, whole by themselves, are lost by which other, damaged or gone.

    Points that are gone are there even if they take none along.
    """
    taken: dict[int, list[int]] = {}
    there = {stored.point.seq for stored in chain.points}
    for stored in chain.points:
        point, causes = stored.point, set[int]()
        if point.parent is not None and point.parent not in there:
            taken.setdefault(point.parent, [])
        for disk in point.disks if not stored.flaws else ():
            causes |= {trouble.seq for trouble in chain.troubles(point.seq, disk.target)[:1]}
        for cause in causes:
            taken.setdefault(cause, []).append(point.seq)
    return taken


def _of_tracking(facts: Facts) -> Iterator[Finding]:
    ours = _ours(facts)
    damaged = sorted(
        {
            (state.target, bitmap.name)
            for state in facts.states
            for layer in state.layers
            for bitmap in layer.bitmaps
            if ours and bitmap.name.startswith(ours) and bitmap.inconsistent
        }
    )
    if damaged:
        targets = tuple(dict.fromkeys(target for target, _ in damaged))
        yield Finding(
            Code.TRACKING_DAMAGED,
            Weight.MENDED,
            f"the change tracking of {_disks(targets)} is damaged: QEMU or the host went down hard",
            tuple(f"{target}: {name}" for target, name in damaged),
            targets=targets,
        )
    if facts.next is None or facts.next.parent is None:
        return
    hurt = {target for target, _ in damaged}
    by_reason: dict[str, list[str]] = {}
    for disk in facts.next.disks:
        if disk.method is Method.SCAN and disk.track and disk.target not in hurt:
            by_reason.setdefault(disk.reason, []).append(disk.target)
    for reason, lost in by_reason.items():
        what = f"what changed on {_disks(lost)} is not known: {reason}"
        yield Finding(Code.TRACKING_LOST, Weight.MENDED, what, targets=tuple(lost))


def _of_surroundings(facts: Facts) -> Iterator[Finding]:
    if facts.since in _WORTH_A_WORD:
        crashed = facts.since is Since.WENT_DOWN_HARD
        what = facts.since.removesuffix(".")
        yield Finding(Code.HOST, Weight.MENDED if crashed else Weight.NOTE, what)
    if facts.unread:
        what = f"what the backup folder holds of it cannot be told now: {facts.unread}"
        yield Finding(Code.OUT_OF_REACH, Weight.PERSON, what)
    resumed = any(attempt.ran for chain in facts.chains for attempt in chain.attempts)
    if facts.vm is not None and facts.vm.state is PowerState.STUCK and not resumed:
        yield Finding(Code.STUCK, Weight.PERSON, STUCK)
    if facts.out_of_sight:
        what = (
            f"{facts.out_of_sight}; what an interrupted backup left stays until that has ended, "
            "or `--uri` names the libvirt that has it"
        )
        yield Finding(Code.VM_GONE, Weight.PERSON, what)
    elif facts.vm is None:
        what = "libvirt has no such VM any more; its backups stay, and can be restored"
        yield Finding(Code.VM_GONE, Weight.NOTE, what)
    elif facts.hindrance:
        weight = Weight.NOTE if facts.transient else Weight.PERSON
        yield Finding(Code.NO_BACKUP, weight, facts.hindrance)


def _ours(facts: Facts) -> tuple[str, ...]:
    return tuple(checkpoint_prefix(chain.id) for chain in facts.chains)


def _disks(targets: Sequence[str]) -> str:
    return f"{'disk' if len(targets) == 1 else 'disks'} {', '.join(targets)}"
