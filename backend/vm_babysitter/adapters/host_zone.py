"""The time zone that this machine goes by: what its own clock shows, and its other programs use."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vm_babysitter.ports import HostZone

_LOCALTIME = "etc/localtime"
_TIMEZONE = "etc/timezone"
_COPIED_FROM = "etc/localtime-copied-from"
"""A link of Slackware's, where the former is no link."""
_UNRAID = "var/local/emhttp/var.ini"
_UNRAID_KEY = "timeZone"
_MARK = "zoneinfo/"
_VARIANTS = ("posix/", "right/")
_HOPS = 10
_COMPARED = tuple(
    datetime(year, month, 15, tzinfo=UTC) for year in range(2020, 2036) for month in range(1, 13)
)
"""Zones that agree at all of these are taken for the same."""


def host_zone(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> HostZone:
    """Find out by what time zone this machine goes; ``root`` is where its file system begins.

    Asked are, in this order: the variable TZ; where ``/etc/localtime`` points to; what it holds;
    ``/etc/timezone`` and Unraid's own settings; the C library, which knows today's offset only.
    Never fails. Rules of zones that the system lacks come with us.
    """
    note = ""
    variable = environ.get("TZ", "").strip()
    if variable:
        zone = _named(_name_in(variable.removeprefix(":")))
        if zone is not None:
            return HostZone(zone, zone.key)
        note = f"The variable TZ is {variable!r}, which is no known time zone. It is passed over."
    found = _linked(root / _LOCALTIME, root) or _copied(root) or _told(root) or _offset_only()
    return replace(found, note=f"{note} {found.note}".strip())


def _linked(path: Path, root: Path) -> HostZone | None:
    """Follow a link for as long as it does not say the name of a zone."""
    for _ in range(_HOPS):
        try:
            target = str(path.readlink())
        except (OSError, ValueError):
            return None
        zone = _named(_name_in(target)) if _MARK in target else None
        if zone is not None:
            return HostZone(zone, zone.key)
        # An absolute target begins at the root that we look at.
        path = root / target.lstrip("/") if target.startswith("/") else path.parent / target
    return None


def _copied(root: Path) -> HostZone | None:
    """Read the rules themselves. They have no name: one that is told elsewhere has to fit them."""
    try:
        with (root / _LOCALTIME).open("rb") as file:
            rules = ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return None
    for named in _candidates(root):
        if _offsets(named.zone) == _offsets(rules):
            return named
    return HostZone(rules, "")


def _offsets(zone: tzinfo) -> list[timedelta | None]:
    return [moment.astimezone(zone).utcoffset() for moment in _COMPARED]


def _told(root: Path) -> HostZone | None:
    return next(_candidates(root), None)


def _candidates(root: Path) -> Iterator[HostZone]:
    """Yield the zones that are named somewhere."""
    linked = _linked(root / _COPIED_FROM, root)
    if linked is not None:
        yield linked
    for name in (*_lines(root / _TIMEZONE)[:1], *_unraid(root)):
        zone = _named(_name_in(name.strip()))
        if zone is not None:
            yield HostZone(zone, zone.key)


def _unraid(root: Path) -> Iterator[str]:
    for line in _lines(root / _UNRAID):
        key, _, value = line.partition("=")
        if key.strip() == _UNRAID_KEY:
            yield value.strip().strip('"')


def _offset_only() -> HostZone:
    """Ask the C library, as other programs do."""
    minutes = time.localtime().tm_gmtoff // 60
    if not minutes:
        return HostZone(UTC, "UTC", "No time zone is set on this machine: all times are UTC.")
    zone = timezone(timedelta(minutes=minutes))
    name = zone.tzname(None)
    note = f"The time zone of this machine has no rules that can be read: all times are {name}, "
    return HostZone(zone, name, f"{note}in summer and in winter.")


def _named(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder's name is an OSError
        return None


def _name_in(text: str) -> str:
    """Return what a path below ``zoneinfo`` is called there; a name stays as it is."""
    name = text.rpartition(_MARK)[2]
    for variant in _VARIANTS:
        name = name.removeprefix(variant)
    return name


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
