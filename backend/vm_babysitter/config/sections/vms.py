"""Which VMs are backed up."""

from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.forms import NAME
from vm_babysitter.config.keys import about

_MOST = 1000
Name = Annotated[str, about("A name.", example="Windows 11", shortest=1, longest=255, form=NAME)]


class Vms(Struct, frozen=True):
    """Which VMs are backed up."""

    mode: Annotated[
        Literal["all", "chosen"],
        about("Whether all VMs are backed up, or only those in `chosen`.", example="all"),
    ] = "all"
    ignored: Annotated[
        tuple[Name, ...],
        about(
            "VMs that are never backed up, whatever else is set: names, UUIDs or groups.",
            example=["Scratch VM"],
            longest=_MOST,
        ),
    ] = ()
    chosen: Annotated[
        tuple[Name, ...],
        about(
            "With mode `chosen`: the VMs that are backed up: names, UUIDs or groups. With mode "
            "`all` and without `include_new`: VMs that are backed up although they are new.",
            example=["Windows 11", "servers"],
            longest=_MOST,
        ),
    ] = ()
    include_new: Annotated[
        bool,
        about("With mode `all`: whether VMs that appear later are backed up, too.", example=True),
    ] = True
    seen: Annotated[
        tuple[Name, ...] | None,
        about(
            "The UUIDs of the VMs that were there when `include_new` was switched off: all others "
            "are new. null: not noted.",
            example=["0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10"],
            own=True,
        ),
    ] = None
    groups: Annotated[
        dict[Name, tuple[Name, ...]],
        about(
            "Names for several VMs (names or UUIDs), to be used where a VM can be named.",
            example={"servers": ["router", "mail"]},
            longest=_MOST,
        ),
    ] = {}
