"""Is everything fine, what runs, what is next, what is there to do for a person?"""

from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.views.jobs import JobView


@dataclass(frozen=True, slots=True)
class TodoView:
    """Something that a person has to see to."""

    what: str
    """A sentence."""
    hint: str
    """What to do about it."""
    vm: str = ""
    """Empty where it is about no VM."""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class NextRunView:
    """The next run of a schedule."""

    schedule: str
    kind: str
    at: datetime


@dataclass(frozen=True, slots=True)
class VmStatusView:
    """How a VM and its backups are, in short."""

    vm: str
    uuid: str
    state: PowerState | None
    """None if libvirt has no such VM any more."""
    backed_up: bool
    """Whether the settings have it backed up."""
    why_not: str
    """Why it is not; empty if it is."""
    health: Health | None
    """None where there is no backup folder to look into."""
    words: str
    """The same for people."""
    newest: str | None
    """The newest restore point that can be restored as a whole."""
    newest_taken: datetime | None
    current_as_of: datetime | None
    """Until when the VM is known to be as that point."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """The whole in one document."""

    fine: bool
    sentence: str
    todo: tuple[TodoView, ...]
    running: tuple[JobView, ...]
    queued: tuple[JobView, ...]
    next: tuple[NextRunView, ...]
    """The soonest first."""
    vms: tuple[VmStatusView, ...]
