"""The start of VMs in order."""

from dataclasses import dataclass
from datetime import datetime

from vm_babysitter.domain.autostart import Mark
from vm_babysitter.engine.autostart import RunState


@dataclass(frozen=True, slots=True)
class AutostartVmView:
    """A VM of the autostart list."""

    vm: str
    """Its name; as the settings name it where libvirt has no such VM."""
    uuid: str
    """Empty where libvirt has no such VM."""
    listed: str
    """As the settings name it."""
    delay: int
    """Seconds."""
    wait_for: tuple[str, ...]
    timeout: int
    """Seconds."""
    otherwise: str
    tries: int
    own: bool | None
    """Whether Unraid starts it, too, by the VM's own switch; None where libvirt does not answer."""
    taken: bool
    """Whether that switch was on, and is turned on again when the VM leaves the list."""
    note: str
    """What is odd about it."""


@dataclass(frozen=True, slots=True)
class AutostartStateView:
    """How a run of the autostart is with one VM."""

    vm: str
    uuid: str
    mark: Mark | None
    """None: it has not had its turn."""
    note: str
    """What it waits for, or why it was not started."""


@dataclass(frozen=True, slots=True)
class AutostartRunView:
    """One run of the autostart."""

    run: str
    state: RunState
    begun: datetime
    reason: str
    """Why nothing is started, where it is held."""
    vms: tuple[AutostartStateView, ...]


@dataclass(frozen=True, slots=True)
class AutostartView:
    """The autostart list, and its last run."""

    vms: tuple[AutostartVmView, ...]
    run: AutostartRunView | None
    """None: there was none since the host has started."""
