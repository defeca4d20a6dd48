"""VMs."""

from collections.abc import Sequence

from vm_babysitter.api.operations import Routes
from vm_babysitter.api.services import Services
from vm_babysitter.views import VmView


def vm_routes(services: Services) -> Routes:
    """Return the operations on VMs."""
    routes = Routes("vms")

    @routes.get("/vms", list[VmView])
    def list_vms() -> Sequence[VmView]:
        """List the VMs, and what of each would be backed up."""
        return services.vms()

    @routes.get("/vms/{vm}", VmView)
    def get_vm(vm: str) -> VmView:
        """Return one VM."""
        return services.vm(vm)

    return routes
