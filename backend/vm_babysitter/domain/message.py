"""What is told of events, in messages for people: which, when, and in which words. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum

from vm_babysitter.domain.daily_summary import daily_summary
from vm_babysitter.domain.event import Event, EventKind, Severity
from vm_babysitter.domain.job import Job

LINK = "/Settings/VMBabysitter"
"""The page of ours, on the web pages of the host."""
FLOOD = 3
"""More messages than that at a time become one."""
OLDEST = timedelta(days=3)
"""What is older is news to nobody."""
_MOST_LINES = 100
_LONGEST_LINE = 300
_FEW = 3
_RANK = {Severity.ALERT: 0, Severity.WARNING: 1, Severity.NORMAL: 2}
_WORDS = {
    Severity.ALERT: ("needs you", "need you"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.NORMAL: ("other", "others"),
}
_SUCCESS = frozenset({EventKind.JOB_DONE})
_QUIET = frozenset({EventKind.JOB_CANCELLED, "vm-appeared", "vm-gone", "vm-renamed", "vm-edited"})
"""What a user has just done; the list of events has it."""


class When(StrEnum):
    """When an event is told."""

    NOW = "now"
    DAILY = "daily"
    """In the summary of the day."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Policy:
    """How much a user wants to be told."""

    success: str = "daily"
    """What is told of what went well: ``each``, ``daily`` or ``never``."""
    daily_at: time = time(8)
    """When the summary of a day comes, in ``zone``."""
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Message:
    """What a user is told, by whatever way."""

    at: datetime
    severity: Severity
    subject: str
    """A few words, one line."""
    text: str
    """What it comes to: one line."""
    details: str = ""
    """More of it, and what to do, in lines."""
    vm_name: str = ""
    """Empty where it is about several VMs, or none."""
    events: tuple[Event, ...] = ()
    """What it tells."""
    link: str = field(default=LINK)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its events."""
        return tuple(event.key for event in self.events)

    @property
    def key(self) -> str:
        """Tells it from other messages: it is the same for the same events."""
        return hashlib.sha256(" ".join(sorted(self.keys)).encode()).hexdigest()[:12]


def when_told(event: Event, policy: Policy) -> When:
    """Say when an event is told."""
    if event.severity is not Severity.NORMAL:
        return When.NOW
    if event.kind in _QUIET:
        return When.NEVER
    if event.kind not in _SUCCESS:
        return When.NOW
    words = {"each": When.NOW, "daily": When.DAILY, "never": When.NEVER}
    return words[policy.success]


def summary_due(now: datetime, policy: Policy) -> datetime:
    """Return the last moment up to now at which a summary was due."""
    local = now.astimezone(policy.zone)
    at = policy.daily_at
    due = local.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    if due > local:
        due = (local - timedelta(days=1)).replace(
            hour=at.hour, minute=at.minute, second=0, microsecond=0
        )
    return due.astimezone(UTC)


def gather(
    events: Sequence[Event], policy: Policy, now: datetime, jobs: Sequence[Job] = ()
) -> list[Message]:
    """Return the messages that tell events now; those of the next summary are left.

    Args:
        events: what was not told yet; what is never told is passed over.
        policy: what the user wants.
        now: the present moment.
        jobs: those that have ended in the last days, for the summary.
    """
    at_once = [event for event in events if when_told(event, policy) is When.NOW]
    due = summary_due(now, policy)
    daily = [e for e in events if when_told(e, policy) is When.DAILY and e.at < due]
    found = [] if not at_once else _messages(at_once, policy)
    if daily:
        found.append(_summary(daily, due, policy, jobs))
    return found


def again(events: Sequence[Event], policy: Policy, jobs: Sequence[Job] = ()) -> Message:
    """Return the one message that told these events: it has the same key as before."""
    if len(events) == 1 and when_told(events[0], policy) is not When.DAILY:
        return single(events[0], policy)
    if all(event.kind in _SUCCESS and event.severity is Severity.NORMAL for event in events):
        return _summary(events, max(event.at for event in events), policy, jobs)
    return digest(events, policy)


def _messages(events: Sequence[Event], policy: Policy) -> list[Message]:
    if len(events) > FLOOD:
        return [digest(events, policy)]
    return [single(event, policy) for event in events]


def single(event: Event, policy: Policy) -> Message:
    """Return the message of one event."""
    said = [line for line in event.text.splitlines() if line.strip()] or [event.subject]
    text = _gist(said)
    lines = [] if text == " ".join(map(_sentence, said)) else said
    if event.vm_name and event.vm_name not in event.subject:
        lines.insert(0, f"VM: {event.vm_name}")
    lines.append(f"It happened at {_local(event.at, policy)}.")
    if event.job_id:
        lines.append(f"Job {event.job_id}: `vm-babysitter logs {event.job_id}` says more.")
    return Message(
        at=event.at,
        severity=event.severity,
        subject=one_line(event.subject, _LONGEST_LINE),
        text=text,
        details="\n".join(lines),
        vm_name=event.vm_name,
        events=(event,),
    )


def _gist(lines: Sequence[str]) -> str:
    """Return lines as one, with the last words, which say what to do, even if the first are cut.

    Where a user sees a message first there is no room for more than that.
    """
    first, *more = (_sentence(line) for line in lines)
    rest = " ".join(more)
    room = _LONGEST_LINE - len(rest) - 1
    if rest and room >= _LONGEST_LINE // 2:
        return f"{_shortened(first, room)} {rest}"
    return _shortened(first, _LONGEST_LINE)


def _sentence(line: str) -> str:
    words = " ".join(line.split())
    return words if words.endswith((".", "!", "?", ":", "…")) else f"{words}."


def _shortened(line: str, longest: int) -> str:
    """Leave out the middle: libvirt and QEMU say at the end what was wrong."""
    if len(line) <= longest:
        return line
    end = longest // 2
    return f"{line[: longest - end - 1]}…{line[-end:]}"


def digest(events: Sequence[Event], policy: Policy) -> Message:
    """Return one message of many events: what matters most comes first, alerts in the subject."""
    ranked = sorted(events, key=lambda event: (_RANK[event.severity], event.at))
    worst = ranked[0].severity
    most = [event for event in ranked if event.severity is worst]
    lines = [
        one_line(
            f"{_local(event.at, policy)}, {event.severity}: {event.subject}. {event.text}",
            _LONGEST_LINE,
        )
        for event in ranked
    ]
    left = len(lines) - _MOST_LINES
    if left > 0:
        lines[_MOST_LINES:] = [f"And {left} more: `vm-babysitter events` lists them."]
    return Message(
        at=max(event.at for event in events),
        severity=worst,
        subject=_digest_subject(most),
        text=_counts(ranked),
        details="\n".join(lines),
        events=tuple(ranked),
    )


def _digest_subject(most: Sequence[Event]) -> str:
    """Name some of those that matter most."""
    names = "; ".join(one_line(event.subject, 80) for event in most[:_FEW])
    more = len(most) - _FEW
    need = " that need you" if most[0].severity is Severity.ALERT else ""
    return f"{names}{f'; and {more} more{need}' if more > 0 else ''}"


def _counts(ranked: Sequence[Event]) -> str:
    found = []
    for severity, (one, many) in _WORDS.items():
        number = sum(event.severity is severity for event in ranked)
        if number:
            found.append(f"{number} {one if number == 1 else many}")
    return f"{len(ranked)} things have happened: {', '.join(found)}."


def _summary(
    events: Sequence[Event], until: datetime, policy: Policy, jobs: Sequence[Job]
) -> Message:
    since = min(*(event.at for event in events), until - timedelta(days=1))
    found = daily_summary(jobs, since, until)
    if found is None:  # the journal has forgotten the jobs, or never had them
        return digest(events, policy)
    period = f"From {_local(since, policy)} to {_local(until, policy)}."
    return Message(
        at=until,
        severity=Severity.WARNING if found.failed else Severity.NORMAL,
        subject=found.subject,
        text=found.text,
        details="\n".join([period, *_cut(found.lines)]),
        events=tuple(events),
    )


def _cut(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _MOST_LINES
    found = [one_line(line, _LONGEST_LINE) for line in lines[:_MOST_LINES]]
    return [*found, f"And {left} more."] if left > 0 else found


def of_age(events: Iterable[Event], now: datetime) -> list[Event]:
    """Return the events that are too old to be told."""
    return [event for event in events if event.at < now - OLDEST]


def one_line(text: str, longest: int) -> str:
    """Return a text as one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _local(moment: datetime, policy: Policy) -> str:
    return moment.astimezone(policy.zone).strftime("%Y-%m-%d %H:%M")
