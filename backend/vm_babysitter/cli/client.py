"""The daemon, as the command line talks to it over its socket."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from vm_babysitter.cli.failure import Refused, refused
from vm_babysitter.cli.reader import Hindered
from vm_babysitter.domain.errors import DaemonMissing
from vm_babysitter.domain.job import JobKind, JobState, Option
from vm_babysitter.lib.unixhttp import BadAnswer, Unreachable, request_json
from vm_babysitter.views import (
    AutostartRunView,
    AutostartView,
    CheckedView,
    EventView,
    HealthView,
    JobLogView,
    JobView,
    NotifyTestView,
    PlanView,
    PointView,
    ScheduleView,
    SettingsView,
    StatusView,
    VmView,
)

T = TypeVar("T")
_PREFIX = "/api/v1"
_WRONG = 400
"""The first HTTP status that tells of something wrong."""


class Daemon:
    """Asks the daemon. All methods raise DaemonMissing if it does not answer, and Refused."""

    def __init__(self, socket: Path, *, timeout: float = 60.0) -> None:
        """``timeout``: seconds that each step of an answer may take."""
        self._socket = socket
        self._timeout = timeout

    def vms(self) -> Sequence[VmView]:
        """Return the VMs."""
        return self._get("/vms", list[VmView])

    def vm(self, vm: str) -> VmView:
        """Return one VM."""
        return self._get(f"/vms/{_name(vm)}", VmView)

    def points(self, vm: str | None) -> Sequence[PointView]:
        """Return the restore points of a VM, or of all."""
        return self._get("/points" if vm is None else f"/vms/{_name(vm)}/points", list[PointView])

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView | Hindered:
        """Say what the next backup of a VM would do, or why it cannot be made."""
        try:
            query = {"full": full, "track_snapshots": track_snapshots}
            return self._get(f"/vms/{_name(vm)}/plan", PlanView, query)
        except Refused as error:
            try:
                return Hindered(self.health_of(vm), error)
            except Refused:
                raise error from None

    def health_of(self, vm: str) -> HealthView:
        """Say how the backups of a VM are."""
        return self._get(f"/vms/{_name(vm)}/health", HealthView)

    def status(self) -> StatusView:
        """Say how everything is."""
        return self._get("/status", StatusView)

    def submit(self, kind: JobKind, vm: str, options: Mapping[str, Option]) -> JobView:
        """Have something done."""
        order = {"kind": str(kind), "vm": vm, "options": options}
        return self._post("/jobs", JobView, order)

    def job(self, job: int, *, timeout: float | None = None) -> JobView:
        """Return a job."""
        return self._get(f"/jobs/{job}", JobView, timeout=timeout)

    def jobs(
        self, vm: str | None = None, states: Sequence[JobState] = (), limit: int = 50
    ) -> Sequence[JobView]:
        """Return jobs, the youngest first."""
        query = {"vm": vm, "state": [str(state) for state in states], "limit": limit}
        return self._get("/jobs", list[JobView], query)

    def cancel(self, job: int) -> JobView:
        """Have a job end."""
        return self._post(f"/jobs/{job}/cancel", JobView, None)

    def log(self, job: int, offset: int) -> JobLogView:
        """Return a piece of the log of a job."""
        return self._get(f"/jobs/{job}/log", JobLogView, {"offset": offset, "limit": 1 << 18})

    def events(
        self, vm: str | None = None, job: int | None = None, limit: int = 50
    ) -> Sequence[EventView]:
        """Return what happened, the latest first."""
        return self._get("/events", list[EventView], {"vm": vm, "job": job, "limit": limit})

    def schedules(self) -> Sequence[ScheduleView]:
        """Return the schedules."""
        return self._get("/schedules", list[ScheduleView])

    def autostart(self) -> AutostartView:
        """Return the VMs that are started in order, and how the last run is."""
        return self._get("/autostart", AutostartView)

    def begin_autostart(self) -> AutostartRunView:
        """Have the VMs of the list started now."""
        return self._post("/autostart/runs", AutostartRunView, {})

    def take_over_autostart(self, vm: str, *, take: bool) -> AutostartView:
        """Turn a VM's own autostart switch off, or on again."""
        return self._post(f"/vms/{_name(vm)}/autostart", AutostartView, {"take_over": take})

    def settings(self) -> SettingsView:
        """Return the settings."""
        return self._get("/settings", SettingsView)

    def save_settings(self, document: Mapping[str, Any], tag: str | None) -> SettingsView:
        """Save settings, if they still are those with that tag; None: whatever they are."""
        version = "*" if tag is None else f'"{tag}"'
        return self._post("/settings", SettingsView, document, {"If-Match": version})

    def check_settings(self, document: Mapping[str, Any]) -> CheckedView:
        """Say what is wrong with settings."""
        return self._post("/settings/check", CheckedView, document)

    def test_notify(self, channel: str | None) -> Sequence[NotifyTestView]:
        """Send a test by each way of telling, or by one, and say how that went."""
        return self._post("/notify/test", list[NotifyTestView], {"channel": channel})

    def _get(
        self,
        target: str,
        kind: type[T],
        query: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> T:
        words = {k: _word(v) for k, v in (query or {}).items() if v is not None}
        asked = urlencode(words, doseq=True, errors="surrogateescape")
        return self._ask("GET", f"{target}?{asked}" if asked else target, kind, timeout=timeout)

    def _post(
        self,
        target: str,
        kind: type[T],
        document: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return self._ask("POST", target, kind, document, headers)

    def _ask(
        self,
        method: str,
        target: str,
        kind: type[T],
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> T:
        patience = self._timeout if timeout is None else timeout
        try:
            found = request_json(
                self._socket, method, _PREFIX + target, document, headers, timeout=patience
            )
        except (Unreachable, BadAnswer) as error:
            raise DaemonMissing(str(error)) from error
        if found.status >= _WRONG:
            raise refused(found.status, found.body)
        try:
            return msgspec.json.decode(found.body, type=kind)
        except msgspec.MsgspecError as error:
            reason = f"what it says is not understood, it may be of another version: {error}"
            raise DaemonMissing(reason) from error


def _name(vm: str) -> str:
    return quote(vm, safe="", errors="surrogateescape")


def _word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
