"""Says whether a place is fit to hold backups, and gives a backup folder to this host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.store_check import Finding, Verdict, judge, overall
from vm_babysitter.ports import DiskPlace, Hypervisor, StoreProbe


@dataclass(frozen=True, slots=True)
class CheckedStore:
    """What was found of a place."""

    path: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    taken_from: Lease | None = None
    """Who had it before, if it was taken over."""


class CheckStore:
    """Checks places for backups."""

    def __init__(self, probe: StoreProbe, disks: Callable[[], Sequence[DiskPlace]]) -> None:
        """``disks`` finds the disks of the VMs there are; none where that is not known."""
        self._probe = probe
        self._disks = disks

    def run(self, path: Path, *, take_over: bool = False) -> CheckedStore:
        """Check a place; ``take_over`` gives it to this host first, if it is a backup folder.

        Raises:
            StoreRefused, StoreFailed: it cannot be taken over.
        """
        had = self._probe.take_over(path) if take_over else None
        findings = judge(self._probe.look(path, self._disks()))
        return CheckedStore(str(path), overall(findings), findings, had)


def disk_places(hypervisor: Hypervisor) -> tuple[DiskPlace, ...]:
    """Return where the disks of all VMs lie, without opening an image."""
    return tuple(
        DiskPlace(f"{vm.name} ({disk.target})", disk.path)
        for vm in hypervisor.outlines()
        for disk in vm.disks
        if disk.path
    )
