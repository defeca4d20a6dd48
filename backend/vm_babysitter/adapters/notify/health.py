"""A service that watches over schedules, like healthchecks.io."""

from vm_babysitter.adapters.notify.http import call

_ENDS = {"start": "/start", "success": "", "fail": "/fail"}
_LONGEST = 10_000


class HealthPinger:
    """Implements ``ports.Pinger``: ``<url>/start``, ``<url>``, ``<url>/fail``."""

    name = "health"

    def __init__(self, url: str) -> None:
        base, mark, query = url.partition("?")
        self._base, self._query = base.rstrip("/"), mark + query

    def ping(self, what: str, text: str, within: float) -> None:
        """See the port."""
        url = f"{self._base}{_ENDS[what]}{self._query}"
        method = "POST" if what == "fail" else "GET"
        body = text.encode(errors="replace")[:_LONGEST] if what == "fail" else b""
        call(self.name, method, url, within, body=body, kind="text/plain" if body else "")
