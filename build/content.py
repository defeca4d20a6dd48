"""What may be in a package, and what of this machine must not."""

import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from build.binaries import is_binary, needed, newest_versions
from build.places import BACKEND, CACHE, HOME, LICENSES, NAME, PACKAGES, PLUGIN, PYTHON, REPOSITORY

_MODULE = r"(/__pycache__)?/[\w-]+(\.cpython-311\.pyc|\.py)"
ALLOWED = tuple(
    re.compile(pattern)
    for pattern in (
        rf"etc/rc\.d/rc\.{NAME}",
        r"install/(doinst\.sh|slack-desc)",
        rf"usr/local/sbin/{NAME}",
        rf"{PLUGIN}/(event|scripts)/[a-z_-]+",
        rf"{PLUGIN}/(README\.md|[A-Za-z]+\.page)",
        rf"{PLUGIN}/(include|css|js|images)/[\w/.-]+\.(php|css|js|png|svg)",
        rf"{HOME}/parts\.json",
        rf"{LICENSES}/[\w.+-]+/[\w.+-]+",
        rf"{BACKEND}/vm_babysitter([/\w]*{_MODULE}|/py\.typed)",
        rf"{PYTHON}/bin/(python3\.11|link-libs)",
        rf"{PYTHON}/lib-fallback/lib[\w-]+\.so\.[\d.]+",
        rf"{PYTHON}/lib/python3\.11(/[\w/.-]+)?(\.pyc?|\.so|\.txt)",
        rf"{PACKAGES}/{NAME}\.pth",
        rf"{PACKAGES}/[\w/.+-]+",
    )
)
"""What paths look like; all others are mistakes."""
REQUIRED = (
    f"etc/rc.d/rc.{NAME}",
    "install/doinst.sh",
    "install/slack-desc",
    f"usr/local/sbin/{NAME}",
    f"{PLUGIN}/README.md",
    f"{PLUGIN}/VMBabysitter.page",
    f"{PLUGIN}/images/{NAME}.png",
    f"{PLUGIN}/scripts/installed",
)
"""What Unraid, or another part of the package, looks for by its name."""
NEWEST = {"GLIBC": (2, 40), "LIBVIRT": (9, 0, 0)}
"""What Unraid 7.0 has, and the oldest libvirt that we run on."""
GIVEN = frozenset({
    "ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1",
    "libvirt.so.0", "libvirt-qemu.so.0",
})  # fmt: skip
"""Libraries that every Unraid has: glibc's, and libvirt's."""


def complaints_of_entries(entries: Iterable[tarfile.TarInfo], moment: int) -> Iterator[str]:
    """Yield what is wrong with paths, owners, modes and times of a package."""
    entries = list(entries)
    for name in sorted({*REQUIRED} - {entry.name for entry in entries}):
        yield f"{name}: is not there"
    for entry in entries:
        if not (entry.isdir() or entry.isfile()):
            yield f"{entry.name}: neither a file nor a folder"
        elif entry.isfile() and not any(p.fullmatch(entry.name) for p in ALLOWED):
            yield f"{entry.name}: not in the list of what a package holds"
        if (entry.uid, entry.gid, entry.mtime) != (0, 0, moment):
            yield f"{entry.name}: not root's, or not of the day of the version"
        if entry.mode != (0o755 if entry.isdir() else entry.mode & 0o755 | 0o644):
            yield f"{entry.name}: its mode is {entry.mode:o}"
        if f"{PLUGIN}/event/" in entry.name and not entry.mode & 0o100:
            yield f"{entry.name}: Unraid skips events that are not executable"


def complaints_of_files(root: Path) -> Iterator[str]:
    """Yield what is wrong with the files of an unpacked package."""
    traces = [str(place).encode() for place in (REPOSITORY, CACHE)]
    ours = {path.name for path in (root / PYTHON / "lib-fallback").glob("*")}
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        name, content = path.relative_to(root), path.read_bytes()
        if any(trace in content for trace in traces):
            yield f"{name}: a path of the machine that built it is inside"
        if is_binary(path):
            yield from _complaints_of_binary(name, path, ours)


def _complaints_of_binary(name: Path, path: Path, ours: set[str]) -> Iterator[str]:
    for library in sorted(needed(path) - GIVEN - ours):
        yield f"{name}: needs {library}, which Unraid may lack"
    for library, version in newest_versions(path).items():
        if version > NEWEST[library]:
            yield f"{name}: needs {library} {'.'.join(map(str, version))}"
