"""What is done when."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.forms import CRON
from vm_babysitter.config.keys import Form, Refusal, about
from vm_babysitter.config.sections.vms import Name


class Schedule(Struct, frozen=True):
    """One job that is done again and again."""

    name: Annotated[
        Name, about("What it is called; each has a name of its own.", example="daily backup")
    ]
    when: Annotated[
        str,
        about(
            "When, in the time zone of the host: minute, hour, day, month, weekday as cron has "
            "them, or @hourly, @daily, @weekly, @monthly, @yearly.",
            example="30 2 * * *",
            longest=255,
            form=CRON,
        ),
    ]
    kind: Annotated[
        Literal["backup", "verify"],
        about("What is done: VMs are backed up, or their restore points proven.", example="backup"),
    ] = "backup"
    vms: Annotated[
        tuple[Name, ...],
        about(
            "For which VMs: names, UUIDs or groups. Empty: all that are backed up. A VM that is "
            "not backed up (see vms) is left out.",
            example=["servers"],
            longest=1000,
        ),
    ] = ()
    enabled: Annotated[
        bool, about("Whether it is done; false keeps it without doing it.", example=True)
    ] = True


DAILY = Schedule("daily backup", "@daily")


def _each_has_its_name(value: object) -> Iterator[Refusal]:
    names: set[object] = set()
    for number, one in enumerate(value if isinstance(value, list) else ()):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str):
            continue
        if name in names:
            yield Refusal(
                "must be a name that no other schedule has",
                "What was missed, and what is next, is told by the name: give this one another.",
                (number, "name"),
            )
        names.add(name)


SCHEDULES = Form("a list of schedules", judge=_each_has_its_name)
