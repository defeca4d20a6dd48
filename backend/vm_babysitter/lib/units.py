"""Sizes and times in words that people read."""

import re

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_IN_HOURS = 2 * _DAY


def format_bytes(amount: float) -> str:
    """Return an amount of bytes: ``640 KiB``, ``1.5 GiB``."""
    value = float(amount)
    for unit in _UNITS:
        if round(abs(value)) < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    digits = 0 if unit == _UNITS[0] or abs(value) >= 100 or value == int(value) else 1  # noqa: PLR2004
    return f"{value:.{digits}f} {unit}"


def format_duration(seconds: float) -> str:
    """Return a time span: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 days``."""
    if round(seconds, 1) < 10:  # noqa: PLR2004 - a tenth still says something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _IN_HOURS:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} days"


def parse_bytes(text: str) -> int:
    """Return the amount of bytes that a text like ``50M``, ``1.5 GiB`` or ``4096`` says.

    K, M, G and T are powers of 1024, with or without ``B`` or ``iB`` behind them.

    Raises:
        ValueError: it is none.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of bytes")
    return int(float(match[1]) * _STEP ** " KMGT".index(match[2].upper() or " "))
