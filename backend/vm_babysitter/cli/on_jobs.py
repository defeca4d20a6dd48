"""Commands about what the daemon does, did and is going to do."""

import threading

import click

from vm_babysitter.cli.options import JOB, VM, json_option, limit_option
from vm_babysitter.cli.output import say
from vm_babysitter.cli.render_jobs import cancel_text, events_text, job_text, jobs_text
from vm_babysitter.cli.render_status import schedules_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.job import JobState
from vm_babysitter.views import JobLogView

_EVERY = 1.0
"""Seconds between two looks into the log of a job that runs."""


@click.command()
@click.argument("job", type=JOB, required=False, metavar="[ID]")
@click.option("--vm", type=VM, help="Only those of this VM.")
@click.option(
    "--state",
    "states",
    type=click.Choice([str(state) for state in JobState]),
    multiple=True,
    help="Only those in this state; may be given repeatedly.",
)
@limit_option
@json_option
@click.pass_obj
def jobs(
    session: Session,
    job: int | None,
    vm: str | None,
    states: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """List the daemon's jobs, the youngest first, or tell all of job ID."""
    with session.daemon(as_json=as_json) as daemon:
        if job is not None:
            one = daemon.job(job)
            show(as_json, lambda: one, lambda: job_text(one, session.suggest))
            return
        found = daemon.jobs(vm, [JobState(state) for state in states], limit)
    show(as_json, lambda: found, lambda: jobs_text(found))


@click.command()
@click.argument("job", type=JOB, metavar="ID")
@click.option("--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
@click.pass_obj
def logs(session: Session, job: int, follow: bool, as_json: bool) -> None:
    """Print the log of job ID."""
    with session.daemon(as_json=as_json) as daemon:
        offset, text, complete = 0, "", False
        while True:
            piece = daemon.log(job, offset)
            if as_json:
                text += piece.text
            elif piece.text:
                say(piece.text, end=False)
            complete = piece.complete
            more = piece.next_offset > offset
            offset = piece.next_offset
            if complete or not (more or follow):
                break
            if not more:
                threading.Event().wait(_EVERY)
    if as_json:
        show(as_json, lambda: JobLogView(job, 0, offset, complete, text), str)


@click.command()
@click.argument("job", type=JOB, metavar="ID")
@json_option
@click.pass_obj
def cancel(session: Session, job: int, as_json: bool) -> None:
    """Have job ID end: what it had begun is undone. Harmless if it has ended."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.cancel(job)
    show(as_json, lambda: found, lambda: cancel_text(found))


@click.command()
@json_option
@click.pass_obj
def schedules(session: Session, as_json: bool) -> None:
    """List what is done by schedule, and when next."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.schedules()
    show(as_json, lambda: found, lambda: schedules_text(found))


@click.command()
@click.option("--vm", type=VM, help="Only what happened to this VM.")
@click.option("--job", type=JOB, metavar="ID", help="Only what happened in this job.")
@limit_option
@json_option
@click.pass_obj
def events(session: Session, vm: str | None, job: int | None, limit: int, as_json: bool) -> None:
    """List what happened, the latest first."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.events(vm, job, limit)
    show(as_json, lambda: found, lambda: events_text(found))
