"""What a daemon asks of its host."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vm_babysitter.domain.host_state import HostState
from vm_babysitter.domain.store_standing import FoundStore

HostBusy = Callable[[], HostState]
"""Says what the host is busy with; cheap, and never fails."""
FindStore = Callable[[Path], FoundStore]
"""Says which backup folder lies at a path. Raises StoreFailed, UnsupportedFormat."""


class RunCommand(Protocol):
    """Runs a user's command."""

    def __call__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        seconds: float,
        check: Callable[[], None],
    ) -> None:
        """Run it to its end, with ``environment`` added to ours.

        It is killed with all that it has started after so many ``seconds``, or when ``check``,
        which is called again and again, raises.

        Raises:
            ProgramMissing, CommandFailed: it is not there, failed, or took too long; with the
                end of what it has said on stderr.
        """
