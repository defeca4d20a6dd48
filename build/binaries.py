"""What is done to programs and libraries, and what is asked of them, by the tools for it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from build.programs import run

_MAGIC = b"\x7fELF"
_SYMBOL_VERSION = re.compile(r"\b(GLIBC|LIBVIRT)_(\d+(?:\.\d+)+)\b")
_NEEDED = re.compile(r"^\s+NEEDED\s+(\S+)$", re.MULTILINE)
_SONAME = re.compile(r"^\s+SONAME\s+(\S+)$", re.MULTILINE)


def is_binary(path: Path) -> bool:
    """Whether it is a program or a library of machine code."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def strip(paths: Iterable[Path]) -> None:
    """Remove what only debuggers read."""
    run("strip", "--strip-unneeded", *sorted(paths))


def look_for_libraries_in(patchelf: Path, place: Path, paths: Iterable[Path]) -> None:
    """Have the loader look there first, wherever the whole tree lies."""
    for path in sorted(paths):
        relative = os.path.relpath(place, path.parent)
        run(patchelf, "--set-rpath", f"$ORIGIN/{relative}", path)


def soname(path: Path) -> str | None:
    """Return the name by which others ask for a library."""
    match = _SONAME.search(run("objdump", "-p", path))
    return match[1] if match else None


def needed(path: Path) -> set[str]:
    """Return the names of the libraries that a file asks for."""
    return set(_NEEDED.findall(run("objdump", "-p", path)))


def newest_versions(path: Path) -> dict[str, tuple[int, ...]]:
    """Return what a file asks of ``GLIBC`` and ``LIBVIRT``: the newest version of each."""
    newest: dict[str, tuple[int, ...]] = {}
    for line in run("objdump", "-T", path).splitlines():
        if "*UND*" not in line:
            continue
        for name, text in _SYMBOL_VERSION.findall(line):
            version = tuple(int(part) for part in text.split("."))
            newest[name] = max(newest.get(name, ()), version)
    return newest
