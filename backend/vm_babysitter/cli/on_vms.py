"""Commands about VMs, which need libvirt."""

import click
import msgspec

from vm_babysitter.cli.options import effort_options, json_option, track_snapshots_option
from vm_babysitter.cli.output import say
from vm_babysitter.cli.render_health import (
    diagnosis_text,
    repair_exit,
    repair_text,
    status_exit,
    status_text,
)
from vm_babysitter.cli.render_plans import plan_text, vms_text
from vm_babysitter.cli.render_results import backup_text, convert_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.errors import BabysitterError, Exit, VmNotFound
from vm_babysitter.domain.repair_plan import RepairPolicy, plan_repair
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.engine.app import App, Effort
from vm_babysitter.engine.diagnosing import Diagnosed, Wishes
from vm_babysitter.views import BackupView, HealthView, PlanView, RepairView, VmView


@click.command()
@json_option
@click.pass_obj
def vms(session: Session, as_json: bool) -> None:
    """List the VMs and what of each would be backed up."""
    with session.app(as_json=as_json) as app, app.hypervisor() as hypervisor:
        found = hypervisor.vms()
    show(as_json, lambda: [VmView.of(vm) for vm in found], lambda: vms_text(found))


@click.command()
@click.argument("vm")
@click.option("--full", is_flag=True, help="Plan a new full backup.")
@track_snapshots_option
@json_option
@click.pass_obj
def plan(session: Session, vm: str, full: bool, track_snapshots: bool, as_json: bool) -> None:
    """Say what the next backup of VM would do, and why; change nothing."""
    with session.app(as_json=as_json) as app, app.diagnoser() as diagnoser:
        found = diagnoser.diagnose(vm, Wishes(full, track_snapshots))
        if found.error is not None:
            if not as_json:
                health = plan_repair(found.diagnosis)
                say(diagnosis_text(found.diagnosis, health, session.suggest))
            raise found.error
    show(as_json, lambda: PlanView.of(found), lambda: plan_text(found, session.suggest))


@click.command()
@click.argument("vm", required=False)
@json_option
@click.pass_obj
def status(session: Session, vm: str | None, as_json: bool) -> None:
    """Say whether the backups of VM, or of all VMs, are good, and what is done if not.

    Without a backup folder that can be used the VMs are listed all the same, and it fails.
    """
    with session.app(as_json=as_json) as app:
        missing = _without_store(app)
        found = _diagnosed(app, vm, missing)
    diagnoses = [each.diagnosis for each in found]
    planned = [(diagnosis, plan_repair(diagnosis)) for diagnosis in diagnoses]
    known = missing is None
    data = [HealthView.of(*each, known=known) for each in planned]
    if missing is not None:
        if not as_json:
            say(status_text(planned, session.suggest, known=False))
        session.fail(missing, as_json=as_json, vms=msgspec.to_builtins(data))
    show(as_json, lambda: data, lambda: status_text(planned, session.suggest))
    raise SystemExit(int(status_exit(diagnoses)))


def _without_store(app: App) -> BabysitterError | None:
    """Return why there is no backup folder to look into; None if there is one."""
    try:
        app.store()
    except BabysitterError as error:
        return error
    return None


def _diagnosed(app: App, vm: str | None, missing: BabysitterError | None) -> tuple[Diagnosed, ...]:
    with app.diagnoser(with_store=missing is None) as diagnoser:
        try:
            return tuple(diagnoser.all()) if vm is None else (diagnoser.diagnose(vm),)
        except VmNotFound as error:
            if missing is not None:  # its backups may be all that is left of it
                raise missing from error
            raise


@click.command()
@click.argument("vm")
@click.option(
    "--remove-lost",
    is_flag=True,
    help="Remove restore points of which nothing can be restored, not even one disk.",
)
@json_option
@click.pass_obj
def repair(session: Session, vm: str, remove_lost: bool, as_json: bool) -> None:
    """Repair the backups of VM as far as that need not wait for its next backup.

    Nothing is lost by it, and each backup does so by itself before it begins. Only what
    --remove-lost removes is gone. If this is interrupted, run it again.
    """
    with session.app(as_json=as_json) as app, app.repair() as work:
        result = work.run(vm, RepairPolicy(remove_lost))
    show(as_json, lambda: RepairView.of(result), lambda: repair_text(result, session.suggest))
    raise SystemExit(int(repair_exit(result)))


@click.command()
@click.argument("vm")
@click.option("--full", is_flag=True, help="Start a new backup series with a full backup.")
@click.option(
    "--compress", is_flag=True, help="Compress what shrinks: takes less room and more processor."
)
@click.option(
    "--reread-runs",
    type=click.IntRange(min=0, max=10_000),
    metavar="N",
    default=DEFAULT_RUNS,
    show_default=True,
    help="In the course of N backups read once again what is called unchanged; 0: never.",
)
@track_snapshots_option
@effort_options
@json_option
@click.pass_obj
def backup(
    session: Session,
    vm: str,
    full: bool,
    compress: bool,
    reread_runs: int,
    track_snapshots: bool,
    effort: Effort,
    as_json: bool,
) -> None:
    """Make the next restore point of VM, running or off, as it is."""
    with session.app(as_json=as_json) as app, app.backup(effort, compress=compress) as work:
        result = work.run(
            vm, force_full=full, reread_runs=reread_runs, track_snapshots=track_snapshots
        )
    show(
        as_json,
        lambda: BackupView.of(result),
        lambda: backup_text(result),
    )
    warned = bool(result.point.warnings) and not result.unchanged
    if warned or result.left or result.vm_resumed:
        raise SystemExit(int(Exit.WARNINGS))


@click.command(short_help="Turn a raw disk into qcow2, whose changes can be tracked.")
@click.argument("vm")
@click.argument("disk")
@click.option("--undo", is_flag=True, help="Give the disk the raw image back that it had.")
@click.option(
    "--lose-changes",
    is_flag=True,
    help="With --undo: even if the VM has written to the disk since; that is then lost.",
)
@effort_options
@json_option
@click.pass_obj
def convert(
    session: Session,
    vm: str,
    disk: str,
    undo: bool,
    lose_changes: bool,
    effort: Effort,
    as_json: bool,
) -> None:
    """Turn a raw disk of VM into qcow2, so that backups read only what changed.

    VM has to be off; DISK is what `vms` calls it, such as vda. The qcow2 image is made beside the
    raw one, compared with it, and given to VM. The raw image is kept until you delete it, so there
    must be room for both. If this is interrupted, run it again.
    """
    if lose_changes and not undo:
        raise click.UsageError("--lose-changes goes with --undo only.")
    with session.app(as_json=as_json) as app, app.convert(effort) as (there, back):
        result = back.run(vm, disk, lose_changes=lose_changes) if undo else there.run(vm, disk)
    show(as_json, lambda: result, lambda: convert_text(result, session.suggest))
