"""Settings and schedules."""

from collections.abc import Sequence
from typing import Any

from vm_babysitter.api.operations import Reply, Routes
from vm_babysitter.api.reading import invalid
from vm_babysitter.api.services import Services
from vm_babysitter.views import CheckedView, ScheduleView, SettingsView

_SENDS = {"ETag": "The version, for If-Match."}


def settings_routes(services: Services) -> Routes:
    """Return the operations on settings and schedules."""
    routes = Routes("settings")

    @routes.get("/settings", SettingsView, sends=_SENDS)
    def get_settings() -> Reply:
        """Return the settings."""
        return _tagged(services.settings())

    @routes.post("/settings", SettingsView, body=dict[str, Any], if_match=True, sends=_SENDS)
    def save_settings(body: dict[str, Any], if_match: str | None) -> Reply:
        """Save settings, the whole of them.

        They are saved if nothing is wrong with them, and nobody has changed them since the
        version that If-Match names. Else nothing is changed, and the answer says all that is
        wrong (422), or that there is another version (412).
        """
        found = services.save_settings(body, if_match)
        if isinstance(found, CheckedView):
            raise invalid(found.errors)
        return _tagged(found)

    @routes.post("/settings/check", CheckedView, body=dict[str, Any])
    def check_settings(body: dict[str, Any]) -> CheckedView:
        """Say what is wrong with settings; save nothing."""
        return services.check_settings(body)

    @routes.get("/schedules", list[ScheduleView])
    def list_schedules() -> Sequence[ScheduleView]:
        """List the schedules, and when each is next."""
        return services.schedules()

    return routes


def _tagged(settings: SettingsView) -> Reply:
    return Reply(settings, {"ETag": f'"{settings.tag}"'})
