"""What a cron line means, in words, and what of it may well not be meant. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from vm_babysitter.domain.cron_text import CronFields

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_HOUR, _DAY = 60, 24
_LISTED = 4
"""So many times of the day are listed one by one."""
_SHORTEST_MONTH = 28
_RANGE = 3
"""So many values in a row are told as a range."""


def words(fields: CronFields) -> str:
    """Say when a line runs: ``every day at 02:00``."""
    days, times = _days(fields), _times(fields)
    if times.startswith("at "):
        return f"{days} {times}"
    return times if days == "every day" else f"{times}, {days}"


def warnings(fields: CronFields) -> tuple[str, ...]:
    """Say what may well not be meant, in sentences."""
    return (*_often(fields), *_uneven(fields), *_odd_days(fields))


def _times(fields: CronFields) -> str:
    """Say at what times of a day: ``at 02:00``, ``every 15 minutes``."""
    minutes, hours = fields.minute.values, fields.hour.values
    if len(minutes) * len(hours) <= _LISTED:
        return f"at {_join([f'{h:02}:{m:02}' for h in hours for m in minutes])}"
    every_hours = _every(hours, _DAY)
    if len(minutes) == 1 and every_hours:
        past = f" at :{minutes[0]:02}" if minutes[0] else ""
        return f"{_each(every_hours)}{past}"
    apart = _apart(hours)
    if len(minutes) == 1 and apart:
        return (
            f"{_each(apart)} from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[0]:02}"
        )
    step = _every(minutes, _HOUR)
    often = "every minute" if step == 1 else f"every {step} minutes"
    if not step:
        often = f"at minute{_plural(minutes)} {_ranges(minutes)}"
    if fields.hour.full:
        return often if step else f"{often.removeprefix('at ')} of every hour"
    if _in_a_row(hours):
        return f"{often.removeprefix('at ')} from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"{often.removeprefix('at ')} of the hours {_ranges(hours)}"


def _days(fields: CronFields) -> str:
    """Say on what days: ``every day``, ``every Monday of May``, ``on day 1 of every month``."""
    months = "" if fields.month.full else f" of {_names(fields.month.values, _MONTHS, 1)}"
    weekdays = _names(fields.weekday.values, _WEEKDAYS, 0)
    weekdays = weekdays if " to " in weekdays else f"every {weekdays}"
    if fields.weekday.full and fields.day.full:
        return f"every day{months}"
    days = f"day{_plural(fields.day.values)} {_ranges(fields.day.values)}"
    of = months or " of every month"
    if fields.either_day:
        if fields.weekday.full or fields.day.full:
            return f"every day{months}"
        return f"on {days} and {weekdays}{of}"
    if fields.day.full:
        return f"{weekdays}{months}"
    if fields.weekday.full:
        return f"on {days}{of}"
    return f"{weekdays} that is {days}{of}"


def _often(fields: CronFields) -> tuple[str, ...]:
    """Runs within an hour; every minute of one is most often a slip."""
    minutes, hours = fields.minute.values, fields.hour.values
    if len(minutes) == 1:
        return ()
    if fields.minute.full and not fields.hour.full:
        meant = f"0 {fields.hour.text} {fields.day.text} {fields.month.text} {fields.weekday.text}"
        times = f"{len(minutes) * len(hours)} times"
        return (f"It runs {_times(fields)}: {times}. Did you mean `{meant}`?",)
    return (f"It runs {len(minutes)} times in an hour: more often than a backup may take.",)


def _uneven(fields: CronFields) -> tuple[str, ...]:
    """Steps begin anew in each hour, and on each day."""
    found = []
    minute, hour = (fields.minute, _HOUR, "hour", "minute"), (fields.hour, _DAY, "day", "hour")
    for part, span, whole, unit in (minute, hour):
        step = part.text.removeprefix("*/")
        if step.isdecimal() and step != part.text and span % int(step):
            found.append(
                f"`{part.text}` begins anew in each {whole}: it runs at "
                f"{unit}{_plural(part.values)} {_ranges(part.values)}, not evenly."
            )
    return tuple(found)


def _odd_days(fields: CronFields) -> tuple[str, ...]:
    day, weekday = fields.day, fields.weekday
    found = []
    if fields.either_day and not (day.full and weekday.full):
        if day.full or weekday.full:
            full, other = (day, weekday) if day.full else (weekday, day)
            found.append(
                f"`{full.text}` names all days, so `{other.text}` changes nothing: it runs every "
                f"day. Write `*` instead of `{full.text}`."
            )
        else:
            found.append(
                "It runs on each of these days of the month, and also on each of these weekdays: "
                "not only where both fit."
            )
    elif not day.full and not weekday.full:
        found.append("It runs only where day and weekday both fit, since one begins with `*`.")
    if (not fields.either_day and day.values[0] > _SHORTEST_MONTH) and fields.month.full:
        found.append(f"Months without a day {day.values[0]} are left out.")
    return tuple(found)


def _every(values: Sequence[int], span: int) -> int:
    """Return the step in which the values go evenly through the span from 0 on; 0 if they don't."""
    if len(values) < 2 or values[0]:  # noqa: PLR2004 - one value has no step
        return 0
    step = values[1]
    return step if tuple(values) == tuple(range(0, span, step)) and not span % step else 0


def _apart(values: Sequence[int]) -> int:
    """Return how far apart the values are; 0 if that differs."""
    steps = {high - low for low, high in pairwise(values)}
    return steps.pop() if len(steps) == 1 else 0


def _each(hours: int) -> str:
    return "every hour" if hours == 1 else f"every {hours} hours"


def _in_a_row(values: Sequence[int]) -> bool:
    return values[-1] - values[0] == len(values) - 1


def _plural(values: Sequence[int]) -> str:
    return "" if len(values) == 1 else "s"


def _names(values: Sequence[int], names: Sequence[str], first: int) -> str:
    if len(values) >= _RANGE and _in_a_row(values):
        return f"{names[values[0] - first]} to {names[values[-1] - first]}"
    return _join([names[value - first] for value in values])


def _ranges(values: Sequence[int]) -> str:
    """List numbers, three and more in a row as a range: ``1 to 5 and 9``."""
    rows: list[list[int]] = []
    for value in values:
        if rows and value == rows[-1][-1] + 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    told: list[str] = []
    for row in rows:
        told += [f"{row[0]} to {row[-1]}"] if len(row) >= _RANGE else map(str, row)
    return _join(told)


def _join(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
