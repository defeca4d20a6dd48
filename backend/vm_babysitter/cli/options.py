"""Options that several commands have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vm_babysitter.engine.app import Effort
from vm_babysitter.lib.units import parse_bytes

_LEAST = 64 << 10


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

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

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
