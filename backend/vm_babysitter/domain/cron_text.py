"""How the five fields of a Unix cron line are read. Pure; what they mean is in ``schedule``."""

import re
from dataclasses import dataclass, field

from vm_babysitter.domain.errors import InvalidCron

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Words that stand for a whole line."""

_LONGEST = 500
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SUNDAY = 7
_MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FORM = "A line has five fields: minute, hour, day of the month, month, weekday, as in `0 2 * * *`."
_RANGE = re.compile(r"(?P<low>[^-/]+)(?:-(?P<high>[^-/]+))?(?:/(?P<step>[^-/]*))?")
_NUMBER = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a line. Two that mean the same are equal."""

    values: tuple[int, ...]
    """What it allows, ascending. Weekdays are 0 (Sunday) to 6."""
    starred: bool
    """Whether it begins with ``*``, with a step or without: then it restricts nothing else."""
    text: str = field(compare=False)
    full: bool
    """Whether it allows all there are."""


@dataclass(frozen=True, slots=True)
class CronFields:
    """A line, field by field."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def either_day(self) -> bool:
        """Whether the day *or* the weekday has to fit; else both."""
        return not self.day.starred and not self.weekday.starred


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_KINDS = (
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day of the month", 1, 31),
    _Kind("month", 1, 12, _MONTHS),
    _Kind("weekday", 0, _SUNDAY, _WEEKDAYS),
)


def read(text: str) -> CronFields:
    """Read a line, or one of the words in ``PRESETS``. Raises InvalidCron."""
    line = text.strip().lower()
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    if len(text) > _LONGEST:
        raise InvalidCron("schedule", shown, f"is longer than {_LONGEST} characters", _FORM)
    if line.startswith("@"):
        line = _preset(line, shown)
    parts = line.split()
    if len(parts) != len(_KINDS):
        raise InvalidCron("schedule", shown, _count_rule(len(parts)), _FORM)
    fields = CronFields(*(_field(kind, part) for kind, part in zip(_KINDS, parts, strict=True)))
    if not fields.either_day and not _has_a_day(fields):
        raise InvalidCron(
            "schedule",
            shown,
            "names a day that none of its months has, and would never run",
            "Choose a day that exists: `0 2 1 * *` is the first of each month.",
        )
    return fields


def _preset(word: str, shown: str) -> str:
    if word == "@reboot":
        raise InvalidCron(
            "schedule",
            shown,
            "means a start of the machine, which is no time to plan by",
            "Use @daily: a run that was missed while the machine was off is made up for.",
        )
    if word not in PRESETS:
        known = ", ".join(PRESETS)
        raise InvalidCron("schedule", shown, "is not a known word", f"Known are {known}.")
    return PRESETS[word]


def _count_rule(count: int) -> str:
    if not count:
        return "is empty"
    seconds = "; seconds, years, users and commands have no place in it" if count > 5 else ""  # noqa: PLR2004
    return f"has {count} field{'' if count == 1 else 's'} instead of five{seconds}"


def _has_a_day(fields: CronFields) -> bool:
    return any(fields.day.values[0] <= _MONTH_LENGTHS[month - 1] for month in fields.month.values)


def _field(kind: _Kind, text: str) -> Field:
    allowed: set[int] = set()
    for item in text.split(","):
        allowed.update(_item(kind, item, text))
    if kind.high == _SUNDAY and _SUNDAY in allowed:
        allowed = (allowed - {_SUNDAY}) | {0}
    span = _SUNDAY if kind.high == _SUNDAY else kind.high - kind.low + 1
    return Field(tuple(sorted(allowed)), text.startswith("*"), text, len(allowed) == span)


def _item(kind: _Kind, item: str, text: str) -> range:
    """Read one item of a list: ``*``, a value, a range, each range with a step or without."""
    match = _RANGE.fullmatch(item)
    if match is None:
        raise InvalidCron(kind.name, text, "is not of the form of Unix cron", _example(kind))
    low, high, step = match["low"], match["high"], match["step"]
    if low == "*" and high is None:
        # Not up to 7: Sunday is the first day of the week here, and must not count twice.
        first, last = kind.low, min(kind.high, 6) if kind.names == _WEEKDAYS else kind.high
    else:
        first = _value(kind, low, text)
        last = first if high is None else _value(kind, high, text)
        if high == "sun" and first:
            last = _SUNDAY
    if first > last:
        raise InvalidCron(
            kind.name,
            text,
            f"has a range that runs backwards, {low}-{high}",
            f"Write it as two, joined by a comma: `{low}-{kind.high},{kind.low}-{high}`.",
        )
    if step is None:
        return range(first, last + 1)
    if low != "*" and high is None:
        way_out = f"Say up to where: `{low}-{kind.high}/{step}`."
        raise InvalidCron(kind.name, text, "has a step behind a single value", way_out)
    if not _NUMBER.fullmatch(step) or not int(step):
        raise InvalidCron(kind.name, text, "has a step that is not a number from 1 on", "")
    return range(first, last + 1, int(step))


def _value(kind: _Kind, word: str, text: str) -> int:
    if word in kind.names:
        return kind.names.index(word) + kind.low
    if not _NUMBER.fullmatch(word):
        rule = f"has {word!r} in it, which is not a {kind.name}"
        raise InvalidCron(kind.name, text, rule, _example(kind))
    if not kind.low <= int(word) <= kind.high:
        rule = f"has {word} in it, which is not from {kind.low} to {kind.high}"
        raise InvalidCron(kind.name, text, rule, _example(kind))
    return int(word)


def _example(kind: _Kind) -> str:
    names = f", or {kind.names[0]} to {kind.names[-1]}" if kind.names else ""
    return (
        f"Allowed are `*`, numbers from {kind.low} to {kind.high}{names}, ranges like `1-5`, "
        "steps like `*/2` or `1-5/2`, and lists of these with commas."
    )
