"""What was found of a place for backups, as text."""

import click

from vm_babysitter.cli.colours import by_verdict
from vm_babysitter.domain.store_check import Verdict
from vm_babysitter.engine.check_store import CheckedStore

_SUM = {
    Verdict.OK: "is fit to hold backups",
    Verdict.WARNING: "can hold backups, but see the warnings",
    Verdict.UNFIT: "is not fit to hold backups",
}


def check_text(result: CheckedStore) -> str:
    """Say each finding in a line, with the way out below it, and what they come to."""
    lines = []
    if result.taken_from is not None:
        lines.append(
            f"Taken over: it belonged to the host {result.taken_from.host_name!r} since "
            f"{result.taken_from.taken:%Y-%m-%d %H:%M} UTC. That host is refused from now on."
        )
    for finding in result.findings:
        lines.append(f"{by_verdict(finding.verdict, f'{finding.verdict:8}')} {finding.text}")
        if finding.way_out:
            lines.append(f"{'':8} -> {finding.way_out}")
    summary = by_verdict(result.verdict, _SUM[result.verdict])
    lines.append(f"{click.format_filename(result.path)} {summary}.")
    return "\n".join(lines)
