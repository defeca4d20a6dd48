"""How everything is."""

from collections.abc import Sequence

from msgspec import Struct

from vm_babysitter.api.exposition import exposition
from vm_babysitter.api.operations import Routes
from vm_babysitter.api.parameters import Count, JobNumber, VmName
from vm_babysitter.api.services import Services
from vm_babysitter.views import EventView, StatusView, SystemView


class EventsQuery(Struct, frozen=True):
    """Which events."""

    vm: VmName | None = None
    job: JobNumber | None = None
    limit: Count = 50


def system_routes(services: Services) -> Routes:
    """Return the operations on the whole."""
    routes = Routes("system")

    @routes.get("/status", StatusView)
    def get_status() -> StatusView:
        """Say whether everything is fine, what runs, what is next, and what there is to do."""
        return services.status()

    @routes.get("/system", SystemView)
    def get_system() -> SystemView:
        """Say how the daemon and what it depends on are."""
        return services.system()

    @routes.get("/events", list[EventView], query=EventsQuery)
    def list_events(query: EventsQuery) -> Sequence[EventView]:
        """List what happened, the latest first."""
        return services.events(vm=query.vm, job=query.job, limit=query.limit)

    @routes.get("/metrics", None)
    def get_metrics() -> str:
        """Return figures for monitoring, in the text format of Prometheus."""
        return exposition(services.metrics())

    return routes
