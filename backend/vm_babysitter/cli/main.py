"""The command line: which commands there are, and the options that all have."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vm_babysitter import __version__
from vm_babysitter.cli import (
    on_autostart,
    on_daemon,
    on_jobs,
    on_notify,
    on_release,
    on_settings,
    on_store,
    on_vms,
)
from vm_babysitter.cli.commands import Commands
from vm_babysitter.cli.options import FOLDER
from vm_babysitter.cli.output import Once, have_streams
from vm_babysitter.cli.session import Parts, SelfCheck, Session
from vm_babysitter.cli.suggest import PROGRAM
from vm_babysitter.engine.app import DEFAULT_SOCKET, DEFAULT_URI, Compose, Place, Serve


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=FOLDER,
    default=DEFAULT_SOCKET,
    envvar="VMB_SOCKET",
    show_default=True,
    show_envvar=True,
    metavar="PATH",
    help="Where the daemon listens.",
)
@click.option("--standalone", is_flag=True, help="Do the work in this process, without a daemon.")
@click.option("--uri", default=DEFAULT_URI, show_default=True, help="Standalone: the libvirt.")
@click.option("--store", type=FOLDER, metavar="DIR", help="Standalone: the backup folder.")
@click.option(
    "--allow-ram-store", is_flag=True, help="Standalone: accept one in RAM (for tests only)."
)
@click.version_option(__version__)
@click.pass_context
def cli(
    context: click.Context,
    socket: Path,
    standalone: bool,
    uri: str,
    store: Path | None,
    allow_ram_store: bool,
) -> None:
    """Back up VMs incrementally, verify the backups, and restore them.

    The daemon does the work, and goes on if you do not wait for it; with --standalone this
    process does.
    """
    place = Place(uri, store, allow_ram_store)
    context.obj = Session(context.obj, place, standalone, socket)


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
    on_release.release,
    on_jobs.jobs,
    on_jobs.logs,
    on_jobs.cancel,
    on_jobs.schedules,
    on_jobs.events,
    on_autostart.autostart,
    on_settings.settings,
    on_notify.notify,
    on_daemon.serve,
    on_daemon.self_check,
    on_daemon.completion,
):
    cli.add_command(command)


def run(
    compose: Compose,
    arguments: Sequence[str] | None = None,
    serve: Serve | None = None,
    self_check: SelfCheck | None = None,
) -> None:
    """Run the command line; ends the process with an exit code of ``Exit``.

    Args:
        compose: puts the engine together, for ``--standalone``.
        arguments: without the program's name; None for those of the process.
        serve: runs a daemon; None where there is none to run.
        self_check: looks at what a daemon needs.
    """
    have_streams()
    logging.getLogger("vm_babysitter").addHandler(Once())
    cli.main(
        args=list(sys.argv[1:] if arguments is None else arguments),
        prog_name=PROGRAM,
        obj=Parts(compose, serve, self_check),
    )
