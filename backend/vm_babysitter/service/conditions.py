"""What has to be so before a job begins: gates of the runner."""

from collections.abc import Callable

from vm_babysitter.domain.host_state import Waits, waited_for
from vm_babysitter.domain.job import JobKind, JobRequest, Origin
from vm_babysitter.engine.gates import Gate
from vm_babysitter.engine.vm_watch import Watched
from vm_babysitter.ports import HostBusy
from vm_babysitter.service.configuration import Configuration
from vm_babysitter.service.store_guard import StoreGuard

_NEEDS_STORE = frozenset(JobKind) - {JobKind.CONVERT}
_NEEDS_LIBVIRT = frozenset({JobKind.BACKUP, JobKind.REPAIR, JobKind.CONVERT, JobKind.RELEASE})
_NEVER = Waits(parity=False, mover=False)


def gates(
    configuration: Configuration,
    host: HostBusy,
    watched: Callable[[], Watched],
    guard: StoreGuard,
) -> tuple[Gate, ...]:
    """Return all gates, the ones that cost least first."""

    def settings(request: JobRequest) -> str:
        wrong = configuration.problem is not None
        return "the settings to be corrected" if wrong and _by_itself(request) else ""

    def host_state(request: JobRequest) -> str:
        wanted = configuration.settings.waits
        waits = Waits(wanted.parity == "wait", wanted.mover == "wait")
        return waited_for(host(), waits if _by_itself(request) else _NEVER)

    def libvirt(request: JobRequest) -> str:
        return watched().trouble if request.kind in _NEEDS_LIBVIRT else ""

    def store(request: JobRequest) -> str:
        return guard.hindrance() if _needs_store(request, guard) else ""

    def room(request: JobRequest) -> str:
        return guard.lack_of_room() if request.kind is JobKind.BACKUP else ""

    return settings, host_state, libvirt, store, room


def _needs_store(request: JobRequest, guard: StoreGuard) -> bool:
    if request.kind is JobKind.RELEASE:  # of a VM that never was backed up, or from all folders
        return guard.path is not None and not request.options.get("any_folder")
    return request.kind in _NEEDS_STORE


def _by_itself(request: JobRequest) -> bool:
    """Whether nobody is waiting for it: a user's own job begins whatever the host is busy with."""
    return request.origin is not Origin.USER
