"""Brings what the locks name into the cache. Nothing is installed; nothing is taken unchecked."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from build.locks import Deb, Requirement, canonical, sha256
from build.places import CACHE
from build.programs import BuildFailed, run

FOLDER = CACHE / "downloads"
_APT = ("apt-get", "-q", "-o", "APT::Sandbox::User=root")
_PLATFORMS = ("2_34", "2_31", "2_28", "2_17")
"""Versions of glibc that libraries may be made for: Unraid 7.0 has 2.40, Debian 12 has 2.36."""
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-q")
FROM_SOURCE = "libvirt-python"
"""PyPI has it as source only."""


class Unavailable(BuildFailed):
    """Debian does not have a version any more that the lock names."""


def debs(wanted: Sequence[Deb]) -> dict[Deb, Path]:
    """Return the files of Debian packages, downloaded if they are not there.

    Raises Unavailable if one cannot be had, BuildFailed if it is not what the lock says.
    """
    found = {deb: FOLDER / f"{deb.name}_{deb.sha256[:16]}.deb" for deb in wanted}
    missing = [deb for deb in wanted if not found[deb].exists()]
    if missing:
        _download_debs(missing, found)
    for deb, path in found.items():
        _check(path, deb.sha256)
    return found


def _download_debs(missing: Sequence[Deb], places: dict[Deb, Path]) -> None:
    with _partial() as folder:
        names = [f"{deb.name}={deb.version}" for deb in missing]
        try:
            _apt_download(names, folder)
        except BuildFailed as e:
            raise Unavailable(f"{e}\nDebian has replaced it: run `make lock`") from e
        for deb in missing:
            (file,) = folder.glob(f"{deb.name}_*.deb")
            _check(file, deb.sha256)
            file.replace(places[deb])


def newest_debs(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Download what apt would install now, by name."""
    _apt_download(names, folder)
    return {name: next(folder.glob(f"{name}_*.deb")) for name in names}


def _apt_download(names: Sequence[str], folder: Path) -> None:
    try:
        run(*_APT, "download", *names, folder=folder)
    except BuildFailed:
        if os.geteuid() != 0:
            raise
        run(*_APT, "update")  # apt's lists may be older than the mirror, or not there at all
        run(*_APT, "download", *names, folder=folder)


def wheels(python: Path, wanted: Sequence[Requirement]) -> list[Path]:
    """Return the files of Python libraries: wheels, and the source of the one without."""
    found = {wish: _of(wish) for wish in wanted}
    missing = [wish for wish, path in found.items() if path is None]
    if missing:
        with _partial() as folder:
            fetch_wheels(python, [wish.line for wish in missing], folder, exact=True)
            for file in folder.iterdir():
                file.replace(FOLDER / f"{sha256(file)[:16]}-{file.name}")
        found = {wish: _of(wish) for wish in wanted}
    files = []
    for wish, path in found.items():
        if path is None:
            raise BuildFailed(f"no file of {wish.name} {wish.version} has the digest of the lock")
        _check(path, wish.sha256)
        files.append(path)
    return files


def fetch_wheels(python: Path, lines: Sequence[str], folder: Path, *, exact: bool) -> None:
    """Have pip download requirements; ``exact``: these and no others, with their digests."""
    sources = [line for line in lines if canonical(line).startswith(FROM_SOURCE)]
    binaries = [line for line in lines if line not in sources]
    platforms = [word for p in _PLATFORMS for word in ("--platform", f"manylinux_{p}_x86_64")]
    abis = [word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)]
    form = ("--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp")
    strict = ("--no-deps", "--require-hashes") if exact else ()
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "requirements"
        listed.write_text("\n".join(binaries))
        if binaries:
            command = (*_PIP, "download", *form, *abis, *platforms, *strict)
            run(python, *command, "-d", folder, "-r", listed)
        for line in sources:
            _fetch_source(python, line, folder, exact=exact)


def _fetch_source(python: Path, line: str, folder: Path, *, exact: bool) -> None:
    # pip insists on running the source's setup, with tools that it fetches for that. It asks
    # pkg-config for libvirt; any answer does, since nothing is built.
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "requirements"
        listed.write_text(line)
        Path(scratch, "pkg-config").write_text("#!/bin/sh\necho /x-api.xml\n")
        Path(scratch, "pkg-config").chmod(0o755)
        strict = ("--require-hashes",) if exact else ()
        command = (*_PIP, "download", "--no-deps", "--no-binary", FROM_SOURCE)
        path = f"{scratch}:/usr/bin:/bin"
        run(python, *command, *strict, "-d", folder, "-r", listed, environment={"PATH": path})


def _of(wish: Requirement) -> Path | None:
    return next(iter(sorted(FOLDER.glob(f"{wish.sha256[:16]}-*"))), None)


def _check(path: Path, digest: str) -> None:
    if sha256(path) != digest:
        raise BuildFailed(f"{path} is not what the lock says: remove it, or run `make lock`")


@contextmanager
def _partial() -> Iterator[Path]:
    """A folder for what is not complete yet, on the file system of the cache."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="partial-") as folder:
        yield Path(folder)
