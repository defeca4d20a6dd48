"""Tells attempts that somebody is at from those that were interrupted, and whose a job is.

The mark of an attempt does not tell: a copy of the backup folder that was made during a backup
has it too, and so does a folder that is reached by another path.
"""

from collections.abc import Sequence

from vm_babysitter.domain.bitmaps import attempts_seen
from vm_babysitter.domain.chain import Attempt, Chain
from vm_babysitter.domain.errors import Busy
from vm_babysitter.domain.vm import Access, DiskState, Vm, access_of
from vm_babysitter.ports import ActiveJob, JobKind, ScratchPlaces, ThisHost


def check_nobody(places: ScratchPlaces, name: str, chains: Sequence[Chain]) -> None:
    """Make sure that no process is at an attempt of these chains.

    Args:
        places: where it shows.
        name: of the VM.
        chains: all that the VM has in one store.

    Raises:
        Busy, StoreFailed.
    """
    for chain in chains:
        for attempt in chain.attempts:
            check_free(places, name, attempt.nonce)


def check_free(places: ScratchPlaces, name: str, nonce: str) -> None:
    """Make sure that no process is at one attempt. Raises Busy, StoreFailed."""
    who = places.holder(nonce)
    if who:
        raise Busy(f"VM {name!r}", f"a backup of it is running, begun by {who}")


def under_way(places: ScratchPlaces, chains: Sequence[Chain]) -> dict[str, str]:
    """Return the attempts that a process of this host is at: who, by their nonces."""
    nonces = [attempt.nonce for chain in chains for attempt in chain.attempts]
    found = {nonce: places.holder(nonce) for nonce in nonces}
    return {nonce: who for nonce, who in found.items() if who}


def out_of_sight(
    places: ScratchPlaces, host: ThisHost, uri: str, name: str, attempt: Attempt
) -> str:
    """Say why the job of an attempt may still run though this libvirt has no such VM.

    Another libvirt may have it, or it was undefined while it ran. A job of another run of the
    host is surely gone. Returns a sentence without a full stop, empty if nothing tells so.
    """
    why = _still_used(places, host, attempt)
    return f"this libvirt ({uri}) has no VM {name!r}, but {why}" if why else ""


def check_really_off(
    places: ScratchPlaces, host: ThisHost, uri: str, vm: Vm, chains: Sequence[Chain]
) -> None:
    """Make sure that a VM which is off does not run elsewhere, with the job of an attempt.

    Another libvirt of this host may have it as well.

    Raises:
        Busy.
    """
    if access_of(vm.state) is not Access.OFF:
        return
    for attempt in (a for chain in chains for a in chain.attempts if a.socket):
        why = _still_used(places, host, attempt)
        if why:
            reason = f"this libvirt ({uri}) has it switched off, but {why}"
            raise Busy(f"VM {vm.name!r}", reason)


def _still_used(places: ScratchPlaces, host: ThisHost, attempt: Attempt) -> str:
    other_run = attempt.boot_id and host.boot_id and attempt.boot_id != host.boot_id
    return "" if other_run else places.still_used(attempt)


def unmarked(
    places: ScratchPlaces,
    chains: Sequence[Chain],
    states: Sequence[DiskState],
    job: ActiveJob | None,
) -> tuple[Chain, int, str] | None:
    """Find the attempt of a job whose mark in the store is damaged or lost.

    It is ours if its socket is the one of an attempt that bitmaps tell of, and if that left
    a point without a manifest here, or is the one that was committed. A copy of the store has
    the same chain, but as a rule not that point. Returns chain, number and nonce.
    """
    if job is None or job.kind is not JobKind.BACKUP or not job.socket:
        return None
    for chain in chains:
        for seq, nonce in sorted(attempts_seen(states, chain.id)):
            if places.socket_path(nonce) != job.socket:
                continue
            stored = chain.find(seq)
            committed = stored is not None and stored.point.nonce == nonce
            if committed or seq in {unreadable.seq for unreadable in chain.unreadable}:
                return chain, seq, nonce
    return None


def is_ours(
    places: ScratchPlaces, chains: Sequence[Chain], states: Sequence[DiskState], job: ActiveJob
) -> bool:
    """Whether a job is one that a backup into this store is at, or ends before it begins."""
    if job.kind is not JobKind.BACKUP or not job.socket:
        return False
    marked = {attempt.socket for chain in chains for attempt in chain.attempts}
    return job.socket in marked or unmarked(places, chains, states, job) is not None
