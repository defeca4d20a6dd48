"""Options that several commands have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from vm_babysitter.cli.completion import ask_shortly
from vm_babysitter.engine.app import Effort
from vm_babysitter.lib.units import parse_bytes

_LEAST = 64 << 10
_GREATEST = (1 << 53) - 1
_LATEST = 20


class Rate(click.ParamType[int]):
    """Bytes per second: ``50M``."""

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        """Return bytes per second; anything but a sensible amount is a usage error."""
        if isinstance(value, int):
            return value
        try:
            rate = parse_bytes(value)
        except ValueError:
            self.fail(f"{value!r} is no amount of bytes; write for example 50M.", param, context)
        if rate < _LEAST:
            self.fail(f"{value!r} is too little; the least is 64K.", param, context)
        return rate


class Folder(click.Path):
    """A path that is not empty: that of an unset variable would be the current folder."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return a path; an empty text is a usage error."""
        if value == "":
            self.fail("is empty; name a folder.", param, context)
        return super().convert(value, param, context)


FOLDER = Folder(path_type=Path)


class VmType(click.ParamType[str]):
    """Name or UUID of a VM; shells complete names by asking the daemon."""

    name = "vm"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        """Return it as it is."""
        del param, context
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the names that begin so."""
        del param
        names = ask_shortly(ctx, lambda daemon: [vm.name for vm in daemon.vms()])
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class JobType(click.ParamType[int]):
    """Number of a job; shells complete the latest ones."""

    name = "job"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        """Return a number; anything else is a usage error."""
        if not str(value).isdecimal() or not 0 < int(value) <= _GREATEST:
            self.fail(f"{value!r} is no number of a job.", param, context)
        return int(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the numbers that begin so, with what they are."""
        del param
        jobs = ask_shortly(ctx, lambda daemon: daemon.jobs(limit=_LATEST))
        return [
            CompletionItem(str(job.id), help=f"{job.kind} of {job.vm}: {job.state}")
            for job in jobs
            if str(job.id).startswith(incomplete)
        ]


VM = VmType()
JOB = JobType()

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

detach_option = click.option(
    "--detach", is_flag=True, help="Have the daemon do it, and do not wait for the end."
)

limit_option = click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=50,
    show_default=True,
    help="The most that are listed.",
)

track_snapshots_option = click.option(
    "--track-internal-snapshots",
    "track_snapshots",
    is_flag=True,
    help=(
        "Have change tracking in images with internal snapshots, too. Going back to such a "
        "snapshot then fails until the tracking is removed."
    ),
)
"""For those who take internal snapshots and hardly ever go back to one."""


def effort_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how hard it may work, as one ``effort``."""

    @click.option(
        "--limit",
        type=Rate(),
        metavar="RATE",
        help="Read at most this many bytes per second, such as 50M.",
    )
    @click.option(
        "--priority",
        type=click.Choice(["low", "normal"]),
        default="low",
        show_default=True,
        help="low: let the VMs go first at processor and disks.",
    )
    @functools.wraps(command)
    def with_effort(*args: Any, limit: int | None, priority: str, **kwargs: Any) -> None:
        command(*args, effort=Effort(limit, priority == "low"), **kwargs)

    return with_effort
