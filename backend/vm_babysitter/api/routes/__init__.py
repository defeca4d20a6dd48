"""All operations of the API, by what they are about."""

from collections.abc import Sequence

from vm_babysitter.api.operations import Routes
from vm_babysitter.api.routes.autostart import autostart_routes
from vm_babysitter.api.routes.backups import backup_routes
from vm_babysitter.api.routes.jobs import job_routes
from vm_babysitter.api.routes.notify import notify_routes
from vm_babysitter.api.routes.settings import settings_routes
from vm_babysitter.api.routes.system import system_routes
from vm_babysitter.api.routes.vms import vm_routes
from vm_babysitter.api.services import Services


def all_routes(services: Services) -> Sequence[Routes]:
    """Return the operations that these services serve."""
    return (
        vm_routes(services),
        backup_routes(services),
        job_routes(services),
        autostart_routes(services),
        settings_routes(services),
        notify_routes(services),
        system_routes(services),
    )
