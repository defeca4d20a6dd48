"""What the host is busy with, as far as backups had better wait for it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostState:
    """What an Unraid server is doing at one moment; nothing of it elsewhere."""

    array: str = ""
    """Unraid's word for the state of the array: ``Started``, ``Stopped``; empty elsewhere."""
    parity: str = ""
    """What is done to parity or disks of the array, in a user's words; empty if nothing is."""
    mover: bool = False
    """Whether the mover moves files between pools and array."""


@dataclass(frozen=True, slots=True)
class Waits:
    """What the user wants backups to wait for."""

    parity: bool
    mover: bool


def waited_for(state: HostState, waits: Waits) -> str:
    """Say what a backup has to wait for, as a part of a sentence; empty if for nothing.

    While the array is not started neither the backup folder nor the images are there.
    """
    if state.array not in ("", "Started"):
        return f"the array is not started (it is {state.array.lower()})"
    if waits.parity and state.parity:
        return f"{state.parity} is under way"
    if waits.mover and state.mover:
        return "the mover is at work"
    return ""
