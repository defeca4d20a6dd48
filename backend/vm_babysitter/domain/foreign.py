"""What a VM has of other programs: seen and told, never touched. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.point import checkpoint_prefix
from vm_babysitter.domain.vm import Bitmap, DiskState

_LEFT_ALONE = "it is not of this backup folder and is left alone"


@dataclass(frozen=True, slots=True)
class _Tracking:
    """The bitmaps of one name that are not ours."""

    targets: tuple[str, ...]
    damaged: bool


def foreign_things(
    states: Sequence[DiskState], checkpoints: Collection[str], chains: Sequence[Chain]
) -> tuple[str, ...]:
    """Say what checkpoints and bitmaps there are that are not of ``chains``.

    Args:
        states: the VM's disks as they are now.
        checkpoints: the names of those that libvirt knows.
        chains: all chains of this VM in the store.

    Returns plain sentences without a full stop, one per name, sorted by name.
    """
    ours = tuple(checkpoint_prefix(chain.id) for chain in chains)
    tracking = _tracking(states, ours)
    names = {name for name in checkpoints if not name.startswith(ours)} | set(tracking)
    return tuple(_sentence(n, tracking.get(n), known=n in checkpoints) for n in sorted(names))


def _tracking(states: Sequence[DiskState], ours: tuple[str, ...]) -> dict[str, _Tracking]:
    found: dict[str, list[tuple[str, Bitmap]]] = {}
    for state in states:
        for layer in state.layers:
            for bitmap in layer.bitmaps:
                if not bitmap.name.startswith(ours):
                    found.setdefault(bitmap.name, []).append((state.target, bitmap))
    return {
        name: _Tracking(
            tuple(dict.fromkeys(target for target, _ in places)),
            any(bitmap.inconsistent for _, bitmap in places),
        )
        for name, places in found.items()
    }


def _sentence(name: str, tracking: _Tracking | None, *, known: bool) -> str:
    if tracking is None:
        return f"checkpoint {name!r}, whose change tracking is gone: {_LEFT_ALONE}"
    what = "checkpoint" if known else "change tracking"
    disks = "disk" if len(tracking.targets) == 1 else "disks"
    place = f"{what} {name!r} on {disks} {', '.join(tracking.targets)}"
    if not tracking.damaged:
        return f"{place}: {_LEFT_ALONE}"
    return f"{place}: {_LEFT_ALONE}, although it is damaged: QEMU resizes no disk that has such"
