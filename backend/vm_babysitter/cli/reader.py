"""What is looked at without a job: by the engine in this process, or by the daemon."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.engine.app import App
from vm_babysitter.engine.catalog import find_vm
from vm_babysitter.engine.diagnosing import Wishes
from vm_babysitter.views import HealthView, PlanView, PointView, VmView


@dataclass(frozen=True, slots=True)
class Hindered:
    """A next backup that cannot be planned."""

    health: HealthView
    error: Exception
    """Why; it is raised once the health was told."""


class Reader(Protocol):
    """Tells of VMs and their backups."""

    def vms(self) -> Sequence[VmView]:
        """Return the VMs."""

    def points(self, vm: str | None) -> Sequence[PointView]:
        """Return the restore points of a VM, or of all."""

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView | Hindered:
        """Say what the next backup of a VM would do, or why it cannot be made."""


class EngineReader:
    """Implements ``Reader`` with the engine in this process."""

    def __init__(self, app: App) -> None:
        self._app = app

    def vms(self) -> Sequence[VmView]:
        """Return the VMs."""
        with self._app.hypervisor() as hypervisor:
            return [VmView.of(vm) for vm in hypervisor.vms()]

    def points(self, vm: str | None) -> Sequence[PointView]:
        """Return the restore points of a VM, or of all."""
        store = self._app.store()
        wanted = store.vms() if vm is None else (find_vm(store, vm),)
        return PointView.all((stored, store.chains(stored.uuid)) for stored in wanted)

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView | Hindered:
        """Say what the next backup of a VM would do, or why it cannot be made."""
        with self._app.diagnoser() as diagnoser:
            found = diagnoser.diagnose(vm, Wishes(full, track_snapshots))
        error: BabysitterError | None = found.error
        if error is not None:
            return Hindered(HealthView.of(found.diagnosis), error)
        return PlanView.of(found)
