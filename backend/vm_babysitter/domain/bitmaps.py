"""Dirty bitmaps on a VM's disks: which are ours, serve nothing, or are in the way. Pure."""

import re
from collections.abc import Callable, Sequence

from vm_babysitter.domain.chain import Chain, live_chain
from vm_babysitter.domain.point import checkpoint_prefix
from vm_babysitter.domain.vm import Bitmap, DiskState

Wanted = Callable[[DiskState, Bitmap], bool]
Found = tuple[tuple[str, tuple[str, ...]], ...]
"""Name of a bitmap, and the targets of the disks that have it; sorted by name."""
_FORM = re.compile(r"vmb-[0-9a-f]{8}-\d{6}-[0-9a-f]{6}(-.+)?")
"""Of the names of all our checkpoints and bitmaps."""


def removable_bitmaps(
    states: Sequence[DiskState],
    chains: Sequence[Chain],
    keep: int = 2,
    *,
    track_snapshots: bool = False,
) -> Found:
    """Say which of our bitmaps on a VM's disks serve nothing any more.

    Kept are those of the ``keep`` newest committed points of the live chain that have one of
    the disk, unless they are damaged: such ones are of no use, and as long as they are there
    QEMU refuses to resize the disk. None is kept on a disk whose image holds internal snapshots,
    unless the user wants that (``track_snapshots``): QEMU refuses to go back to a snapshot of an
    image with bitmaps. Only names that carry the id of one of ``chains`` are ever given: others
    are not provably ours.
    """
    live = live_chain(chains)
    points = [] if live is None else [stored.point for stored in live.points]
    points.sort(key=lambda point: point.seq)
    kept: dict[str, list[str]] = {}  # by target, the newest last
    for checkpoint in (p.checkpoint for p in points if p.checkpoint):
        for target in checkpoint.disks:
            kept.setdefault(target, []).append(checkpoint.bitmap(target))

    def useless(state: DiskState, bitmap: Bitmap) -> bool:
        newest = kept.get(state.target, [])[-keep:]
        hinders = _hinders(state, bitmap, track_snapshots=track_snapshots)
        return hinders or bitmap.name not in newest

    return _bitmaps(states, _ours(chains, useless))


def bitmaps_in_the_way(
    states: Sequence[DiskState], chains: Sequence[Chain], *, track_snapshots: bool = False
) -> Found:
    """Say which of our bitmaps keep the user from something, see ``removable_bitmaps``.

    These are removed while the VM is off, too, though its images are best left alone then.
    """

    def hinders(state: DiskState, bitmap: Bitmap) -> bool:
        return _hinders(state, bitmap, track_snapshots=track_snapshots)

    return _bitmaps(states, _ours(chains, hinders))


def tracking_damaged(states: Sequence[DiskState], chains: Sequence[Chain]) -> bool:
    """Whether QEMU did not store our bitmaps in good order when it ended.

    They are inconsistent, or, where they were never stored before, those of the newest point
    are gone. Such ones may as well be gone because an image was exchanged.
    """
    if _bitmaps(states, _ours(chains, lambda _, bitmap: bitmap.inconsistent)):
        return True
    live = live_chain(chains)
    newest = None if live is None else live.newest_intact
    checkpoint = None if newest is None else newest.checkpoint
    if checkpoint is None:
        return False
    there = {(s.target, b.name) for s in states for layer in s.layers for b in layer.bitmaps}
    return any(
        (state.target, checkpoint.bitmap(state.target)) not in there
        for state in states
        if state.target in checkpoint.disks
    )


def bitmaps_of(states: Sequence[DiskState], checkpoint: str) -> Found:
    """Find the bitmaps of an attempt's checkpoint, whatever disks they are on now."""
    return _bitmaps(states, lambda _, b: belongs_to(b.name, checkpoint))


def attempts_seen(states: Sequence[DiskState], chain_id: str) -> frozenset[tuple[int, str]]:
    """Return number and nonce of all attempts at points of a chain that bitmaps tell of."""
    names = {b.name for state in states for layer in state.layers for b in layer.bitmaps}
    pattern = re.compile(
        rf"{re.escape(checkpoint_prefix(chain_id))}(\d{{6}})-([0-9a-f]{{6}})(-.*)?"
    )
    found = (pattern.fullmatch(name) for name in names)
    return frozenset((int(match[1]), match[2]) for match in found if match)


def our_bitmaps(
    states: Sequence[DiskState], chains: Sequence[Chain], *, any_folder: bool = False
) -> Found:
    """Return all bitmaps of ours, which are those that carry the id of one of ``chains``.

    With ``any_folder`` also those that some other backup folder of ours made, as their form tells.
    """
    return _bitmaps(states, lambda _, bitmap: is_ours(bitmap.name, chains, any_folder=any_folder))


def is_ours(name: str, chains: Sequence[Chain], *, any_folder: bool = False) -> bool:
    """Whether a bitmap or checkpoint of this name is ours, see ``our_bitmaps``."""
    if any_folder and _FORM.fullmatch(name):
        return True
    return name.startswith(tuple(checkpoint_prefix(chain.id) for chain in chains))


def belongs_to(bitmap: str, checkpoint: str) -> bool:
    """Whether a bitmap of this name was made by the attempt with this checkpoint."""
    return bitmap == checkpoint or bitmap.startswith(f"{checkpoint}-")


def _hinders(state: DiskState, bitmap: Bitmap, *, track_snapshots: bool) -> bool:
    """Whether a bitmap forbids resizing the disk, or going back to an internal snapshot."""
    return bitmap.inconsistent or (bool(state.internal_snapshots) and not track_snapshots)


def _ours(chains: Sequence[Chain], wanted: Wanted) -> Wanted:
    prefixes = tuple(checkpoint_prefix(chain.id) for chain in chains)
    return lambda state, bitmap: bitmap.name.startswith(prefixes) and wanted(state, bitmap)


def _bitmaps(states: Sequence[DiskState], wanted: Wanted) -> Found:
    found: dict[str, list[str]] = {}
    for state in states:
        for name in {b.name for layer in state.layers for b in layer.bitmaps if wanted(state, b)}:
            found.setdefault(name, []).append(state.target)
    return tuple((name, tuple(targets)) for name, targets in sorted(found.items()))
