"""What happened."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from vm_babysitter.domain.event import Event, Severity


@dataclass(frozen=True, slots=True)
class EventView:
    """One thing that happened."""

    at: datetime
    kind: str
    severity: Severity
    vm: str
    """Empty where it is about no VM."""
    uuid: str
    job: int | None
    """None where it is about no job."""
    subject: str
    text: str
    code: str

    @classmethod
    def of(cls, event: Event) -> Self:
        """Show an event."""
        return cls(
            at=event.at,
            kind=event.kind,
            severity=event.severity,
            vm=event.vm_name,
            uuid=event.vm_uuid,
            job=event.job_id or None,
            subject=event.subject,
            text=event.text,
            code=event.code,
        )
