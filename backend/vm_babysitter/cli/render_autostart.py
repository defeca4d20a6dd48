"""The autostart list and its runs as text for people."""

from vm_babysitter.cli.colours import bad, good, plain, warning
from vm_babysitter.cli.render import local, table
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.autostart import Mark
from vm_babysitter.engine.autostart import RunState
from vm_babysitter.views import (
    AutostartRunView,
    AutostartStateView,
    AutostartView,
    AutostartVmView,
)

_MARKS = {
    None: plain("not yet"),
    Mark.BEGUN: warning("begun"),
    Mark.DONE: good("up"),
    Mark.FAILED: bad("failed"),
    Mark.SKIPPED: warning("skipped"),
    Mark.STOPPED: plain("switched off"),
}
_STATES = {
    RunState.RUNNING: "is under way",
    RunState.FINISHED: "is finished",
    RunState.HELD: "is held",
    RunState.BROKEN: "cannot go on; the log of the daemon says why",
}


def autostart_text(view: AutostartView, suggest: Suggest) -> str:
    """List the VMs in order, what is odd about them, and how the last run went."""
    if not view.vms:
        command = suggest.command("autostart", "set", "VM")
        return f"No VM is started in order. `{command}` puts one on the list."
    states = {} if view.run is None else {one.uuid: one for one in view.run.vms}
    rows = [
        (
            str(number),
            one.vm,
            f"{one.delay} s" if one.delay else "-",
            _waits(one),
            _owner(one),
            _state(states.get(one.uuid.lower()), ran=view.run is not None),
        )
        for number, one in enumerate(view.vms, 1)
    ]
    lines = [table(("", "VM", "DELAY", "WAITS FOR", "BY ITSELF", "LAST START"), rows)]
    for one in view.vms:
        if one.note:
            lines.append(warning(f"{one.vm}: {one.note}"))
        if one.own:
            command = suggest.command("autostart", one.vm, options=["set", "--take-over"])
            lines.append(f"  -> `{command}` turns that switch off.")
    if view.run is not None:
        lines.append(run_text(view.run))
    return "\n".join(lines)


def run_text(run: AutostartRunView) -> str:
    """Say how a run is, in a line."""
    reason = f": {run.reason}" if run.reason else "."
    text = f"The start of {local(run.begun)} {_STATES[run.state]}{reason}"
    return warning(text) if run.state in {RunState.HELD, RunState.BROKEN} else text


def _waits(one: AutostartVmView) -> str:
    if not one.wait_for:
        return "-"
    return f"{', '.join(one.wait_for)} ({one.timeout} s, then {one.otherwise})"


def _owner(one: AutostartVmView) -> str:
    if one.own:
        return "yes"
    return "taken over" if one.taken else "-"


def _state(state: AutostartStateView | None, *, ran: bool) -> str:
    if state is None:
        return "not yet" if ran else "-"
    return f"{_MARKS[state.mark]}: {state.note}" if state.note else _MARKS[state.mark]
