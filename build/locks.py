"""The locks: what exactly a package is made of. `make lock` writes them, each build reads them."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from build.places import DEBIAN_LOCK, REQUIREMENTS_LOCK
from build.programs import BuildFailed

RUNTIME, TOOL, NOTICE = "runtime", "tool", "notice"
USES = (RUNTIME, TOOL, NOTICE)
"""What a Debian package is for: its files are shipped; it builds; only its licence is shipped."""
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_HEAD = "# Written by `make lock`; what a package is made of.\n"


@dataclass(frozen=True)
class Deb:
    """A Debian package in one version."""

    use: str
    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Requirement:
    """A Python library in one version, as one file."""

    name: str
    version: str
    sha256: str

    @property
    def line(self) -> str:
        """As pip reads it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def read_debs(path: Path = DEBIAN_LOCK) -> list[Deb]:
    """Return the Debian packages. Raises BuildFailed on a line that is none."""
    debs = []
    for line in _lines(path):
        words = line.split()
        if len(words) != len(Deb.__dataclass_fields__) or words[0] not in USES:
            raise BuildFailed(f"{path.name}: {line!r} is not USE NAME VERSION SHA256")
        debs.append(Deb(*words))
    return debs


def write_debs(debs: Iterable[Deb], path: Path = DEBIAN_LOCK) -> None:
    """Write them in an order of their own."""
    ordered = sorted(debs, key=lambda deb: (USES.index(deb.use), deb.name))
    lines = [f"{deb.use} {deb.name} {deb.version} {deb.sha256}\n" for deb in ordered]
    path.write_text(_HEAD + "# USE NAME VERSION SHA256\n" + "".join(lines))


def read_requirements(path: Path = REQUIREMENTS_LOCK) -> list[Requirement]:
    """Return the Python libraries. Raises BuildFailed on a line that is none."""
    found = []
    for line in _lines(path):
        pinned, _, hashes = line.partition(" ")
        name, _, version = pinned.partition("==")
        match = _HASH.fullmatch(hashes.strip())
        if not (name and version and match):
            raise BuildFailed(f"{path.name}: {line!r} is not NAME==VERSION --hash=sha256:HASH")
        found.append(Requirement(name, version, match[1]))
    return found


def write_requirements(requirements: Iterable[Requirement], path: Path = REQUIREMENTS_LOCK) -> None:
    """Write them, sorted."""
    ordered = sorted(requirements, key=lambda requirement: requirement.name)
    path.write_text(_HEAD + "".join(f"{requirement.line}\n" for requirement in ordered))


def canonical(name: str) -> str:
    """The one spelling of a library's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(path: Path) -> str:
    """Return the digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise BuildFailed(f"{path.name} is missing: run `make lock`")
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
