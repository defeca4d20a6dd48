"""`make lock`: writes down what apt and pip would take today, as what packages are made of."""

import sys
import tempfile
import tomllib
from pathlib import Path

from build import downloads
from build.locks import (
    Deb,
    Requirement,
    canonical,
    sha256,
    write_debs,
    write_requirements,
)
from build.parts import DEBIAN
from build.places import CACHE, DEBIAN_LOCK, REPOSITORY, REQUIREMENTS_LOCK
from build.programs import BuildFailed, run


def wanted() -> list[str]:
    """Return the libraries that the program asks for, as pyproject.toml names them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [str(line) for line in project["dependencies"]]


def main() -> None:
    """Write both locks."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        write_debs(_debs(Path(scratch)))
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        write_requirements(_requirements(Path(scratch)))
    sys.stdout.write(f"lock: {DEBIAN_LOCK} and {REQUIREMENTS_LOCK} are written\n")


def _debs(folder: Path) -> list[Deb]:
    names = [name for use in DEBIAN for name in DEBIAN[use]]
    files = downloads.newest_debs(names, folder)
    return [
        Deb(use, name, _version(files[name]), sha256(files[name]))
        for use in DEBIAN
        for name in DEBIAN[use]
    ]


def _version(deb: Path) -> str:
    return run("dpkg-deb", "--field", deb, "Version").strip()


def _requirements(folder: Path) -> list[Requirement]:
    downloads.fetch_wheels(Path(sys.executable), wanted(), folder, exact=False)
    return [_requirement(path) for path in folder.iterdir()]


def _requirement(path: Path) -> Requirement:
    stem = path.name.removesuffix(".tar.gz")
    name, version = stem.rsplit("-", 1) if stem != path.name else stem.split("-")[:2]
    return Requirement(canonical(name), version, sha256(path))


if __name__ == "__main__":
    try:
        main()
    except BuildFailed as e:
        sys.exit(f"lock: {e}")
