"""Commands about the VMs that are started in order."""

from collections.abc import Sequence
from typing import Any

import click

from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.options import VM, json_option
from vm_babysitter.cli.render_autostart import autostart_text, run_text
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.errors import InvalidInput
from vm_babysitter.views import AutostartView, AutostartVmView

Entries = list[dict[str, Any]]


@click.group()
def autostart() -> None:
    """Start VMs in order when the VM service has started, each once what it needs is there."""


@autostart.command("list")
@json_option
@click.pass_obj
def list_all(session: Session, as_json: bool) -> None:
    """List the VMs that are started in order, and how the last start went."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.autostart()
    _show(session, found, as_json=as_json)


@autostart.command()
@click.argument("vms", type=VM, nargs=-1, required=True, metavar="VM...")
@json_option
@click.pass_obj
def order(session: Session, vms: Sequence[str], as_json: bool) -> None:
    """Start these VMs first, in this order, and the rest of the list after them."""
    with session.daemon(as_json=as_json) as daemon:
        view, (entries, document, tag) = daemon.autostart(), _read(daemon)
        first = [_entry_of(entries, _listed(view, vm)) for vm in vms]
        rest = [one for one in entries if one not in first]
        unique = [one for number, one in enumerate(first) if one not in first[:number]]
        found = _save(daemon, document, tag, [*unique, *rest])
    _show(session, found, as_json=as_json)


@autostart.command("set")
@click.argument("vm", type=VM)
@click.option("--delay", type=int, metavar="SECONDS", help="Wait so long after the VM before it.")
@click.option(
    "--wait-for",
    "wait_for",
    multiple=True,
    metavar="WHAT",
    help="Wait for vm:NAME, agent:NAME, tcp:HOST:PORT or path:/FOLDER; may be given repeatedly.",
)
@click.option("--no-wait", is_flag=True, help="Wait for nothing any more.")
@click.option("--timeout", type=int, metavar="SECONDS", help="Wait at most so long for that.")
@click.option(
    "--otherwise", type=click.Choice(["start", "skip"]), help="What to do if it does not come."
)
@click.option("--tries", type=int, metavar="N", help="How often a start is tried.")
@click.option(
    "--take-over/--give-back",
    default=None,
    help="Turn the VM's own Autostart switch off, so that it comes up in order only; or on again.",
)
@click.option("--remove", is_flag=True, help="Take the VM off the list.")
@json_option
@click.pass_obj
def set_vm(
    session: Session,
    vm: str,
    delay: int | None,
    wait_for: tuple[str, ...],
    no_wait: bool,
    timeout: int | None,
    otherwise: str | None,
    tries: int | None,
    take_over: bool | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Put VM at the end of the list, change how it is started, or take it off.

    What is not given stays as it is. Taken off the list, a VM gets its own Autostart switch back.
    """
    if no_wait and wait_for:
        raise click.UsageError("--no-wait goes without --wait-for.")
    waits = list(wait_for) if wait_for or no_wait else None
    options: dict[str, Any] = {"delay": delay, "wait_for": waits, "timeout": timeout}
    options |= {"otherwise": otherwise, "tries": tries}
    changes = {key: value for key, value in options.items() if value is not None}
    if remove and (changes or take_over is not None):
        raise click.UsageError("--remove goes alone.")
    with session.daemon(as_json=as_json) as daemon:
        if remove:
            found = _removed(daemon, vm)
        else:
            found = _changed(daemon, vm, changes)
            if take_over is not None:
                found = daemon.take_over_autostart(vm, take=take_over)
    _show(session, found, as_json=as_json)


@autostart.command()
@json_option
@click.pass_obj
def now(session: Session, as_json: bool) -> None:
    """Start the VMs of the list that are off now, in order; do not wait for the end."""
    with session.daemon(as_json=as_json) as daemon:
        begun = daemon.begin_autostart()
    command = session.suggest.command("autostart", "list")
    show(as_json, lambda: begun, lambda: f"{run_text(begun)}\n`{command}` says how it goes.")


def _show(session: Session, view: AutostartView, *, as_json: bool) -> None:
    show(as_json, lambda: view, lambda: autostart_text(view, session.suggest))


def _read(daemon: Daemon) -> tuple[Entries, dict[str, Any], str]:
    settings = daemon.settings()
    section = settings.settings.get("autostart", {})
    return list(section.get("vms", [])), dict(settings.settings), settings.tag


def _save(daemon: Daemon, document: dict[str, Any], tag: str, entries: Entries) -> AutostartView:
    section = {**document.get("autostart", {}), "vms": entries}
    daemon.save_settings({**document, "autostart": section}, tag)
    return daemon.autostart()


def _find(view: AutostartView, vm: str) -> AutostartVmView | None:
    names = [one for one in view.vms if vm in {one.vm, one.listed}]
    uuids = [one for one in view.vms if one.uuid and one.uuid.lower() == vm.lower()]
    return next(iter([*names, *uuids]), None)


def _listed(view: AutostartView, vm: str) -> str:
    found = _find(view, vm)
    if found is None:
        rule = "is not in the autostart list"
        raise InvalidInput("VM", vm, rule, "`vm-babysitter autostart list` shows it.")
    return found.listed


def _entry_of(entries: Entries, listed: str) -> dict[str, Any]:
    return next(one for one in entries if one.get("vm") == listed)


def _removed(daemon: Daemon, vm: str) -> AutostartView:
    listed = _listed(daemon.autostart(), vm)
    entries, document, tag = _read(daemon)
    return _save(daemon, document, tag, [one for one in entries if one.get("vm") != listed])


def _changed(daemon: Daemon, vm: str, changes: dict[str, Any]) -> AutostartView:
    found = _find(daemon.autostart(), vm)
    entries, document, tag = _read(daemon)
    if found is None:
        # By its UUID: a VM that is renamed still comes up.
        return _save(daemon, document, tag, [*entries, {"vm": daemon.vm(vm).uuid, **changes}])
    new = [{**one, **changes} if one.get("vm") == found.listed else one for one in entries]
    return _save(daemon, document, tag, new)
