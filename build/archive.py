"""Packs a folder as Slackware's package tools do, the same bytes each time."""

import tarfile
from collections.abc import Callable
from pathlib import Path

from build.programs import BuildFailed, run

BEST, QUICK = 9, 1
"""How much xz tries; a package is made with BEST."""


def pack(root: Path, package: Path, moment: int, effort: int = BEST) -> None:
    """Pack all below ``root``; everything belongs to root, and was made at ``moment`` (seconds)."""
    plain = package.with_suffix(".tar")
    with tarfile.open(plain, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in [root, *sorted(root.rglob("*"))]:
            archive.add(path, _name(root, path), recursive=False, filter=_uniform(moment))
    # One thread: with more, the bytes would depend on how many processors there are.
    run("xz", "--force", "--threads=1", f"-{effort}", plain)
    plain.with_suffix(".tar.xz").replace(package)


def _name(root: Path, path: Path) -> str:
    return "./" if path == root else str(path.relative_to(root))


def _uniform(moment: int) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    def change(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (entry.isfile() or entry.isdir()):
            # The package tools would have links made by doinst.sh.
            raise BuildFailed(f"{entry.name} is neither a file nor a folder")
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = moment
        return entry

    return change
