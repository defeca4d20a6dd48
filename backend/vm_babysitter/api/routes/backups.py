"""The backups of VMs."""

from collections.abc import Sequence

from msgspec import Struct

from vm_babysitter.api.operations import Routes
from vm_babysitter.api.services import Services
from vm_babysitter.views import ChainView, HealthView, PlanView, PointView


class PlanQuery(Struct, frozen=True):
    """What the next backup would be asked for."""

    full: bool = False
    track_snapshots: bool = False


def backup_routes(services: Services) -> Routes:
    """Return the operations on backups."""
    routes = Routes("backups")

    @routes.get("/vms/{vm}/health", HealthView)
    def get_health(vm: str) -> HealthView:
        """Say whether the backups of a VM are good, and what is done if not."""
        return services.health_of(vm)

    @routes.get("/vms/{vm}/plan", PlanView, query=PlanQuery)
    def get_plan(vm: str, query: PlanQuery) -> PlanView:
        """Say what the next backup of a VM would do, and why; change nothing."""
        return services.plan(vm, full=query.full, track_snapshots=query.track_snapshots)

    @routes.get("/vms/{vm}/chains", list[ChainView])
    def list_chains(vm: str) -> Sequence[ChainView]:
        """List the series of restore points of a VM, the oldest first."""
        return services.chains(vm)

    @routes.get("/vms/{vm}/points", list[PointView])
    def list_points(vm: str) -> Sequence[PointView]:
        """List the restore points of a VM."""
        return services.points(vm)

    @routes.get("/points", list[PointView])
    def list_all_points() -> Sequence[PointView]:
        """List the restore points of all VMs."""
        return services.points(None)

    @routes.get("/health", list[HealthView])
    def list_health() -> Sequence[HealthView]:
        """Say of all VMs whether their backups are good."""
        return services.health()

    return routes
