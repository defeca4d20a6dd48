"""The version of a package, its moment, what has changed, and who publishes it."""

import ast
import re
import tomllib
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from build.places import NAME, RELEASE, REPOSITORY
from build.programs import BuildFailed

VERSION = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})([a-z]?)")
"""A date, and a letter for the second of a day: Unraid compares versions as texts."""
UNRELEASED = "Unreleased"
_HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Publisher:
    """Who publishes the plugin, and where; empty before the first release."""

    author: str = ""
    project: str = ""
    support: str = ""
    plugin_url: str = ""
    package_url: str = ""
    template_url: str = ""
    icon_url: str = ""

    @property
    def missing(self) -> list[str]:
        """The names of those that are empty."""
        return [field.name for field in fields(self) if not getattr(self, field.name)]


def publisher(path: Path = RELEASE) -> Publisher:
    """Read who publishes it. Raises BuildFailed on a key that is none."""
    given = tomllib.loads(path.read_text())
    unknown = given.keys() - {field.name for field in fields(Publisher)}
    if unknown:
        raise BuildFailed(f"{path.name}: {', '.join(sorted(unknown))}: no such key")
    return Publisher(**given)


def version(backend: Path = REPOSITORY / "backend") -> str:
    """Return the version of the program. Raises BuildFailed if it is not a date."""
    text = (backend / "vm_babysitter/__init__.py").read_text()
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name("__version__")], value=ast.Constant(str(found))):
                moment(found)
                return found
    raise BuildFailed("backend/vm_babysitter/__init__.py names no __version__")


def moment(version: str) -> int:
    """Return the time that all files of a version have, in seconds: its day, a minute per letter.

    Raises BuildFailed if it is not a date.
    """
    match = VERSION.fullmatch(version)
    refused = BuildFailed(f"the version {version} is not YYYY.MM.DD, with a letter at most")
    if match is None:
        raise refused
    try:
        day = datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC)
    except ValueError as e:
        raise refused from e
    return int(day.timestamp()) + 60 * (ord(match[4]) - ord("a") + 1 if match[4] else 0)


def package_file(version: str) -> str:
    """Return the name of the package; Unraid keeps a cached one of the same name."""
    return f"{NAME}-{version}-x86_64-1.txz"


def sections(changelog: str) -> dict[str, str]:
    """Return the text below each heading, in order: versions, and what is not released yet."""
    parts = _HEADING.split(changelog)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def changes(version: str, changelog: str) -> str:
    """Return what a version changes, or what will be in the next one if it is not named."""
    found = sections(changelog)
    return found.get(version) or found.get(UNRELEASED, "")
