"""What is told of jobs of the daemon that went well, as far as documents tell it."""

from collections.abc import Callable

import click

from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.failure import Refused
from vm_babysitter.cli.render_health import diagnosis_text
from vm_babysitter.cli.render_results import backup_text
from vm_babysitter.cli.session import Session
from vm_babysitter.domain.job import Result
from vm_babysitter.views import BackupView, JobView
from vm_babysitter.views.points import stored_bytes


def no_detach(detach: bool) -> None:
    """Refuse an option that means nothing without a daemon. Raises UsageError."""
    if detach:
        raise click.UsageError("--detach leaves the work to the daemon: leave out --standalone.")


def summary_told(_daemon: Daemon, job: JobView) -> str:
    """Say what a job came to, in its own words."""
    return job.summary


def backup_told(daemon: Daemon, job: JobView) -> str:
    """Say what a backup came to, as the manifest of the restore point tells it."""
    try:
        points = daemon.points(job.uuid) if job.point else ()
    except Refused:
        points = ()
    made = next((p.manifest for p in points if p.point == job.point), None)
    if made is None or job.started is None or job.finished is None:
        return job.summary
    return backup_text(
        BackupView(
            point=job.point,
            seconds=(job.finished - job.started).total_seconds(),
            stored_bytes=stored_bytes(made),
            left="",
            vm_resumed=False,
            unchanged=job.result is Result.NOTHING or made.started < job.started,
            manifest=made,
        )
    )


def repair_told(session: Session) -> Callable[[Daemon, JobView], str]:
    """Say what a repair came to, and how the backups are now."""

    def told(daemon: Daemon, job: JobView) -> str:
        try:
            after = daemon.health_of(job.uuid)
        except Refused:
            return job.summary
        return f"{job.summary}\n{diagnosis_text(after, session.suggest)}"

    return told


def convert_told(session: Session) -> Callable[[Daemon, JobView], str]:
    """Say what a conversion came to, and how to go back."""

    def told(_daemon: Daemon, job: JobView) -> str:
        if job.options.get("undo"):
            return job.summary
        disk = str(job.options.get("disk", ""))
        command = session.suggest.command("convert", job.vm, disk, options=["--undo"])
        return f"{job.summary}\nTo go back: {command}"

    return told
