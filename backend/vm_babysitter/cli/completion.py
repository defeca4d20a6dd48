"""Completion in shells: what the daemon is asked for, and a script for bash that quotes names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import (
    BashComplete,
    add_completion_class,
    get_completion_class,
)

from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.failure import Refused
from vm_babysitter.domain.errors import DaemonMissing
from vm_babysitter.engine.app import DEFAULT_SOCKET

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_VM_BABYSITTER_COMPLETE"
T = TypeVar("T")
_PATIENCE = 1.0
"""Seconds that somebody who pressed Tab may have to wait."""
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    while IFS= read -r completion; do
        type=${completion%%%%,*}
        value=${completion#*,}
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$(printf '%%q' "$value")") ;;
        esac
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class QuotingBash(BashComplete):
    """Completes names to what bash takes as one word, whatever is in them."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """Start no other program for it: bash has done what is needed since 2016."""


add_completion_class(QuotingBash)


def script(shell: str, command: click.Command, program: str) -> str:
    """Return what a shell is to read for completing a command."""
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101 - one of ``SHELLS``
    return kind(command, {}, program, VARIABLE).source()


def ask_shortly(context: click.Context, ask: Callable[[Daemon], Sequence[T]]) -> Sequence[T]:
    """Ask the daemon for what can be completed; nothing if it does not answer at once."""
    root: dict[str, Any] = context.find_root().params
    socket = root.get("socket") or DEFAULT_SOCKET
    if root.get("standalone"):
        return ()
    try:
        return ask(Daemon(Path(socket), timeout=_PATIENCE))
    except (DaemonMissing, Refused, OSError, ValueError):
        return ()
