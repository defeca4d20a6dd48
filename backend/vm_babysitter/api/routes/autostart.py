"""The start of VMs in order."""

from http import HTTPStatus
from typing import Annotated

from msgspec import Meta, Struct

from vm_babysitter.api.operations import Routes
from vm_babysitter.api.services import Services
from vm_babysitter.views import AutostartRunView, AutostartView

RunId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9-]{1,64}$(?!\n)",
        description="What names one start of the VM service.",
        examples=["4f8c1b52-6f0d-4a5f-9a36-6a3a3f1b9f10-1795831200"],
    ),
]


class RunOrder(Struct, frozen=True):
    """Which run."""

    run: RunId | None = None


class OwnOrder(Struct, frozen=True):
    """What becomes of a VM's own autostart switch."""

    take_over: bool


def autostart_routes(services: Services) -> Routes:
    """Return the operations on the autostart."""
    routes = Routes("autostart")

    @routes.get("/autostart", AutostartView)
    def get_autostart() -> AutostartView:
        """Return the list of VMs that are started in order, and how its last run is."""
        return services.autostart()

    @routes.post("/autostart/runs", AutostartRunView, status=HTTPStatus.ACCEPTED, body=RunOrder)
    def begin_autostart(body: RunOrder) -> AutostartRunView:
        """Start the VMs of the list in order.

        `run` names the start of the VM service: told again of the same one, nothing is begun
        again. Without it the VMs that are off are started now.
        """
        return services.begin_autostart(body.run)

    @routes.post("/vms/{vm}/autostart", AutostartView, body=OwnOrder)
    def take_over_autostart(vm: str, body: OwnOrder) -> AutostartView:
        """Turn a VM's own autostart switch off, so that it comes up in order only.

        It is turned on again when the VM leaves the list, or with `take_over` false.
        """
        return services.take_over_autostart(vm, take=body.take_over)

    return routes
