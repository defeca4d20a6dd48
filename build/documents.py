"""The documents around a package: the plugin's file, and what Community Applications reads.

Their templates do not end in `.xml`: the feed of applications reads all such files.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from build import release
from build.places import NAME, REPOSITORY, TEMPLATES
from build.programs import BuildFailed
from build.release import Publisher

PLG = f"{NAME}.plg"
APPLICATION = f"{NAME}.xml"
PROFILE = "ca_profile.xml"
NAMES = (PLG, APPLICATION, PROFILE)
OLDEST_UNRAID = "7.0.0"
_DESCRIPTION = (
    "Backs up virtual machines incrementally, running or off, proves that the backups restore, and "
    "picks up by itself after whatever went wrong. It needs the host itself, which a container has "
    "not: libvirt, the images of VMs, the events of the array, the server's start and stop."
)
_PROFILE = "VM Babysitter: backups of virtual machines."
_PLACEHOLDER = re.compile(r"@([a-z0-9_]+)@")
_QUOTES = {'"': "&quot;", "'": "&apos;"}


@dataclass(frozen=True)
class Package:
    """A package that documents speak of."""

    version: str
    sha256: str


def render(package: Package, publisher: Publisher, changelog: str) -> dict[str, str]:
    """Return the documents by their names at the top of the repository."""
    file = release.package_file(package.version)
    folder = publisher.package_url.replace("{version}", package.version).rstrip("/")
    values = {
        **asdict(publisher),
        "name": NAME,
        "version": package.version,
        "package": file,
        "sha256": package.sha256,
        "url": f"{folder}/{file}",
        "min": OLDEST_UNRAID,
        "changes": f"### {package.version}\n{release.changes(package.version, changelog)}",
        "description": _DESCRIPTION,
        "profile": _PROFILE,
    }
    return {name: _filled(name, values) for name in NAMES}


def write(documents: Mapping[str, str], folder: Path = REPOSITORY) -> None:
    """Write them where they are published from."""
    for name, text in documents.items():
        (folder / name).write_text(text)


def _filled(name: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BuildFailed(f"{name}.in: {match[0]} is nothing that is known")
        return escape(values[match[1]], _QUOTES)

    return _PLACEHOLDER.sub(value, (TEMPLATES / f"{name}.in").read_text())
