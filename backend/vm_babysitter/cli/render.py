"""Results as text for people: what several of them share."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from vm_babysitter.domain.point import Point
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.views.points import stored_bytes


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns of equal width, the last one left ragged."""
    columns = range(len(header) - 1)
    widths = [max(_width(row[i]) for row in [header, *rows]) for i in columns]
    lines = []
    for row in [header, *rows]:
        padded = zip(row, widths, strict=False)
        cells = [cell + " " * (width - _width(cell)) for cell, width in padded]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: some letters take two, some none.

    Colours take none.
    """
    return sum(
        0
        if unicodedata.combining(letter)
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in click.unstyle(text)
    )


def vm_labels(vms: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what to call VMs in a list, by UUID; each of ``vms`` is a name and a UUID.

    That is the name; where several have it, with the UUID, by which commands tell them apart.
    """
    names = {uuid: name for name, uuid in vms}
    counts = Counter(names.values())
    return {u: name if counts[name] == 1 else f"{name} ({u})" for u, name in names.items()}


def stored_text(point: Point) -> str:
    """Say how much a point stored, and how that is compressed."""
    ways = sorted({d.compression for d in point.disks} - {""})
    stored = f"{format_bytes(stored_bytes(point))} stored"
    if not ways:
        return stored
    content = sum(d.written_bytes for d in point.disks)
    return f"{stored} ({format_bytes(content)} compressed with {' and '.join(ways)})"


def local(moment: datetime | None) -> str:
    """Say when something was or will be, in the time of this host."""
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def one_line(text: str) -> str:
    """Return a text for a column."""
    return " ".join(text.split())


def shortened(lines: Sequence[str], room: int, what: str) -> list[str]:
    """Return as many lines as there is room for, and how many more there are of what."""
    if len(lines) <= room:
        return list(lines)
    shown = max(1, room - 1)
    return [*lines[:shown], f"and {len(lines) - shown} more {what}"]
