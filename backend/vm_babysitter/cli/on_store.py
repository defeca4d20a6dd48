"""Commands about what is in the backup folder, which need no libvirt."""

from collections.abc import Sequence
from pathlib import Path

import click

from vm_babysitter.cli.asking import effort_given, given
from vm_babysitter.cli.follow import Order, run_job
from vm_babysitter.cli.options import FOLDER, VM, detach_option, effort_options, json_option
from vm_babysitter.cli.outcomes import no_detach, summary_told
from vm_babysitter.cli.render_check import check_text
from vm_babysitter.cli.render_points import points_text
from vm_babysitter.cli.render_results import restore_text, verify_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.errors import Exit, PointNotFound
from vm_babysitter.domain.job import JobKind
from vm_babysitter.domain.store_check import Verdict
from vm_babysitter.engine.app import Effort
from vm_babysitter.engine.catalog import LATEST
from vm_babysitter.engine.restore import FORMATS
from vm_babysitter.engine.verify import Verified
from vm_babysitter.views import RestoreView


@click.command()
@click.argument("vm", type=VM, required=False)
@json_option
@click.pass_obj
def points(session: Session, vm: str | None, as_json: bool) -> None:
    """List the restore points of VM, or of all VMs."""
    with session.reader(as_json=as_json) as reader:
        found = reader.points(vm)
    show(as_json, lambda: found, lambda: points_text(found))


@click.command()
@click.argument("vm", type=VM)
@click.argument("point", required=False)
@click.option("--structure", is_flag=True, help="Check the files only, do not read the disks.")
@effort_options
@detach_option
@json_option
@click.pass_obj
def verify(
    session: Session,
    vm: str,
    point: str | None,
    structure: bool,
    effort: Effort,
    detach: bool,
    as_json: bool,
) -> None:
    """Prove that POINT (or every restore point of VM) would restore what was backed up."""
    if not session.standalone:
        options = given("point", "structure") | effort_given()
        order = Order(JobKind.VERIFY, vm, options, summary_told)
        run_job(session, order, as_json=as_json, detach=detach)
        return
    no_detach(detach)
    with session.app(as_json=as_json) as app:
        work = app.verify(effort)
        if point is None:
            results: Sequence[Verified] = work.all(vm, structure_only=structure)
            if not results:
                raise PointNotFound(vm, "any")
        else:
            results = (work.one(vm, point, structure_only=structure),)
    show(as_json, lambda: list(results), lambda: verify_text(results))
    if not all(result.good for result in results):
        raise SystemExit(int(Exit.INTEGRITY))


@click.command()
@click.argument("vm", type=VM)
@click.argument("point", metavar=f"POINT|{LATEST}")
@click.option(
    "--to",
    required=True,
    type=FOLDER,
    help="A new or empty folder for the images and the VM's definition.",
)
@click.option("--disk", "disks", multiple=True, help="Only this disk; may be given repeatedly.")
@click.option(
    "--format", type=click.Choice(FORMATS), help="Format of the images; by default the disk's own."
)
@effort_options
@detach_option
@json_option
@click.pass_obj
def restore(
    session: Session,
    vm: str,
    point: str,
    to: Path,
    disks: tuple[str, ...],
    format: str | None,
    effort: Effort,
    detach: bool,
    as_json: bool,
) -> None:
    """Bring the disks of a restore point of VM back as image files; overwrite nothing."""
    if not session.standalone:
        options = given("point", "disks", "format") | effort_given()
        options["to"] = str(to.absolute())  # the daemon works elsewhere
        order = Order(JobKind.RESTORE, vm, options, summary_told)
        run_job(session, order, as_json=as_json, detach=detach)
        return
    no_detach(detach)
    with session.app(as_json=as_json) as app:
        result = RestoreView.of(app.restore(to, effort).run(vm, point, disks, format))
    show(as_json, lambda: result, lambda: restore_text(result))


@click.command("check-store", short_help="Say whether a folder is fit to hold backups.")
@click.argument("path", type=FOLDER)
@click.option(
    "--take-over", is_flag=True, help="Give the backup folder to this host, whoever has it."
)
@json_option
@click.pass_obj
def check_store(session: Session, path: Path, take_over: bool, as_json: bool) -> None:
    """Say whether PATH is fit to hold backups, and why not; leave nothing there.

    Only one host writes to a backup folder. With --take-over it is this one from now on: say so
    only if the other host is not to back up into it any more. No daemon is asked.
    """
    with session.app(as_json=as_json) as app:
        result = app.check_store().run(path, take_over=take_over)
    show(as_json, lambda: result, lambda: check_text(result))
    if result.verdict is not Verdict.OK:
        raise SystemExit(int(Exit.WARNINGS if result.verdict is Verdict.WARNING else Exit.FAILED))
