"""The forms of values: amounts, folders, commands, times, names."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from vm_babysitter.config.keys import Form, Refusal, Refused
from vm_babysitter.domain import schedule
from vm_babysitter.domain.errors import InvalidInput
from vm_babysitter.lib.units import parse_bytes

_LEAST_RATE = 64 << 10
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d{1,2})?) ?%", re.ASCII)
_PER_SECOND = re.compile(r"\s*(/ ?s|per second)\s*$", re.IGNORECASE)
_DAY_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_DAY_TIME_WORDS = 'a time of day from "00:00" to "23:59"'
_NOT_IN_ADDRESSES = re.compile(r"[\s\x00-\x1f\x7f]")
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f]")
_NEVER_BELOW = ("/boot", "/proc", "/sys", "/dev", "/run", "/var/run")
_LONGEST_PATH = 1024
"""Bytes; Linux allows 4096, and folders and files of backups come behind it."""
_NUMBER_OR_TEXT: dict[str, object] = {"x-type": ["integer", "string"]}


def _bytes_of(text: str, words: str) -> int:
    try:
        return parse_bytes(text)
    except (ValueError, OverflowError) as error:
        raise Refused(f"must be {words}") from error


_SIZE_WORDS = 'a number of bytes, or a text such as "512 KiB", "50 MiB", "1.5 GiB"'
_RATE_WORDS = f"{_SIZE_WORDS}, each second"
_SPACE_WORDS = 'a part such as "10 %", or an amount such as "50 GiB"'


def _read_size(value: object) -> object:
    return _bytes_of(value, _SIZE_WORDS) if isinstance(value, str) else value


def _read_rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _bytes_of(_PER_SECOND.sub("", value), _RATE_WORDS)


def _judge_rate(value: object) -> Iterator[Refusal]:
    if type(value) is int and 0 < value < _LEAST_RATE:
        yield Refusal(
            "must be 0 (no limit), or at least 64 KiB a second",
            f'A number alone means bytes. Did you mean "{value} MiB"?',
        )


def _read_space(value: object) -> object:
    if not isinstance(value, str):
        return value
    part = _PERCENT.fullmatch(value.strip())
    return f"{float(part[1]):g} %" if part else _bytes_of(value, _SPACE_WORDS)


def _judge_space(value: object) -> Iterator[Refusal]:
    if type(value) is int and not 0 <= value <= 1 << 60:
        yield Refusal(f"must be {_SPACE_WORDS}")


def space_in_bytes(value: int | str, total: int) -> int:
    """Return the bytes that a value of the form SPACE means on a file system of ``total``."""
    return int(total * share_of(value) / 100) if isinstance(value, str) else value


def share_of(value: str) -> float:
    """Return the percentage that a text of the form SPACE says."""
    return float(value.removesuffix("%"))


def _read_folder(value: object) -> object:
    """Leave out slashes that mean nothing; links are never followed here."""
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    return "/" + "/".join(part for part in value.split("/") if part not in {"", "."})


def _judge_folder(value: object) -> Iterator[Refusal]:
    if not isinstance(value, str) or not value:
        return
    hint = 'For example "/mnt/user/backups/vms".'
    if not value.startswith("/"):
        yield Refusal("must be a whole path, beginning with /", hint)
    elif _NOT_IN_NAMES.search(value) or len(value.encode()) > _LONGEST_PATH:
        yield Refusal("must be a path of at most 1024 bytes without control characters", hint)
    elif ".." in value.split("/"):
        yield Refusal('must not contain ".."', "Name the folder itself.")
    elif value == "/":
        yield Refusal("must be a folder, not the whole system", hint)
    else:
        for root in _NEVER_BELOW:
            if value == root or value.startswith(f"{root}/"):
                yield Refusal(
                    f"must not lie in {root}",
                    "Backups belong on the array, a pool or a mounted disk: " + hint[0].lower()
                    + hint[1:],
                )  # fmt: skip


def _judge_command(value: object) -> Iterator[Refusal]:
    argv = value if isinstance(value, list) else []
    for number, word in enumerate(argv):
        if "\0" in str(word):
            yield Refusal("must not contain the character NUL", "", (number,))
    if argv and isinstance(argv[0], str) and not argv[0].startswith("/"):
        yield Refusal(
            "must be the whole path of a program, beginning with /",
            'No shell reads the command. For example ["/bin/bash", "/boot/config/before.sh"]; '
            'for a line of shell ["/bin/sh", "-c", "…"].',
            (0,),
        )


def _read_cron(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value


def _judge_cron(value: object) -> Iterator[Refusal]:
    if not isinstance(value, str):
        return
    try:
        schedule.parse(value)
    except InvalidInput as error:
        yield Refusal(error.rule, error.hint)


def _judge_day_time(value: object) -> Iterator[Refusal]:
    if isinstance(value, str) and not _DAY_TIME.fullmatch(value):
        yield Refusal(f"must be {_DAY_TIME_WORDS}", 'For example "08:00".')


def _judge_web_address(value: object) -> Iterator[Refusal]:
    if not isinstance(value, str) or not value:
        return
    try:
        parts = urlsplit(value)
        fit = parts.scheme in {"http", "https"} and bool(parts.hostname)
        fit = fit and parts.port != 0 and not _NOT_IN_ADDRESSES.search(value)
    except ValueError:  # a port that is none
        fit = False
    if not fit:
        yield Refusal(
            "must be a web address, beginning with https:// or http://",
            "Copy it from the page of the service, without spaces.",
        )


def _judge_name(value: object) -> Iterator[Refusal]:
    if isinstance(value, str) and _NOT_IN_NAMES.search(value):
        yield Refusal("must be a name without line breaks and other control characters")


DAY_TIME = Form(_DAY_TIME_WORDS, judge=_judge_day_time)
WEB_ADDRESS = Form("a web address, or empty", judge=_judge_web_address, secret=True)
SIZE = Form(_SIZE_WORDS, read=_read_size, schema=_NUMBER_OR_TEXT)
RATE = Form(_RATE_WORDS, read=_read_rate, judge=_judge_rate, schema=_NUMBER_OR_TEXT)
SPACE = Form(_SPACE_WORDS, read=_read_space, judge=_judge_space)
FOLDER = Form("the whole path of a folder", read=_read_folder, judge=_judge_folder)
COMMAND = Form("a list of a program and its arguments", judge=_judge_command)
CRON = Form(
    'a time as cron has it, such as "0 2 * * *", or a word such as "@daily"',
    read=_read_cron,
    judge=_judge_cron,
)
NAME = Form("a name of 1 to 255 characters", judge=_judge_name)
