"""The command that gives VMs back."""

from collections.abc import Mapping

import click

from vm_babysitter.cli.asking import given
from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.colours import warning
from vm_babysitter.cli.failure import job_exit
from vm_babysitter.cli.follow import LEFT, SIGNALS, JobLog, Order, follow, run_job
from vm_babysitter.cli.options import VM, detach_option, json_option
from vm_babysitter.cli.outcomes import no_detach, summary_told
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.render_jobs import submitted_text
from vm_babysitter.cli.render_results import release_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.domain.errors import Exit
from vm_babysitter.domain.job import JobKind, Option
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.views import JobView


@click.command(short_help="Give a VM back: leave it alone, and remove what is ours from it.")
@click.argument("vm", type=VM, required=False)
@click.option("--all", "everything", is_flag=True, help="All VMs, such as before an uninstall.")
@click.option(
    "--any-folder",
    is_flag=True,
    help="Remove the change tracking of all backup folders of VM Babysitter, even of those that "
    "are gone.",
)
@detach_option
@json_option
@click.pass_obj
def release(
    session: Session,
    vm: str | None,
    everything: bool,
    any_folder: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Give VM back as if VM Babysitter had never been there; its restore points stay.

    VM is no longer backed up or started by VM Babysitter, starts by itself again if it did so
    before, and the change tracking in its images is removed, whether it runs or is off. To take it
    back, remove it from `vms.ignored` in the settings; its series goes on. If this is interrupted,
    run it again. With --standalone only the change tracking is removed.
    """
    if (vm is None) is not everything:
        raise click.UsageError("Name one VM, or give --all.")
    if session.standalone:
        no_detach(detach)
        _standalone(session, vm, any_folder=any_folder, as_json=as_json)
    elif vm is not None:
        order = Order(JobKind.RELEASE, vm, given("any_folder"), summary_told)
        run_job(session, order, as_json=as_json, detach=detach)
    else:
        _all(session, given("any_folder"), detach=detach, as_json=as_json)


def _standalone(session: Session, vm: str | None, *, any_folder: bool, as_json: bool) -> None:
    with session.app(as_json=as_json) as app:
        if vm is not None:
            names = [vm]
        else:
            with app.hypervisor() as hypervisor:
                names = [each.uuid for each in hypervisor.outlines()]
        with app.release(any_folder=any_folder) as work:
            found = [work.run(name, any_folder=any_folder) for name in names]
    data = found if vm is None else found[0]
    show(as_json, lambda: data, lambda: "\n".join(map(release_text, found)))
    if any(each.left for each in found):
        raise SystemExit(int(Exit.WARNINGS))


def _all(session: Session, options: Mapping[str, Option], *, detach: bool, as_json: bool) -> None:
    with session.daemon(as_json=as_json) as daemon:
        _choose_none(daemon)
        names = [each.uuid for each in daemon.vms()]
        jobs = [daemon.submit(JobKind.RELEASE, name, options) for name in names]
        if detach:
            lines = [submitted_text(job, session.suggest) for job in jobs]
        else:
            jobs, lines = _followed(daemon, jobs)
    show(as_json, lambda: jobs, lambda: "\n".join(lines))
    worst = 0 if detach else max(map(job_exit, jobs), default=0)
    if worst:
        raise SystemExit(worst)


def _choose_none(daemon: Daemon) -> None:
    """Have no VM backed up or started by itself, nor those that come later."""
    old = daemon.settings()
    new = {**old.settings}
    new["vms"] = {**new.get("vms", {}), "mode": "chosen", "chosen": []}
    if "vms" in new.get("autostart", {}):
        new["autostart"] = {**new["autostart"], "vms": []}
    daemon.save_settings(new, old.tag)


def _followed(daemon: Daemon, jobs: list[JobView]) -> tuple[list[JobView], list[str]]:
    """Wait for the ends of jobs. Returns them, and what is told of each."""
    observer, cancel = TerminalObserver(), Cancel()
    ended, lines = [], []
    try:
        with stoppable(cancel, None, signals=SIGNALS, left=LEFT):
            for job in jobs:
                log = JobLog(daemon, job.id, observer.note)
                ended.append(follow(daemon, job, observer, cancel, log))
                lines.append(f"VM {job.vm!r}: {ended[-1].summary}")
                lines += [warning(f"Warning: {each}") for each in log.warnings]
    finally:
        observer.close()
    return ended, lines
