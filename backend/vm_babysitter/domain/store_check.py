"""Is a place fit to hold backups? Judges what was found there, in words for everybody. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.space import Room, store_reserve
from vm_babysitter.lib.units import format_bytes

SLOW = 30_000_000
"""Bytes a second below which a place is called slow."""
_SMALL = 10 << 30
IN_RAM = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "virtiofs", "afs", "lustre"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.curlftpfs"}
)
_USER_SHARE = "fuse.shfs"
_USER_ROOTS = ("/mnt/user", "/mnt/user0")
_FLASH = "/boot"


class Verdict(StrEnum):
    """How one check ended, or all of them."""

    OK = "ok"
    WARNING = "warning"
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """For programs; it stays the same."""
    verdict: Verdict
    text: str
    """What was found and why it matters, in a sentence or two."""
    way_out: str = ""
    """What to do about it; empty where nothing need be done."""


class Trial(StrEnum):
    """What is tried in a folder of its own; the values are for programs."""

    RENAME = "rename"
    AT_ONCE = "rename-while-read"
    FSYNC = "fsync"
    EXCLUSIVE = "exclusive-create"
    LOCK = "lock"
    SPARSE = "sparse-files"
    BIG = "big-files"
    NAMES = "file-names"
    ODD_NAMES = "odd-file-names"


@dataclass(frozen=True, slots=True)
class Place:
    """What was found at a path."""

    path: str
    exists: bool = True
    folder: bool = True
    unreadable: str = ""
    """Why it cannot be read; empty if it can."""
    unwritable: str = ""
    """Why it cannot be written to; empty if it can."""
    filesystem: str = ""
    """Its type, as Linux calls it."""
    mount: str = "/"
    """Where that file system is mounted."""
    source: str = ""
    """What is mounted there."""
    room: Room | None = None
    trials: tuple[tuple[Trial, str], ...] = ()
    """What was tried, and why it failed; empty for what works."""
    case_blind: bool = False
    """Whether capital and small letters make no difference in names."""
    write_rate: float | None = None
    """Bytes a second, flushed; None if not measured."""
    read_rate: float | None = None
    foreign: tuple[str, ...] = ()
    """What lies in it that is not ours, if it holds no backups."""
    is_store: bool = False
    store_problem: str = ""
    """What is wrong with ``store.json``; empty if nothing is."""
    lease: Lease | None = None
    lease_problem: str = ""
    own_lease: bool = False
    disks_beside: tuple[str, ...] = ()
    """Disks of VMs on the same file system, as ``VM (target)``."""
    location: str = ""
    """The disk or pool that new files of a user share go to, if it tells."""
    allow_ram: bool = False
    left: str = ""
    """What of our own traces could not be removed."""


def judge(place: Place) -> tuple[Finding, ...]:
    """Judge a place; what cannot be known because of something worse is left out."""
    if not place.exists:
        return (_unfit("exists", "There is no such folder.", "Create it, or name another one."),)
    if not place.folder:
        return (_unfit("exists", "This is not a folder.", "Name a folder."),)
    checks: tuple[Callable[[Place], Iterator[Finding]], ...] = (
        _access,
        _content,
        _lease,
        _filesystem,
        _kind_of_place,
        _trials,
        _names,
        _space,
        _speed,
        _beside,
        _traces,
    )
    return tuple(finding for check in checks for finding in check(place))


def overall(findings: tuple[Finding, ...]) -> Verdict:
    """Return the worst of all verdicts."""
    order = list(Verdict)
    return max((f.verdict for f in findings), key=order.index, default=Verdict.OK)


def _ok(check: str, text: str) -> Finding:
    return Finding(check, Verdict.OK, text)


def _warning(check: str, text: str, way_out: str) -> Finding:
    return Finding(check, Verdict.WARNING, text, way_out)


def _unfit(check: str, text: str, way_out: str) -> Finding:
    return Finding(check, Verdict.UNFIT, text, way_out)


def _access(place: Place) -> Iterator[Finding]:
    if place.unreadable:
        yield _unfit("readable", f"It cannot be read: {place.unreadable}.", "Check permissions.")
    if place.unwritable:
        yield _unfit(
            "writable",
            f"It cannot be written to: {place.unwritable}. Restoring from it works.",
            "Check its permissions, whether the disk is full, and how it is mounted.",
        )
    if not place.unreadable and not place.unwritable:
        yield _ok("writable", "It is a folder that can be read and written to.")


def _content(place: Place) -> Iterator[Finding]:
    if place.store_problem:
        yield _unfit(
            "content",
            f"The file store.json, which makes it a backup folder, is not right: "
            f"{place.store_problem}. The backups are untouched.",
            "If it is damaged, move this one file away: reading needs none, and the next backup "
            "writes a new one.",
        )
    elif place.is_store:
        yield _ok("content", "It is a backup folder already.")
    elif place.foreign:
        names = ", ".join(place.foreign[:3])
        yield _unfit(
            "content",
            f"It holds other things ({names}): backups keep to a folder of their own, so that "
            "nothing gets mixed up.",
            "Name an empty folder, for instance a new one inside it.",
        )
    elif not place.unreadable:
        yield _ok("content", "It is empty: the first backup makes it a backup folder.")


def _lease(place: Place) -> Iterator[Finding]:
    if place.lease_problem:
        yield _warning(
            "lease",
            f"The note of which host writes to it is not right: {place.lease_problem}.",
            "The next backup writes it anew and makes its host the one.",
        )
    elif place.lease is None:
        if place.is_store:
            yield _ok("lease", "No host has it yet: the next backup makes its host the one.")
    elif place.own_lease:
        yield _ok("lease", "This host is the one that writes to it.")
    else:
        since = f"{place.lease.taken:%Y-%m-%d %H:%M}"
        yield _unfit(
            "lease",
            f"It belongs to the host {place.lease.host_name!r}, since {since} UTC. Only one host "
            "writes to a backup folder; restoring from it works on any.",
            "If that host is not to back up into it any more, take it over with --take-over.",
        )


def _filesystem(place: Place) -> Iterator[Finding]:
    kind, mount = place.filesystem, place.mount
    if kind in IN_RAM:
        text = f"It lies in memory (RAM, {kind}): everything in it is gone after a restart."
        way_out = "Name a folder on a disk, and check that the disk is mounted."
        yield (_warning if place.allow_ram else _unfit)("filesystem", text, way_out)
    elif mount == _FLASH or mount.startswith(f"{_FLASH}/"):
        yield _unfit(
            "filesystem",
            f"It lies on the drive the server starts from ({mount}). On Unraid that is a flash "
            "drive, which backups would fill and wear out.",
            "Name a folder on a disk or pool.",
        )
    elif kind == "overlay":
        yield _warning(
            "filesystem",
            "It lies inside a container: what is in it may be gone when that is made anew.",
            "Give the container a folder of the host, and name that.",
        )
    elif mount == "/":
        yield _warning(
            "filesystem",
            f"It lies on the file system that the server itself runs from ({kind}). If a disk "
            "was to be mounted here, it is not.",
            "Check with `findmnt` that the disk you mean is mounted. If you mean this one, fine.",
        )
    else:
        yield _ok("filesystem", f"It lies on a disk of its own: {kind}, mounted at {mount}.")


def _kind_of_place(place: Place) -> Iterator[Finding]:
    kind = place.filesystem
    if kind == _USER_SHARE or (kind.startswith("fuse") and place.mount in _USER_ROOTS):
        yield _user_share(place)
    elif kind in _NETWORK:
        yield _warning(
            "network",
            f"It lies on another machine ({kind}, {place.source}). A backup fails when the "
            "connection does, and the next one goes on. Locks may not be seen by other hosts; "
            "that only one host writes to it is seen to in another way.",
            "Mount it `hard` (NFS), so that a short break only waits. Nothing else need be done.",
        )
    elif kind.startswith("fuse"):
        yield _warning(
            "fuse",
            f"Its file system runs as an ordinary program ({kind}): it is slower, and what it has "
            "confirmed may be lost if that program dies.",
            "If there is a folder of a disk behind it, name that one.",
        )


def _user_share(place: Place) -> Finding:
    rest = next(
        (
            place.path.removeprefix(root).strip("/")
            for root in _USER_ROOTS
            if place.path.startswith(f"{root}/")
        ),
        "SHARE",
    )
    now = f" New files go to {place.location!r} at present." if place.location else ""
    where = place.location or "POOL"
    return _warning(
        "user-share",
        "It lies in an Unraid user share, which shows the folders of several disks as one. The "
        "restore points of a VM build on each other, and here they may end up on different disks: "
        "if one of these fails, all that builds on what was there is lost. The mover may carry "
        f"files off in the middle of a backup, which then fails.{now}",
        f"Best name the folder of one disk or pool: /mnt/{where}/{rest}. Or have the share use "
        "only one pool or disk as primary storage, no secondary storage (so that the mover "
        'leaves it alone), and the split level "Automatically split only the top level '
        'directory" or "Manual".',
    )


_WORKS = {
    Trial.RENAME: "A file can take the place of another.",
    Trial.AT_ONCE: "It does so at once, even while somebody reads the other.",
    Trial.FSYNC: "What is written can be made safe against a power cut.",
    Trial.EXCLUSIVE: "Two programs cannot make the same file.",
    Trial.LOCK: "Two programs cannot write to it at the same time.",
    Trial.SPARSE: "Empty parts of files take no room.",
    Trial.BIG: "Files may be larger than 4 GiB.",
}
_ENDURABLE = {
    Trial.AT_ONCE: (
        "A file that is replaced while somebody reads it does not change at once: {problem}. A "
        "crash in that moment could cost a note beside the restore points, not a restore point.",
        "Best name a folder of a disk or pool itself. Else nothing need be done.",
    ),
    Trial.SPARSE: (
        "Empty parts of files take room here: {problem}. Backups are as small as elsewhere, but "
        "what is restored into this place takes its full size.",
        "Restore to another place, or use ext4, XFS, btrfs or ZFS.",
    ),
}
_WHY = {
    Trial.RENAME: "a restore point is complete the moment one file is renamed",
    Trial.FSYNC: "a power cut could take restore points that were reported as complete",
    Trial.EXCLUSIVE: "two backups could get into each other's files",
    Trial.LOCK: "two backups could write at the same time",
    Trial.BIG: "the image of a disk may be as large as the disk",
}


def _trials(place: Place) -> Iterator[Finding]:
    for trial, problem in place.trials:
        if trial not in _WORKS:
            continue
        if not problem:
            yield _ok(trial, _WORKS[trial])
        elif trial in _ENDURABLE:
            text, way_out = _ENDURABLE[trial]
            yield _warning(trial, text.format(problem=problem), way_out)
        else:
            yield _unfit(
                trial,
                f"This does not work here: {problem}. It must, because {_WHY[trial]}.",
                "Use a disk with ext4, XFS, btrfs or ZFS, or NFS of such a disk.",
            )


def _names(place: Place) -> Iterator[Finding]:
    tried = dict(place.trials)
    if Trial.NAMES not in tried:
        return
    blind = " Capital and small letters are the same here, which does no harm."
    if tried[Trial.NAMES]:
        yield _unfit(
            Trial.NAMES,
            f"The file names of backups are not possible here: {tried[Trial.NAMES]}.",
            "Use a disk with ext4, XFS, btrfs or ZFS.",
        )
    elif tried.get(Trial.ODD_NAMES):
        yield _warning(
            Trial.NAMES,
            f"Not all letters are possible in file names here: {tried[Trial.ODD_NAMES]}. VMs whose "
            "names have such letters cannot be backed up into it.",
            "Use another file system, or give such VMs names of plain letters.",
        )
    else:
        yield _ok(Trial.NAMES, f"All file names are possible.{blind if place.case_blind else ''}")


def _space(place: Place) -> Iterator[Finding]:
    if place.room is None:
        return
    free, total = place.room.free, place.room.total
    words = f"{format_bytes(free)} of {format_bytes(total)} are free"
    more = "Free some space, or choose a larger disk."
    if free <= store_reserve(total):
        yield _unfit("space", f"It is full: {words}. No backup begins.", more)
    elif free < _SMALL:
        text = f"There is little space: {words}. A first backup takes what the VM's disks hold."
        yield _warning("space", text, more)
    else:
        yield _ok("space", f"{words[0].upper()}{words[1:]}.")


def _speed(place: Place) -> Iterator[Finding]:
    if place.write_rate is None or place.read_rate is None:
        return
    rates = f"{place.write_rate / 1e6:.0f} MB/s written, {place.read_rate / 1e6:.0f} MB/s read"
    slowest = min(place.write_rate, place.read_rate)
    if slowest < SLOW:
        yield _warning(
            "speed",
            f"It is slow ({rates}): 100 GB take {_hours(100e9 / slowest)}.",
            "Check the disk, the cable and the network, or choose a faster place.",
        )
    else:
        yield _ok("speed", f"It is fast enough: {rates}, in a short trial.")


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} hours" if hours >= 2 else f"{seconds / 60:.0f} minutes"  # noqa: PLR2004


def _beside(place: Place) -> Iterator[Finding]:
    if place.disks_beside:
        names = ", ".join(place.disks_beside[:3])
        more = len(place.disks_beside) - 3
        others = f" and {more} more" if more > 0 else ""
        yield _warning(
            "same-disk",
            f"Disks of VMs lie on the same file system: {names}{others}. If it breaks, VM and "
            "backup are lost together.",
            "Choose another disk or pool, or keep a second copy of the backup folder elsewhere.",
        )


def _traces(place: Place) -> Iterator[Finding]:
    if place.left:
        yield _warning(
            "traces",
            f"What was tried here could not be removed again: {place.left}.",
            "Remove the folder by hand; its name begins with .vmb-check-.",
        )
