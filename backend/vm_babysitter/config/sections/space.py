"""When the backup folder fills up."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Struct

from vm_babysitter.config.forms import SPACE as AMOUNT
from vm_babysitter.config.forms import share_of
from vm_babysitter.config.keys import Form, Refusal, about


class Space(Struct, frozen=True):
    """When the backup folder fills up."""

    warn_free: Annotated[
        int | str,
        about(
            "How much free space in the backup folder you are warned below: a part of its file "
            "system, or an amount. 0: no warning.",
            example="10 %",
            unit="bytes or %",
            form=AMOUNT,
        ),
    ] = "5 %"
    stop_free: Annotated[
        int | str,
        about(
            "Below how much free space no backup begins. 0: only where the space would not do for "
            "one, which is always looked at.",
            example="20 GiB",
            unit="bytes or %",
            form=AMOUNT,
        ),
    ] = "1 %"


def _too_late(value: object) -> str:
    """Return at how much free space is warned, if backups have stopped by then; else nothing."""
    try:
        space = msgspec.convert(value, Space)
        warn, stop = space.warn_free, space.stop_free
        if isinstance(warn, str) and isinstance(stop, str):
            late = share_of(stop) > share_of(warn) > 0
        elif isinstance(warn, int) and isinstance(stop, int):
            late = stop > warn > 0
        else:  # which is more depends on the disk
            late = False
    except (msgspec.ValidationError, ValueError):  # told where it is
        return ""
    return str(warn) if late else ""


def _warns_before_it_stops(value: object) -> Iterator[Refusal]:
    warn = _too_late(value)
    if warn:
        yield Refusal(
            f"must not be more than `warn_free`, which is {warn}",
            "You would be warned only after backups have stopped: warn earlier, or stop later.",
            ("stop_free",),
        )


SPACE = Form("a section", judge=_warns_before_it_stops)
