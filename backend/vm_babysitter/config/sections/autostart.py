"""Which VMs are started in which order when the VM service has started."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.keys import Form, Refusal, about
from vm_babysitter.config.sections.vms import Name
from vm_babysitter.domain.autostart import parse_condition
from vm_babysitter.domain.errors import InvalidInput

_MOST = 1000


def _judge_condition(value: object) -> Iterator[Refusal]:
    if not isinstance(value, str):
        return
    try:
        parse_condition(value)
    except InvalidInput as error:
        yield Refusal(error.rule, error.hint)


CONDITION = Form("vm:NAME, agent:NAME, tcp:HOST:PORT or path:/FOLDER", judge=_judge_condition)
Condition = Annotated[
    str, about("What is waited for.", example="tcp:192.168.1.1:53", form=CONDITION)
]


class Start(Struct, frozen=True):
    """One VM that is started."""

    vm: Annotated[Name, about("Its name or UUID.", example="router")]
    delay: Annotated[
        int,
        about(
            "How long to wait after the VM before it in the list was started.",
            example=30,
            unit="seconds",
            least=0,
            most=3600,
        ),
    ] = 0
    wait_for: Annotated[
        tuple[Condition, ...],
        about(
            "What has to be there first, all of it: vm:NAME (another VM runs), agent:NAME (the "
            "guest agent of another VM answers), tcp:HOST:PORT (something answers there), "
            "path:/FOLDER (a disk or share is mounted there).",
            example=["agent:router", "path:/mnt/remotes/nas"],
            longest=20,
        ),
    ] = ()
    timeout: Annotated[
        int,
        about(
            "How long to wait for that, once the delay is over.",
            example=300,
            unit="seconds",
            least=0,
            most=86400,
        ),
    ] = 300
    otherwise: Annotated[
        Literal["start", "skip"],
        about(
            "What to do if it has not come by then: start the VM anyway, or not.", example="start"
        ),
    ] = "start"
    tries: Annotated[
        int,
        about(
            "How often a start is tried before it is given up, 5 seconds apart.",
            example=3,
            least=1,
            most=10,
        ),
    ] = 3


def _each_is_there_once(value: object) -> Iterator[Refusal]:
    seen: set[str] = set()
    for number, one in enumerate(value if isinstance(value, list) else ()):
        name = one.get("vm") if isinstance(one, dict) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            yield Refusal(
                "is in the list already", "Each VM is started once: leave one out.", (number, "vm")
            )
        seen.add(name)


STARTS = Form("a list of VMs to start", judge=_each_is_there_once)


class Autostart(Struct, frozen=True):
    """The VMs that are started in order when the VM service has started."""

    vms: Annotated[
        tuple[Start, ...],
        about(
            "In this order. A VM that Unraid itself starts, too (its own Autostart switch), comes "
            "up at once with all others: `vm-babysitter autostart set VM --take-over` turns that "
            "switch off, and on again when the VM leaves this list.",
            longest=_MOST,
            form=STARTS,
        ),
    ] = ()
    taken: Annotated[
        tuple[Name, ...],
        about(
            "The UUIDs of VMs whose own Autostart switch was on and was turned off with your "
            "consent. It is turned on again when they leave the list.",
            example=["0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10"],
            own=True,
            longest=_MOST,
        ),
    ] = ()
