"""Documents: what the API answers and ``--json`` prints, built from results of the engine.

Their fields are promises: they may be added to, never renamed or taken away. Values of the domain
that are documents as they are (a finding, a manifest) are parts of them.
"""

from vm_babysitter.views.autostart import (
    AutostartRunView,
    AutostartStateView,
    AutostartView,
    AutostartVmView,
)
from vm_babysitter.views.encoding import as_json
from vm_babysitter.views.events import EventView
from vm_babysitter.views.health import HealthView, PointHealthView, RepairView
from vm_babysitter.views.jobs import JobLogView, JobView, ProgressView
from vm_babysitter.views.messages import MessageView, NotifyTestView
from vm_babysitter.views.metrics import Metric, MetricKind, Sample
from vm_babysitter.views.plans import PlanDiskView, PlanView
from vm_babysitter.views.points import ChainView, PointView
from vm_babysitter.views.results import BackupView, RestoreView
from vm_babysitter.views.schedules import ScheduleView
from vm_babysitter.views.settings import CheckedView, FieldErrorView, NoteView, SettingsView
from vm_babysitter.views.status import NextRunView, StatusView, TodoView, VmStatusView
from vm_babysitter.views.system import PartState, PartView, SystemView
from vm_babysitter.views.vms import DiskView, VmView

__all__ = [
    "AutostartRunView",
    "AutostartStateView",
    "AutostartView",
    "AutostartVmView",
    "BackupView",
    "ChainView",
    "CheckedView",
    "DiskView",
    "EventView",
    "FieldErrorView",
    "HealthView",
    "JobLogView",
    "JobView",
    "MessageView",
    "Metric",
    "MetricKind",
    "NextRunView",
    "NoteView",
    "NotifyTestView",
    "PartState",
    "PartView",
    "PlanDiskView",
    "PlanView",
    "PointHealthView",
    "PointView",
    "ProgressView",
    "RepairView",
    "RestoreView",
    "Sample",
    "ScheduleView",
    "SettingsView",
    "StatusView",
    "SystemView",
    "TodoView",
    "VmStatusView",
    "VmView",
    "as_json",
]
