"""Figures for monitoring, from the status and the runner."""

from collections.abc import Sequence

from vm_babysitter.service.daemon import Daemon
from vm_babysitter.views import Metric, MetricKind, Sample, StatusView

_GAUGE, _COUNTER = MetricKind.GAUGE, MetricKind.COUNTER


def figures(status: StatusView, daemon: Daemon) -> Sequence[Metric]:
    """Return all figures."""
    vms = [vm for vm in status.vms if vm.backed_up]
    now = daemon.clock.now()
    taken = [(vm, vm.newest_taken) for vm in vms if vm.newest_taken is not None]
    past = [(vm, daemon.recent.of(vm.uuid)) for vm in vms]
    went_well = [(vm, p.succeeded) for vm, p in past if p is not None and p.succeeded is not None]
    return (
        _one("vm_babysitter_fine", "1 if nothing needs a person.", float(status.fine)),
        _one("vm_babysitter_todo", "Things that need a person.", len(status.todo)),
        _one("vm_babysitter_jobs_running", "Jobs that run.", len(status.running)),
        _one("vm_babysitter_jobs_queued", "Jobs that wait.", len(status.queued)),
        _one(
            "vm_babysitter_up_seconds",
            "Since the daemon began.",
            (now - daemon.started).total_seconds(),
        ),
        Metric(
            "vm_babysitter_newest_point_age_seconds",
            "Age of the newest restore point of a VM.",
            _GAUGE,
            tuple(
                Sample((now - at).total_seconds(), {"vm": vm.vm, "uuid": vm.uuid})
                for vm, at in taken
            ),
        ),
        Metric(
            "vm_babysitter_last_success_timestamp_seconds",
            "When a backup of a VM last went well.",
            _GAUGE,
            tuple(Sample(at.timestamp(), {"vm": vm.vm, "uuid": vm.uuid}) for vm, at in went_well),
        ),
        Metric(
            "vm_babysitter_jobs_ended_total",
            "Jobs that have ended since the daemon began.",
            _COUNTER,
            tuple(
                Sample(count, {"kind": kind, "result": result})
                for (kind, result), count in sorted(daemon.recent.ended().items())
            ),
        ),
    )


def _one(name: str, help: str, value: float) -> Metric:
    return Metric(name, help, _GAUGE, (Sample(value),))
