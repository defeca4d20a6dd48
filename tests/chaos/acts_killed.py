"""Our command, killed or failing at some moment."""

import json
import signal
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.chaos.acts_ours import STEPS, Options
from tests.chaos.acts_vm import some
from tests.chaos.house import SECONDS, Reference
from tests.chaos.machine import Machine
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken
from tests.support.faulty import FILE_EVENTS, Fault

_OK = (0, 3)
COMMITTED = frozenset({"committed", "ended", "tidy", "done"})
_CALLS = ("LibvirtHypervisor.*", "virDomain.*", "LocalStore.*", "Reconciler.*", "Workspace.*")


def backup_killed(oracle: Oracle, chance: Random) -> str:
    """Kill our command at some moment; the point may have been committed or not."""
    machine = some(oracle.house, chance)
    copies = oracle.house.copies(machine)
    told = run_to_death(oracle, machine, chance)
    made = oracle.house.learn(machine, copies, told)
    must_have(told, made)
    return f"{told} ({len(made)} point)"


def backup_killed_in_undo(oracle: Oracle, chance: Random) -> str:
    """Have a backup fail, and kill it while it undoes what it had done."""
    machine = some(oracle.house, chance)
    copies = oracle.house.copies(machine)
    failing = Fault("fail", "step", chance.choice(("mark", "begun", "copy", "copied vda", "save")))
    dying = chance.choice(
        (
            Fault("die", "step", "roll back"),
            Fault("die", "call", "Reconciler.*", chance.randrange(2, 8)),
            Fault("die", "call", "LibvirtHypervisor.*", chance.randrange(8, 30)),
            Fault("die", "os.remove", "*", chance.randrange(1, 10)),
            Fault("die", "os.rmdir", "*", chance.randrange(1, 3)),
        )
    )
    told = _run_with(oracle, machine, (failing, dying), Options.some(chance))
    made = oracle.house.learn(machine, copies, told)
    return f"{told} ({len(made)} point)"


def backup_failing(oracle: Oracle, chance: Random) -> str:
    """Have a backup meet an error of the file system or the store."""
    machine = some(oracle.house, chance)
    copies = oracle.house.copies(machine)
    kind = chance.choice(("fsync", "os.rename", "os.mkdir", "open", "step"))
    name = {"step": chance.choice(STEPS), "open": "*store/*"}.get(kind, "*")
    fault = Fault("fail" if kind == "step" else "eio", kind, name, chance.randrange(1, 12))
    told = _run_with(oracle, machine, (fault,), Options.some(chance))
    made = oracle.house.learn(machine, copies, told)
    return f"{told} ({len(made)} point)"


def run_to_death(oracle: Oracle, machine: Machine, chance: Random) -> str:
    """Run a backup that is killed at some moment, if it gets there. Returns words."""
    return _run_with(oracle, machine, (_some_death(chance),), Options.some(chance))


def _some_death(chance: Random) -> Fault:
    kind = chance.choice(("step", "step", "progress", "call", "return", "fsync", *FILE_EVENTS))
    name, most = "*", 12
    if kind == "step":
        name, most = chance.choice(STEPS), 1
    elif kind == "progress":
        most = 6
    elif kind in {"call", "return"}:
        name, most = chance.choice(_CALLS), 30
    elif kind == "open":
        name, most = chance.choice((("*store/*", 60), ("*disks/*", 20), ("*-inc*", 12)))
    return Fault("die", kind, name, chance.randrange(1, most + 1))


def _run_with(oracle: Oracle, machine: Machine, faults: Sequence[Fault], options: Options) -> str:
    house = oracle.house
    house.stats["backups begun"] += 1
    arguments = ["backup", *options.arguments, "--json", "--", machine.uuid]
    with house.start(*arguments, faults=faults) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except BaseException:
            process.kill()
            raise
    deaths = " then ".join(map(str, faults))
    words = f"backup of {machine.vm.name} ({machine.power}, {options}) to {deaths}"
    if "Traceback" in err:
        raise Broken("traceback", f"{words}: {err}")
    if process.returncode == -signal.SIGKILL:
        house.stats["kills"] += 1
        return f"{words}: killed"
    if process.returncode in _OK:
        house.stats["backups succeeded"] += 1
        made = _read(out)
        return f"{words}: {'unchanged' if made['unchanged'] else 'made'} {made['point']}"
    failing = any(fault.action != "die" for fault in faults)
    if not failing and not house.backups.full:
        raise Broken("next backup", f"{words}: {process.returncode} {err}")
    return f"{words}: failed ({err.strip()})"


def _read(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    return found


def must_have(told: str, made: Sequence[Reference]) -> None:
    """What was said to be committed is there."""
    said = ": made " in told or any(f"to die at 1. step {s}: killed" in told for s in COMMITTED)
    if said and not made and "(shutoff" not in told:
        raise Broken("lost point", f"{told}, but it is not there")
