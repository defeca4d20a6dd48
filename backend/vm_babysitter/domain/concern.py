"""What is told of a VM's backups when nothing happens: once, then weekly, and when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.findings import Finding, Weight

STALE, FRESH = "vm-stale", "vm-fresh"
NEEDS, OVER = "needs-you", "needs-you-over"
KINDS = frozenset({STALE, FRESH, NEEDS, OVER})
_AGAIN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Concern:
    """A VM, and how old its newest good restore point is."""

    uuid: str
    name: str
    good: datetime | None
    """None: there is none."""
    since: datetime
    """From when on one without any is counted."""
    now: datetime

    def event(self, kind: str, severity: Severity, words: tuple[str, str], code: str = "") -> Event:
        """Return an event about it, of subject and text."""
        return Event(self.now, kind, severity, *words, self.uuid, self.name, code=code)


def stale(about: Concern, told: Sequence[Event], days: int) -> list[Event]:
    """Return what is told of the age of its backups; ``told``: what was, the newest first."""
    last = next((event for event in told if event.kind in {STALE, FRESH}), None)
    age = about.now - (about.good or about.since)
    if days and age > timedelta(days=days):
        if last is not None and last.kind == STALE and about.now - last.at < _AGAIN:
            return []
        since = (
            f"The newest is of {about.good:%Y-%m-%d %H:%M} UTC." if about.good else "There is none."
        )
        hint = (
            "`vm-babysitter jobs` lists what was in its way; `Back up now` on the page of VM "
            "Babysitter tries it at once."
        )
        subject = f"VM {about.name} has had no good restore point for {age.days} days"
        return [about.event(STALE, Severity.ALERT, (subject, f"{since}\n{hint}"), STALE)]
    if last is not None and last.kind == STALE:
        words = (f"VM {about.name} has a good restore point again", "Nothing is left to do.")
        return [about.event(FRESH, Severity.NORMAL, words)]
    return []


def needs_you(about: Concern, told: Sequence[Event], findings: Sequence[Finding]) -> list[Event]:
    """Return what is told of what only a person can put right."""
    mine = [finding for finding in findings if finding.weight is Weight.PERSON]
    last = next((event for event in told if event.kind in {NEEDS, OVER}), None)
    code = ",".join(sorted({str(finding.code) for finding in mine}))
    if mine:
        same = last is not None and last.kind == NEEDS and last.code == code
        if same and last is not None and about.now - last.at < _AGAIN:
            return []
        lines = [_sentences(finding) for finding in mine]
        subject = f"The backups of {about.name} need you"
        return [about.event(NEEDS, Severity.ALERT, (subject, "\n".join(lines)), code)]
    if last is not None and last.kind == NEEDS:
        words = (f"The backups of {about.name} need you no more", "It was put right.")
        return [about.event(OVER, Severity.NORMAL, words)]
    return []


def _sentences(finding: Finding) -> str:
    what = finding.what.rstrip(".")
    return f"{what[:1].upper()}{what[1:]}. {finding.way_out}".rstrip()
