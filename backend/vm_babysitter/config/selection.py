"""Which VMs the settings mean. Pure."""

from collections.abc import Iterable, Sequence

from vm_babysitter.config.context import VmRef
from vm_babysitter.config.sections.schedules import Schedule
from vm_babysitter.config.settings import Settings

IGNORED = "it is among the ignored VMs"
NOT_CHOSEN = "only chosen VMs are backed up, and it is none of them"
NEW = "it is new, and new VMs are not backed up by themselves"


def names_vm(settings: Settings, entries: Iterable[str], vm: VmRef) -> bool:
    """Whether one of the entries means this VM: its name, its UUID, or a group it is in.

    A group comes before a VM of the same name: who wrote both meant the group.
    """
    groups = settings.vms.groups
    return any(
        any(map(vm.called, groups[entry])) if entry in groups else vm.called(entry)
        for entry in entries
    )


def selected(settings: Settings, vms: Iterable[VmRef]) -> dict[str, str | None]:
    """Return, by UUID, why a VM is not backed up; None for those that are."""
    return {vm.uuid: _why_not(settings, vm) for vm in vms}


def _why_not(settings: Settings, vm: VmRef) -> str | None:
    chosen = settings.vms
    if names_vm(settings, chosen.ignored, vm):
        return IGNORED
    if names_vm(settings, chosen.chosen, vm):
        return None
    if chosen.mode == "chosen":
        return NOT_CHOSEN
    if not chosen.include_new and chosen.seen is not None and not any(map(vm.called, chosen.seen)):
        return NEW
    return None


def due(settings: Settings, schedule: Schedule, vms: Sequence[VmRef]) -> tuple[VmRef, ...]:
    """Return the VMs that a schedule is for, in the order of ``vms``."""
    why_not = selected(settings, vms)
    return tuple(
        vm
        for vm in vms
        if why_not[vm.uuid] is None and (not schedule.vms or names_vm(settings, schedule.vms, vm))
    )


def seen_to_note(settings: Settings, vms: Iterable[VmRef]) -> tuple[str, ...] | None:
    """Return what ``vms.seen`` should be, given all VMs that there are.

    It is to be noted when ``include_new`` is switched off, and forgotten when it is switched on.
    """
    if settings.vms.include_new:
        return None
    if settings.vms.seen is not None:
        return settings.vms.seen
    return tuple(vm.uuid for vm in vms)
