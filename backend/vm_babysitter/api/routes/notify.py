"""What users are told."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from vm_babysitter.api.operations import Routes
from vm_babysitter.api.services import Services
from vm_babysitter.views import NotifyTestView


class NotifyTest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which way of telling is tried."""

    channel: Annotated[
        Literal["unraid", "webhook", "health"] | None,
        Meta(description="Which one; null: all.", examples=["unraid"]),
    ] = None


def notify_routes(services: Services) -> Routes:
    """Return the operations on what users are told."""
    routes = Routes("notify")

    @routes.post("/notify/test", list[NotifyTestView], body=NotifyTest)
    def test_notify(body: NotifyTest) -> Sequence[NotifyTestView]:
        """Send a test by each way of telling, or by one, and say how that went."""
        return services.test_notify(body.channel)

    return routes
