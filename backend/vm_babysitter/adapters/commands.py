"""Commands of the user: ``ports.RunCommand``."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

from vm_babysitter.adapters import process
from vm_babysitter.adapters.secrets import Secrets
from vm_babysitter.domain.errors import CommandFailed, ProgramMissing

_LOOK = 0.2
_SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')
"""Between ``env`` and the program, whose path may have a ``=``: ``env`` would take it for a
variable, and end well without having run anything."""
_NO_FILE = 127
"""What the shell ends with where there is no such program; 126: it cannot be run."""
_NOT_RUN = 126


def run_command(
    argv: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    check: Callable[[], None],
) -> None:
    """See the port. What it prints on stdout goes nowhere; its arguments are in no log."""
    if not os.access(argv[0], os.X_OK):
        raise ProgramMissing(argv[0])
    added = [f"{name}={value}" for name, value in environment.items()]
    deadline = time.monotonic() + seconds
    command = ["env", *added, *_SHELL, *argv]
    with process.start(command, grace=1.0, told=argv[:1]) as child:
        while not child.exited(min(_LOOK, max(0.0, deadline - time.monotonic()))):
            check()
            if time.monotonic() >= deadline:
                child.stop(1.0)
                tail = _said(child)
                reason = f"it did not end within {seconds:g} seconds" + (
                    f": {tail}" if tail else ""
                )
                raise CommandFailed(argv[0], -9, reason)
        status = child.stop(0.0)
        if status in (_NO_FILE, _NOT_RUN) and not child.stderr_tail():
            raise CommandFailed(argv[0], status, "it cannot be run")
        if status:
            raise CommandFailed(argv[0], status, _said(child))


def _said(child: process.Child) -> str:
    """Return the end of what it said, without what looks like a secret: it is kept and shown."""
    return Secrets().hide(child.stderr_tail())
