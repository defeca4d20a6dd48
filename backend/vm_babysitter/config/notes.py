"""What is allowed in settings, and may not be what was meant."""

from collections.abc import Iterator

from vm_babysitter.config.context import Context, Note
from vm_babysitter.config.keys import Where
from vm_babysitter.config.selection import due, names_vm, selected
from vm_babysitter.config.settings import Settings
from vm_babysitter.config.shape import path_of, quoted
from vm_babysitter.domain import schedule
from vm_babysitter.domain.autostart import Awaited, parse_condition


def notes_on(settings: Settings, known: Context | None) -> tuple[Note, ...]:
    """Return the notes on settings that are right; those on VMs only if VMs are known."""
    found = [*_whole(settings), *_times(settings)]
    if known is not None:
        found += [*_names(settings, known), *_twice(settings, known), *_idle(settings, known)]
        found += _starts(settings, known)
    return tuple(found)


def _whole(settings: Settings) -> Iterator[Note]:
    if not settings.store.path:
        yield Note("store.path", "No backup folder is set up: nothing is backed up.")
    if settings.vms.mode == "chosen" and not settings.vms.chosen:
        yield Note("vms.chosen", "No VM is chosen: nothing is backed up by schedule.")
    if not any(one.enabled and one.kind == "backup" for one in settings.schedules):
        yield Note("schedules", "No schedule makes backups: they are made by hand only.")


def _times(settings: Settings) -> Iterator[Note]:
    for number, one in enumerate(settings.schedules):
        for warning in schedule.parse(one.when).warnings():
            yield Note(path_of(("schedules", number, "when")), warning)


def _mentioned(settings: Settings) -> Iterator[tuple[Where, str]]:
    """Yield each place where a VM or a group can be named."""
    chosen = settings.vms
    for key, entries in (("ignored", chosen.ignored), ("chosen", chosen.chosen)):
        for number, entry in enumerate(entries):
            yield ("vms", key, number), entry
    for number, one in enumerate(settings.schedules):
        for position, entry in enumerate(one.vms):
            yield ("schedules", number, "vms", position), entry


def _names(settings: Settings, known: Context) -> Iterator[Note]:
    groups = settings.vms.groups
    for where, entry in _mentioned(settings):
        if entry not in groups and not any(vm.called(entry) for vm in known.vms):
            yield Note(path_of(where), f"There is no VM or group {quoted(entry)} now.")
    members = [(("vms", "groups", g, i), m) for g in groups for i, m in enumerate(groups[g])]
    own = [(("per_vm", key), key) for key in settings.per_vm]
    starts = [(("autostart", "vms", i, "vm"), s.vm) for i, s in enumerate(settings.autostart.vms)]
    for where, entry in [*members, *own, *starts]:
        if not any(vm.called(entry) for vm in known.vms):
            yield Note(path_of(where), f"There is no VM {quoted(entry)} now.")


def _twice(settings: Settings, known: Context) -> Iterator[Note]:
    for vm in known.vms:
        if vm.name in settings.vms.groups:
            yield Note(
                path_of(("vms", "groups", vm.name)),
                f"A VM has this name, too. {quoted(vm.name)} means the group, and the VM is named "
                f"by its UUID: {vm.uuid}.",
            )
        keys = [key for key in settings.per_vm if vm.called(key)]
        for key in keys[:-1] if len(keys) > 1 else ():
            yield Note(
                path_of(("per_vm", key)),
                f"The VM {quoted(vm.name)} is here under its name and its UUID; where both say "
                "something, the UUID counts.",
            )


def _idle(settings: Settings, known: Context) -> Iterator[Note]:
    why_not = selected(settings, known.vms)
    for number, one in enumerate(settings.schedules):
        for vm in known.vms:
            if names_vm(settings, one.vms, vm) and why_not[vm.uuid] is not None:
                reason = why_not[vm.uuid]
                yield Note(
                    path_of(("schedules", number, "vms")),
                    f"The VM {quoted(vm.name)} is left out: {reason}.",
                )
        if one.enabled and known.vms and not due(settings, one, known.vms):
            yield Note(path_of(("schedules", number)), "There is no VM that it is for now.")


def _starts(settings: Settings, known: Context) -> Iterator[Note]:
    """Tell of VMs that are started twice, and of waits that can only run out."""
    started: set[str] = set()
    for number, one in enumerate(settings.autostart.vms):
        where: Where = ("autostart", "vms", number)
        vm = next((vm for vm in known.vms if vm.called(one.vm)), None)
        if vm is not None and vm.uuid in started:
            yield Note(path_of((*where, "vm")), "This VM is in the list before: it counts once.")
        later = [other.vm for other in settings.autostart.vms[number:]]
        for position, text in enumerate(one.wait_for):
            condition = parse_condition(text)
            if condition.kind not in {Awaited.VM, Awaited.AGENT}:
                continue
            other = next((vm for vm in known.vms if vm.called(condition.target)), None)
            at = path_of((*where, "wait_for", position))
            if other is None:
                yield Note(at, f"There is no VM {quoted(condition.target)} now.")
            elif other.uuid not in started and any(map(other.called, later)):
                words = "is not started before this one: the wait may only run out."
                yield Note(at, f"The VM {quoted(other.name)} {words}")
        if vm is not None:
            started.add(vm.uuid)
