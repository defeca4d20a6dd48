"""What the API needs of the daemon."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vm_babysitter.domain.job import JobKind, JobState, Option
from vm_babysitter.views import (
    AutostartRunView,
    AutostartView,
    ChainView,
    CheckedView,
    EventView,
    HealthView,
    JobLogView,
    JobView,
    Metric,
    NotifyTestView,
    PlanView,
    PointView,
    ScheduleView,
    SettingsView,
    StatusView,
    SystemView,
    VmView,
)


class Services(Protocol):
    """The daemon, as the API sees it.

    Called from several threads at a time. No call may take longer than some seconds, whatever
    libvirt or the backup folder do: a few calls that never end would silence the API. A VM is
    named by its UUID or its name. All raise errors of ours, which become problem documents.
    """

    def vms(self) -> Sequence[VmView]:
        """Return the VMs that libvirt has."""

    def vm(self, vm: str) -> VmView:
        """Return one of them. Raises VmNotFound."""

    def health(self) -> Sequence[HealthView]:
        """Say of each VM, those included that are gone, how its backups are."""

    def health_of(self, vm: str) -> HealthView:
        """Say how the backups of one VM are. Raises VmNotFound."""

    def chains(self, vm: str) -> Sequence[ChainView]:
        """Return the chains of a VM, the oldest first. Raises VmNotFound."""

    def points(self, vm: str | None) -> Sequence[PointView]:
        """Return the restore points of a VM, or of all. Raises VmNotFound."""

    def plan(self, vm: str, *, full: bool, track_snapshots: bool) -> PlanView:
        """Say what the next backup of a VM would do. Raises VmNotFound."""

    def status(self) -> StatusView:
        """Say whether everything is fine."""

    def jobs(
        self, *, vm: str | None, states: Sequence[JobState], limit: int, before: int | None
    ) -> Sequence[JobView]:
        """Return jobs, the youngest first.

        Args:
            vm: only those of this VM.
            states: only those in one of these; none for all.
            limit: at most so many.
            before: only those with a smaller number.
        """

    def job(self, job: int) -> JobView:
        """Return a job. Raises JobNotFound."""

    def submit(self, kind: JobKind, vm: str, options: Mapping[str, Option]) -> JobView:
        """Take a job on, or return the same one that is queued already.

        Args:
            kind: what is to be done.
            vm: to which VM.
            options: see ``api.orders``; what is not in it is as the settings say.

        Raises:
            VmNotFound, InvalidInput, Busy.
        """

    def cancel(self, job: int) -> JobView:
        """Have a job end. Harmless if it has ended. Raises JobNotFound."""

    def job_log(self, job: int, offset: int, limit: int) -> JobLogView:
        """Return at most ``limit`` bytes of a job's log from an offset. Raises JobNotFound."""

    def autostart(self) -> AutostartView:
        """Return the list of VMs that are started in order, and its last run."""

    def begin_autostart(self, run: str | None) -> AutostartRunView:
        """Begin a run, unless it was begun before; None: a user asks for it now."""

    def take_over_autostart(self, vm: str, *, take: bool) -> AutostartView:
        """Turn a VM's own autostart switch off, or on again if it was. Raises VmNotFound."""

    def schedules(self) -> Sequence[ScheduleView]:
        """Return the schedules of the settings."""

    def settings(self) -> SettingsView:
        """Return the settings as they are on disk."""

    def save_settings(self, raw: dict[str, Any], tag: str | None) -> SettingsView | CheckedView:
        """Save settings, or return what is wrong with them.

        Args:
            raw: the whole document.
            tag: that of the settings which were changed; None: whatever they are now.

        Raises:
            SettingsChanged: they have another tag by now; nothing is saved.
        """

    def check_settings(self, raw: dict[str, Any]) -> CheckedView:
        """Say what is wrong with settings; save nothing."""

    def system(self) -> SystemView:
        """Say how the daemon is."""

    def metrics(self) -> Sequence[Metric]:
        """Return figures for monitoring."""

    def events(self, *, vm: str | None, job: int | None, limit: int) -> Sequence[EventView]:
        """Return what happened, the latest first: to a VM, in a job, or all of it."""

    def test_notify(self, channel: str | None) -> Sequence[NotifyTestView]:
        """Send a test by each way of telling, or by one. Raises InvalidInput."""
