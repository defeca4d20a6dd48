"""Commands that run the daemon, and help shells with this one."""

from pathlib import Path

import click

from vm_babysitter.cli.completion import SHELLS, script
from vm_babysitter.cli.failure import Failure
from vm_babysitter.cli.options import FOLDER, json_option
from vm_babysitter.cli.output import log_elsewhere, say
from vm_babysitter.cli.render_status import self_check_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.cli.suggest import PROGRAM
from vm_babysitter.domain.errors import Exit
from vm_babysitter.engine.app import (
    DEFAULT_SETTINGS,
    DEFAULT_URI,
    ServeOptions,
)
from vm_babysitter.views import PartState

_NONE = Failure("no-daemon", "This installation has no daemon to run.")


@click.command()
@click.option(
    "--settings",
    type=FOLDER,
    default=DEFAULT_SETTINGS,
    show_default=True,
    metavar="PATH",
    help="The file of the settings.",
)
@click.option(
    "--state",
    type=FOLDER,
    metavar="DIR",
    help="The folder of journal and logs; by default where Unraid keeps such.",
)
@click.option(
    "--socket",
    type=FOLDER,
    metavar="PATH",
    help="Where to listen; by default where all commands look for it.",
)
@click.option("--uri", default=DEFAULT_URI, show_default=True, help="The libvirt to talk to.")
@click.option(
    "--runtime", type=FOLDER, metavar="DIR", help="The folder of what a reboot may forget."
)
@click.option(
    "--allow-ram-store", is_flag=True, help="Accept a backup folder in RAM (for tests only)."
)
@json_option
@click.pass_obj
def serve(
    session: Session,
    settings: Path,
    state: Path | None,
    socket: Path | None,
    uri: str,
    runtime: Path | None,
    allow_ram_store: bool,
    as_json: bool,
) -> None:
    """Run the daemon, until it is told to end (SIGTERM, or Ctrl-C)."""
    run = session.parts.serve
    if run is None:
        session.fail(_NONE, as_json=as_json)
    where = socket or session.socket
    log_elsewhere()
    with session.told(as_json=as_json):
        code = run(ServeOptions(settings, state, where, uri, runtime, allow_ram_store))
    raise SystemExit(code)


@click.command()
@click.option(
    "--settings", type=FOLDER, default=DEFAULT_SETTINGS, show_default=True, metavar="PATH"
)
@click.option("--state", type=FOLDER, metavar="DIR")
@json_option
@click.pass_obj
def self_check(session: Session, settings: Path, state: Path | None, as_json: bool) -> None:
    """Look at what the daemon needs, without it; ends with 1 if it cannot work."""
    look = session.parts.self_check
    if look is None:
        session.fail(_NONE, as_json=as_json)
    found = look(ServeOptions(settings, state, session.socket))
    show(as_json, lambda: found, lambda: self_check_text(found))
    states = {part.state for part in found}
    if PartState.FAILED in states:
        raise SystemExit(int(Exit.FAILED))
    if PartState.WARNING in states:
        raise SystemExit(int(Exit.WARNINGS))


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print what SHELL is to read for completing commands, options, names of VMs and jobs.

    For bash: `eval "$(vm-babysitter completion bash)"`, in ~/.bashrc for instance.
    """
    text = script(shell, context.find_root().command, PROGRAM)
    if as_json:
        show(as_json, lambda: {"shell": shell, "script": text}, str)
    else:
        say(text)
