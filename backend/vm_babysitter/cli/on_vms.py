"""Commands about VMs."""

import click
import msgspec

from vm_babysitter.cli.asking import effort_given, given
from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.follow import Order, run_job
from vm_babysitter.cli.options import (
    VM,
    detach_option,
    effort_options,
    json_option,
    track_snapshots_option,
)
from vm_babysitter.cli.outcomes import backup_told, convert_told, no_detach, repair_told
from vm_babysitter.cli.output import say, screen_lines
from vm_babysitter.cli.reader import Hindered
from vm_babysitter.cli.render_health import diagnosis_text, repair_exit, repair_text
from vm_babysitter.cli.render_health import status_exit as health_exit
from vm_babysitter.cli.render_health import status_text as health_text
from vm_babysitter.cli.render_plans import plan_text, vms_text
from vm_babysitter.cli.render_results import backup_text, convert_text
from vm_babysitter.cli.render_status import status_exit, status_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.errors import BabysitterError, Exit, VmNotFound
from vm_babysitter.domain.job import JobKind
from vm_babysitter.domain.repair_plan import RepairPolicy
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.engine.app import App, Effort
from vm_babysitter.engine.diagnosing import Diagnosed
from vm_babysitter.views import BackupView, HealthView, RepairView


@click.command()
@json_option
@click.pass_obj
def vms(session: Session, as_json: bool) -> None:
    """List the VMs and what of each would be backed up."""
    with session.reader(as_json=as_json) as reader:
        found = reader.vms()
    show(as_json, lambda: found, lambda: vms_text(found))


@click.command()
@click.argument("vm", type=VM)
@click.option("--full", is_flag=True, help="Plan a new full backup.")
@track_snapshots_option
@json_option
@click.pass_obj
def plan(session: Session, vm: str, full: bool, track_snapshots: bool, as_json: bool) -> None:
    """Say what the next backup of VM would do, and why; change nothing."""
    with session.reader(as_json=as_json) as reader:
        found = reader.plan(vm, full=full, track_snapshots=track_snapshots)
        if isinstance(found, Hindered):
            if not as_json:
                say(diagnosis_text(found.health, session.suggest))
            raise found.error
    show(as_json, lambda: found, lambda: plan_text(found, session.suggest))


@click.command()
@click.argument("vm", type=VM, required=False)
@json_option
@click.pass_obj
def status(session: Session, vm: str | None, as_json: bool) -> None:
    """Say whether everything is fine, what runs, what is next, and what there is to do.

    With VM: whether its backups are good, and what is done if not. With --standalone: that of all
    VMs. Without a backup folder that can be used the VMs are listed all the same, and it fails.
    """
    if session.standalone:
        _status_standalone(session, vm, as_json=as_json)
        return
    with session.daemon(as_json=as_json) as daemon:
        if vm is None:
            _status_of_all(session, daemon, as_json=as_json)
            return
        found = [daemon.health_of(vm)]
    show(as_json, lambda: found, lambda: health_text(found, session.suggest))
    raise SystemExit(int(health_exit(found)))


def _status_of_all(session: Session, daemon: Daemon, *, as_json: bool) -> None:
    view = daemon.status()
    show(as_json, lambda: view, lambda: status_text(view, session.suggest, screen_lines()))
    raise SystemExit(int(status_exit(view)))


def _status_standalone(session: Session, vm: str | None, *, as_json: bool) -> None:
    with session.app(as_json=as_json) as app:
        missing = _without_store(app)
        found = _diagnosed(app, vm, missing)
    known = missing is None
    views = [HealthView.of(each.diagnosis, known=known) for each in found]
    if missing is not None:
        if not as_json:
            say(health_text(views, session.suggest, known=False))
        session.fail(missing, as_json=as_json, vms=msgspec.to_builtins(views))
    show(as_json, lambda: views, lambda: health_text(views, session.suggest))
    raise SystemExit(int(health_exit(views)))


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
@click.argument("vm", type=VM)
@click.option(
    "--remove-lost",
    is_flag=True,
    help="Remove restore points of which nothing can be restored, not even one disk.",
)
@detach_option
@json_option
@click.pass_obj
def repair(session: Session, vm: str, remove_lost: bool, detach: bool, as_json: bool) -> None:
    """Repair the backups of VM as far as that need not wait for its next backup.

    Nothing is lost by it, and each backup does so by itself before it begins. Only what
    --remove-lost removes is gone. If this is interrupted, run it again.
    """
    if not session.standalone:
        order = Order(JobKind.REPAIR, vm, given("remove_lost"), repair_told(session))
        run_job(session, order, as_json=as_json, detach=detach)
        return
    no_detach(detach)
    with session.app(as_json=as_json) as app, app.repair() as work:
        result = RepairView.of(work.run(vm, RepairPolicy(remove_lost)))
    show(as_json, lambda: result, lambda: repair_text(result, session.suggest))
    raise SystemExit(int(repair_exit(result)))


@click.command()
@click.argument("vm", type=VM)
@click.option("--full", is_flag=True, help="Start a new backup series with a full backup.")
@click.option(
    "--compress/--no-compress",
    default=False,
    help="Compress what shrinks: takes less room and more processor.",
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
@detach_option
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
    detach: bool,
    as_json: bool,
) -> None:
    """Make the next restore point of VM, running or off, as it is.

    The daemon does so as its settings say, but for the options that are given here.
    """
    if not session.standalone:
        options = given("full", "compress", "reread_runs", "track_snapshots") | effort_given()
        order = Order(JobKind.BACKUP, vm, options, backup_told)
        run_job(session, order, as_json=as_json, detach=detach)
        return
    no_detach(detach)
    with session.app(as_json=as_json) as app, app.backup(effort, compress=compress) as work:
        done = work.run(
            vm, force_full=full, reread_runs=reread_runs, track_snapshots=track_snapshots
        )
    result = BackupView.of(done)
    show(as_json, lambda: result, lambda: backup_text(result))
    warned = bool(result.manifest.warnings) and not result.unchanged
    if warned or result.left or result.vm_resumed:
        raise SystemExit(int(Exit.WARNINGS))


@click.command(short_help="Turn a raw disk into qcow2, whose changes can be tracked.")
@click.argument("vm", type=VM)
@click.argument("disk")
@click.option("--undo", is_flag=True, help="Give the disk the raw image back that it had.")
@click.option(
    "--lose-changes",
    is_flag=True,
    help="With --undo: even if the VM has written to the disk since; that is then lost.",
)
@effort_options
@detach_option
@json_option
@click.pass_obj
def convert(
    session: Session,
    vm: str,
    disk: str,
    undo: bool,
    lose_changes: bool,
    effort: Effort,
    detach: bool,
    as_json: bool,
) -> None:
    """Turn a raw disk of VM into qcow2, so that backups read only what changed.

    VM has to be off; DISK is what `vms` calls it, such as vda. The qcow2 image is made beside the
    raw one, compared with it, and given to VM. The raw image is kept until you delete it, so there
    must be room for both. If this is interrupted, run it again.
    """
    if lose_changes and not undo:
        raise click.UsageError("--lose-changes goes with --undo only.")
    if not session.standalone:
        options = given("disk", "undo", "lose_changes") | effort_given()
        order = Order(JobKind.CONVERT, vm, options, convert_told(session))
        run_job(session, order, as_json=as_json, detach=detach)
        return
    no_detach(detach)
    with session.app(as_json=as_json) as app, app.convert(effort) as (there, back):
        result = back.run(vm, disk, lose_changes=lose_changes) if undo else there.run(vm, disk)
    show(as_json, lambda: result, lambda: convert_text(result, session.suggest))
