"""What has changed about a VM's hardware since its last restore point, in sentences. Pure."""

from collections.abc import Sequence

from vm_babysitter.domain.point import Point, PointDisk
from vm_babysitter.domain.vm import Disk, DiskVerdict, worth_mentioning
from vm_babysitter.lib.units import format_bytes


def changed_disk(disk: Disk, identity: str, used_as: str, past: PointDisk | None) -> str:
    """Say in one sentence what is different about a disk, empty if nothing is.

    Args:
        disk: as it is now.
        identity: of its image, empty where unknown.
        used_as: what the VM uses the image as.
        past: what it was at the earlier restore point, None if it was not there.
    """
    if past is None:
        return f"disk {disk.target} is new"
    found = []
    if past.target != disk.target:
        found.append(f"was disk {past.target} before")
    if disk.source_type == "file":  # names and numbers of devices change with every boot
        if past.path != disk.path:
            found.append(f"uses the image {disk.path} now, it was {past.path}")
        elif identity and past.identity and past.identity != identity:
            found.append(f"uses another file called {disk.path} now")
    if past.source_format != used_as:
        found.append(f"is {used_as} now, it was {past.source_format}")
    if past.encrypted and not disk.encrypted:
        found.append("is no longer encrypted")
    found += _resized(disk, past)
    return f"disk {disk.target} {', and '.join(found)}" if found else ""


def _resized(disk: Disk, past: PointDisk) -> list[str]:
    """Say how the size changed, where the image's own size is what the VM sees."""
    told = disk.virtual_size and disk.declared_format in {"", disk.real_format}
    if not told or disk.virtual_size == past.virtual_size:
        return []
    sizes = [format_bytes(size) for size in (past.virtual_size, disk.virtual_size)]
    if sizes[0].replace(".0 ", " ") == sizes[1].replace(".0 ", " "):
        sizes = [f"{size} bytes" for size in (past.virtual_size, disk.virtual_size)]
    word = "has grown" if disk.virtual_size > past.virtual_size else "was made smaller"
    return [f"{word} from {sizes[0]} to {sizes[1]}"]


def newly_encrypted(disk: Disk, past: PointDisk | None) -> str:
    """Warn once of a disk that the host keeps encrypted; empty if there is nothing to say."""
    if not disk.encrypted or (past is not None and past.encrypted):
        return ""
    return (
        f"disk {disk.target} is encrypted on the host, but not in the backup: whoever can read "
        "the backup folder can read what is on it"
    )


def gone_disks(
    parent: Point,
    found: Sequence[PointDisk | None],
    disks: Sequence[DiskVerdict],
    left_out: Sequence[DiskVerdict],
) -> tuple[list[str], list[str]]:
    """Say which disks of the earlier point are missing in the next one.

    Args:
        parent: the earlier point.
        found: those of its disks that the next point goes on with.
        disks: what the next point contains.
        left_out: the VM's other disks.

    Returns warnings, about disks that the VM still has, and notes.
    """
    going_on = {d.target for d in found if d is not None} | {d.disk.target for d in disks}
    gone = sorted({disk.target for disk in parent.disks} - going_on)
    why = {v.disk.target: v for v in left_out if worth_mentioning(v)}
    warnings = [f"disk {t} is no longer backed up: {why[t].reason}" for t in gone if t in why]
    notes = [
        f"disk {t} is no longer part of the VM; earlier restore points keep it"
        for t in gone
        if t not in why
    ]
    return warnings, notes


def changed_vm(uuid: str, name: str, parent: Point | None, namesakes: Sequence[str]) -> list[str]:
    """Say what is different about the VM itself.

    Args:
        uuid: of the VM.
        name: its name now.
        parent: the restore point that the next one builds on, None if it builds on none.
        namesakes: UUIDs of VMs in the backup folder that have or had this name.
    """
    if parent is not None:
        renamed = parent.vm_name != name
        return [f"the VM was called {parent.vm_name!r} before"] if renamed else []
    others = sorted(set(namesakes) - {uuid})
    if not others:
        return []
    return [
        f"the backup folder has restore points of a VM called {name!r} with another UUID "
        f"({', '.join(others)}); they stay as they are"
    ]
