"""The command line: options, commands, exit codes."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from vm_babysitter.cli import render
from vm_babysitter.cli.composition import App, Compose, Effort, Place
from vm_babysitter.cli.options import effort_options, track_snapshots_option
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.domain.errors import BabysitterError, Exit, PointNotFound
from vm_babysitter.domain.reread import DEFAULT_RUNS
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.catalog import LATEST, find_vm
from vm_babysitter.engine.restore import FORMATS

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the command line."""

    compose: Compose
    place: Place
    standalone: bool

    @contextmanager
    def app(self, *, as_json: bool) -> Iterator[App]:
        """Put the engine together; errors become exit codes, Ctrl-C stops a job cleanly."""
        observer, cancel = TerminalObserver(), Cancel()
        try:
            with stoppable(cancel):
                self._check()
                yield self.compose(self.place, observer, cancel)
        except BabysitterError as error:
            observer.close()
            _complain(error, as_json)
            raise SystemExit(int(error.exit_code)) from error
        except OSError as error:
            observer.close()
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(int(Exit.FAILED)) from error
        finally:
            observer.close()

    def _check(self) -> None:
        if not self.standalone:
            click.echo("There is no daemon to talk to. Use --standalone.", err=True)
            raise SystemExit(int(Exit.UNREACHABLE))


def _complain(error: BabysitterError, as_json: bool) -> None:
    if as_json:
        fields = {k: v if isinstance(v, int | str) else str(v) for k, v in error.fields.items()}
        problem = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "fields": fields,
        }
        click.echo(json.dumps({"error": problem}, ensure_ascii=False))
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(error.hint, err=True)


def _print(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    if as_json:
        plain = msgspec.to_builtins(data(), str_keys=True)
        click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
    else:
        click.echo(text())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--standalone", is_flag=True, help="Do the work in this process, without a daemon.")
@click.option("--uri", default="qemu:///system", show_default=True, help="The libvirt to talk to.")
@click.option("--store", type=click.Path(path_type=Path), help="The backup folder.")
@click.option(
    "--allow-ram-store", is_flag=True, help="Accept a backup folder in RAM (for tests only)."
)
@click.version_option(package_name="vm-babysitter")
@click.pass_context
def cli(
    context: click.Context,
    standalone: bool,
    uri: str,
    store: Path | None,
    allow_ram_store: bool,
) -> None:
    """Back up VMs incrementally, verify the backups, and restore them."""
    place = Place(uri, store, allow_ram_store)
    context.obj = Session(context.obj, place, standalone)


@cli.command()
@_JSON
@click.pass_obj
def vms(session: Session, as_json: bool) -> None:
    """List the VMs and what of each would be backed up."""
    with session.app(as_json=as_json) as app, app.hypervisor() as hypervisor:
        found = hypervisor.vms()
    _print(as_json, lambda: render.vms_data(found), lambda: render.vms_text(found))


@cli.command()
@click.argument("vm")
@click.option("--full", is_flag=True, help="Plan a new full backup.")
@track_snapshots_option
@_JSON
@click.pass_obj
def plan(session: Session, vm: str, full: bool, track_snapshots: bool, as_json: bool) -> None:
    """Say what the next backup of VM would do, and why; change nothing."""
    with session.app(as_json=as_json) as app, app.planner() as (planner, hypervisor):
        known = None if full else planner.unchanged(vm)
        if known is not None:
            _print(
                as_json,
                lambda: render.unchanged_data(*known),
                lambda: render.unchanged_text(*known),
            )
            return
        found = hypervisor.vm(vm)
        planned = planner.plan(found, force_full=full, track_snapshots=track_snapshots)
    _print(
        as_json,
        lambda: render.plan_data(found, planned),
        lambda: render.plan_text(found, planned),
    )


@cli.command()
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
@_JSON
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
    _print(as_json, lambda: render.backup_data(result), lambda: render.backup_text(result))
    warned = bool(result.point.warnings) and not result.unchanged
    if warned or result.left or result.vm_resumed:
        raise SystemExit(int(Exit.WARNINGS))


@cli.command()
@click.argument("vm", required=False)
@_JSON
@click.pass_obj
def points(session: Session, vm: str | None, as_json: bool) -> None:
    """List the restore points of VM, or of all VMs."""
    with session.app(as_json=as_json) as app:
        store = app.store()
        wanted = store.vms() if vm is None else (find_vm(store, vm),)
        found = [(stored, store.chains(stored.uuid)) for stored in wanted]
    _print(as_json, lambda: render.points_data(found), lambda: render.points_text(found))


@cli.command()
@click.argument("vm")
@click.argument("point", required=False)
@click.option("--structure", is_flag=True, help="Check the files only, do not read the disks.")
@effort_options
@_JSON
@click.pass_obj
def verify(
    session: Session, vm: str, point: str | None, structure: bool, effort: Effort, as_json: bool
) -> None:
    """Prove that POINT (or every restore point of VM) would restore what was backed up."""
    with session.app(as_json=as_json) as app:
        work = app.verify(effort)
        if point is None:
            results: Sequence[Any] = work.all(vm, structure_only=structure)
            if not results:
                raise PointNotFound(vm, "any")
        else:
            results = (work.one(vm, point, structure_only=structure),)
    _print(as_json, lambda: list(results), lambda: render.verify_text(results))
    if not all(result.good for result in results):
        raise SystemExit(int(Exit.INTEGRITY))


@cli.command()
@click.argument("vm")
@click.argument("point", metavar=f"POINT|{LATEST}")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    help="A new or empty folder for the images and the VM's definition.",
)
@click.option("--disk", "disks", multiple=True, help="Only this disk; may be given repeatedly.")
@click.option(
    "--format", type=click.Choice(FORMATS), help="Format of the images; by default the disk's own."
)
@effort_options
@_JSON
@click.pass_obj
def restore(
    session: Session,
    vm: str,
    point: str,
    to: Path,
    disks: tuple[str, ...],
    format: str | None,
    effort: Effort,
    as_json: bool,
) -> None:
    """Bring the disks of a restore point of VM back as image files; overwrite nothing."""
    with session.app(as_json=as_json) as app:
        result = app.restore(to, effort).run(vm, point, disks, format)
    _print(as_json, lambda: _restored(result), lambda: render.restore_text(result))


@cli.command(short_help="Turn a raw disk into qcow2, whose changes can be tracked.")
@click.argument("vm")
@click.argument("disk")
@click.option("--undo", is_flag=True, help="Give the disk the raw image back that it had.")
@click.option(
    "--lose-changes",
    is_flag=True,
    help="With --undo: even if the VM has written to the disk since; that is then lost.",
)
@effort_options
@_JSON
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
    _print(as_json, lambda: result, lambda: render.convert_text(result))


def _restored(result: Any) -> dict[str, Any]:
    return {
        "point": result.point,
        "files": [str(path) for path in result.files],
        "content_bytes": result.content_bytes,
        "notes": list(result.notes),
    }


def run(compose: Compose, arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with an exit code of ``Exit``."""
    cli.main(
        args=list(sys.argv[1:] if arguments is None else arguments),
        prog_name="vm-babysitter",
        obj=compose,
    )
