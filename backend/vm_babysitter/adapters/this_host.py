"""Which machine this is, and since when it runs without a break."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from vm_babysitter.ports import ThisHost

_UNRAID = "var/local/emhttp/var.ini"
_UNRAID_KEY = "flashGUID"
_FILES = ("etc/machine-id", "sys/class/dmi/id/product_uuid")
_BOOT = "proc/sys/kernel/random/boot_id"
_NOTHING = frozenset({"", "uninitialized"})
_DIGITS = 32
_LONGEST = 1 << 20
_STARTED = 19
"""Position of the start time in ``/proc/<pid>/stat``, counted after the name."""


def this_host(root: Path = Path("/")) -> ThisHost:
    """Describe the machine that we run on; ``root`` is where its file system begins.

    Its identity is that of Unraid's flash drive, else the machine's id, else that of its board,
    else its name. What is told of it is a digest: licences hang on the first, and the second is
    not meant to be shown around.
    """
    name = socket.gethostname()
    known = next(_identities(root), f"name {name}")
    digest = blake3(f"vm-babysitter host {known}".encode(errors="surrogateescape")).hexdigest()
    return ThisHost(digest[:_DIGITS], name, _first_line(root / _BOOT))


def _identities(root: Path) -> Iterator[str]:
    """Yield by what the machine can be told from others, the surest first."""
    flash = _ini_value(root / _UNRAID, _UNRAID_KEY)
    if flash:
        yield f"flash {flash.lower()}"
    for name in _FILES:
        value = _first_line(root / name).lower()
        if value not in _NOTHING:
            yield f"{Path(name).name} {value}"


def _ini_value(path: Path, key: str) -> str:
    for line in _text(path).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == key:
            return value.strip().strip('"').strip()
    return ""


def _first_line(path: Path) -> str:
    lines = _text(path).splitlines()
    return lines[0].strip() if lines else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def runs_with(option: str, value: str) -> str:
    """Return what tells the programs that run with an option from others; empty if none does.

    That is their numbers, and when they were started, since numbers come again.
    """
    wanted = f"\0{option}\0{value}\0".encode()
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - many, in a hurry
        if entry.isdecimal() and wanted in _bytes(f"/proc/{entry}/cmdline"):
            after_name = _bytes(f"/proc/{entry}/stat").rpartition(b")")[2].split()
            if len(after_name) > _STARTED:
                found.append(f"{entry}-{after_name[_STARTED].decode()}")
    return " ".join(sorted(found))


def _bytes(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    except OSError:  # it has ended
        return b""
