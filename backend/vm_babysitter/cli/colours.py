"""Colours for good, warning and bad. ``output.say`` leaves them out where they are not wanted."""

import click

from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.event import Severity
from vm_babysitter.domain.store_check import Verdict


def good(text: str) -> str:
    """All is well."""
    return click.style(text, fg="green")


def warning(text: str) -> str:
    """Worth a look."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """Somebody has to do something."""
    return click.style(text, fg="red")


def plain(text: str) -> str:
    """Neither good nor bad."""
    return text


_HEALTH = {
    Health.GOOD: good,
    Health.REPAIRABLE: warning,
    Health.RESTORE_ONLY: warning,
    Health.LOST: bad,
    Health.UNKNOWN: warning,
}
_SEVERITY = {Severity.WARNING: warning, Severity.ALERT: bad}
_VERDICT = {Verdict.OK: good, Verdict.WARNING: warning, Verdict.UNFIT: bad}


def by_health(health: Health | None, text: str) -> str:
    """Colour what is said of the backups of a VM."""
    return text if health is None else _HEALTH.get(health, plain)(text)


def by_severity(severity: Severity, text: str) -> str:
    """Colour an event."""
    return _SEVERITY.get(severity, plain)(text)


def by_verdict(verdict: Verdict, text: str) -> str:
    """Colour what was found of a place for backups."""
    return _VERDICT[verdict](text)
