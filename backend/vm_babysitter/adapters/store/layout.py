"""Names and places in the backup folder. Pure."""

import re
from datetime import UTC, datetime

STORE_FILE = "store.json"
VM_FILE = "vm.json"
CHAIN_FILE = "chain.json"
POINT_FILE = "point.json"
CURRENT_FILE = "current.json"
SEEN_FILE = "seen.json"
LOCK_FILE = "store.lock"
CHECK_PREFIX = ".vmb-check-"
"""What the folders are called in which ``check-store`` tries a place."""
LEASE_FILE = "lease.json"

CHAIN_PATTERN = re.compile(r"\d{8}T\d{6}Z")
ATTEMPT_PATTERN = re.compile(r"(\d{6}-(full|inc))\.attempt\.json")
REMOVAL_PATTERN = re.compile(r"(\d{6}-(full|inc))\.removal\.json")
TORN_MARK_PATTERN = re.compile(rf"\.{ATTEMPT_PATTERN.pattern}\.tmp")
"""What a kill leaves that comes while the mark of an attempt is written."""
BEGUN_CHAIN_PATTERN = re.compile(rf"chain\.json|\.chain\.json\.tmp|{TORN_MARK_PATTERN.pattern}")
"""What is in a chain before its first attempt is put down, crashes included."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names of files in a point, and of disks."""
POINT_PATTERN = re.compile(r"(\d{6})-(full|inc)")
OF_POINTS = re.compile(r"\d{6}-(full|inc)(\.(attempt|damage|removal)\.json)?")
"""What lies in a chain because of its points."""
IN_STORE = (STORE_FILE, LOCK_FILE, LEASE_FILE)
IN_VM = (VM_FILE, SEEN_FILE)
IN_CHAIN = (CHAIN_FILE, CURRENT_FILE)
UNWRITTEN = re.compile(rf"\..*\.tmp|{re.escape(CHECK_PREFIX)}.*")
"""What a process of ours leaves that is killed while it writes a document, or tries a place."""
HARMLESS = frozenset(
    {
        "lost+found",
        ".Recycle.Bin",
        "System Volume Information",
        ".DS_Store",
        "@eaDir",
        ".stfolder",
        ".stignore",
        ".directory",
        "Thumbs.db",
        "desktop.ini",
    }
)
"""What systems and programs put into every folder."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", re.IGNORECASE)
_LONGEST_NAME = 80


def vm_directory(name: str, uuid: str) -> str:
    """Return the directory name of a VM: legal on Linux and SMB, unique by the UUID's start.

    It is a courtesy to people; programs find a VM by the UUID in ``vm.json``.
    """
    safe = _UNSAFE.sub("_", name).strip(" .")
    encoded = safe.encode()[:_LONGEST_NAME]
    safe = encoded.decode(errors="ignore").strip(" .") or "vm"
    if safe.startswith("-") or _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    return f"{safe}-{uuid.replace('-', '')[:8]}"


def names_vm(directory: str, uuid: str) -> bool:
    """Whether a directory has a name that we would give to that of a VM with this UUID."""
    return directory.endswith((f"-{uuid.replace('-', '')[:8]}", f"-{uuid}"))


def chain_directory(started: datetime) -> str:
    """Return the directory name of a chain begun at this moment."""
    return started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def chain_begun(directory: str) -> datetime | None:
    """Return the moment that the name of a chain's directory tells, None if it tells none."""
    try:
        return datetime.strptime(directory, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def attempt_file(point_directory: str) -> str:
    """Return the name, in the chain's directory, of what an attempt puts down first."""
    return f"{point_directory}.attempt.json"


def damage_file(point_directory: str) -> str:
    """Return the name, in the chain's directory, of what a verify found wrong with a point."""
    return f"{point_directory}.damage.json"


def removal_file(point_directory: str) -> str:
    """Return the name, in the chain's directory, of what says that a point is being removed."""
    return f"{point_directory}.removal.json"


def target_file(target: str, suffix: str) -> str:
    """Return the name of a disk's file in a point."""
    return f"{target}.{suffix}"


def parse_point_directory(name: str) -> tuple[int, str] | None:
    """Return sequence number and level of a point's directory name."""
    match = POINT_PATTERN.fullmatch(name)
    return None if match is None else (int(match[1]), match[2])


def backing_path(parent_directory: str, file: str) -> str:
    """Return the backing file as an increment's image names it."""
    return f"../{parent_directory}/{file}"
