"""What is told of changes to VMs."""

from datetime import datetime

from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.vm_changes import Change, VmChange


def vm_event(change: VmChange, now: datetime) -> Event | None:
    """Return what is told of a change; None if it is every day's."""
    vm, before = change.vm, change.before
    words = {
        Change.APPEARED: "is new",
        Change.GONE: "is gone; its backups stay",
        Change.RENAMED: f"was called {before.name if before else ''} before",
        Change.EDITED: "has other disks than before",
    }
    if change.change not in words:
        return None
    subject = f"VM {vm.name} {words[change.change]}"
    return Event(now, f"vm-{change.change}", Severity.NORMAL, subject, "", vm.uuid, vm.name)
