"""Commands about what users are told."""

from collections.abc import Sequence

import click

from vm_babysitter.cli.options import json_option
from vm_babysitter.cli.session import Session, show
from vm_babysitter.domain.errors import Exit
from vm_babysitter.views import NotifyTestView


@click.group()
def notify() -> None:
    """Try the ways in which you are told what happens."""


@notify.command("test")
@click.option(
    "--channel",
    type=click.Choice(["unraid", "webhook", "health"]),
    help="Try this one only.",
)
@json_option
@click.pass_obj
def test(session: Session, channel: str | None, as_json: bool) -> None:
    """Send a test by each way of telling, and say how that went."""
    with session.daemon(as_json=as_json) as daemon:
        found = daemon.test_notify(channel)
    show(as_json, lambda: found, lambda: _text(found))
    tried = [one for one in found if one.on]
    if not tried or not all(one.sent for one in tried):
        raise SystemExit(int(Exit.FAILED))


def _text(found: Sequence[NotifyTestView]) -> str:
    return "\n".join(f"{one.channel}: {one.text} {one.hint}".rstrip() for one in found)
