"""What holds for one VM. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from msgspec import UNSET

from vm_babysitter.config.sections.hooks import Hook
from vm_babysitter.config.sections.per_vm import OneVm
from vm_babysitter.config.settings import Settings


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """How one VM is backed up."""

    compress: bool
    limit: int | None
    """Bytes per second; None: no limit."""
    low_priority: bool
    reread_runs: int
    longest: timedelta | None
    """Of a backup that is not a full; None: no bound."""
    track_snapshots: bool
    before: Hook | None
    """None: no command."""
    after: Hook | None


def effective(settings: Settings, vm_uuid: str, vm_name: str) -> BackupOptions:
    """Return how one VM is backed up: what is said for it alone, else what is said for all."""
    backup, hooks = settings.backup, settings.hooks
    values: dict[str, object] = {key: getattr(backup, key) for key in backup.__struct_fields__}
    before, after = hooks.before, hooks.after
    for own in own_settings(settings, vm_uuid, vm_name):
        for key in own.backup.__struct_fields__:
            value = getattr(own.backup, key)
            values[key] = values[key] if value is UNSET else value
        before = before if own.hooks.before is UNSET else own.hooks.before
        after = after if own.hooks.after is UNSET else own.hooks.after
    merged = type(backup)(**values)  # type: ignore[arg-type]
    return BackupOptions(
        compress=merged.compress,
        limit=merged.limit or None,
        low_priority=merged.low_priority,
        reread_runs=merged.reread_runs,
        longest=timedelta(hours=merged.longest) if merged.longest else None,
        track_snapshots=merged.track_snapshots,
        before=before if before.argv else None,
        after=after if after.argv else None,
    )


def own_settings(settings: Settings, vm_uuid: str, vm_name: str) -> list[OneVm]:
    """Return what is said for one VM alone; the last counts: that by UUID."""
    by_name = [settings.per_vm[vm_name]] if vm_name in settings.per_vm else []
    by_uuid = [
        own
        for key, own in settings.per_vm.items()
        if key.lower() == vm_uuid.lower() and key != vm_name
    ]
    return by_name + by_uuid
