"""The command line: which commands there are, and the options that all have."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vm_babysitter.cli import on_store, on_vms
from vm_babysitter.cli.commands import Commands
from vm_babysitter.cli.options import FOLDER
from vm_babysitter.cli.output import Once, have_streams
from vm_babysitter.cli.session import Session
from vm_babysitter.cli.suggest import PROGRAM
from vm_babysitter.engine.app import DEFAULT_URI, Compose, Place


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--standalone", is_flag=True, help="Do the work in this process, without a daemon.")
@click.option("--uri", default=DEFAULT_URI, show_default=True, help="The libvirt to talk to.")
@click.option("--store", type=FOLDER, help="The backup folder.")
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


for command in (
    on_vms.vms,
    on_vms.status,
    on_vms.plan,
    on_vms.backup,
    on_vms.repair,
    on_store.points,
    on_store.check_store,
    on_store.verify,
    on_store.restore,
    on_vms.convert,
):
    cli.add_command(command)


def run(compose: Compose, arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with an exit code of ``Exit``."""
    have_streams()
    logging.getLogger("vm_babysitter").addHandler(Once())
    cli.main(
        args=list(sys.argv[1:] if arguments is None else arguments),
        prog_name=PROGRAM,
        obj=compose,
    )
