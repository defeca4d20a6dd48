"""Sizes and times in words that people read."""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_MINUTE, _HOUR = 60, 3600


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
    """Return a time span: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if round(seconds, 1) < 10:  # noqa: PLR2004 - a tenth still says something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
