"""What is asked of our program, and what happens to it meanwhile."""

import filecmp
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.acts_vm import some, write_some
from tests.chaos.house import SECONDS, Disks, Reference
from tests.chaos.machine import OFF, Machine
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken, Skip
from tests.support.faulty import FILE_EVENTS, Fault
from tests.support.libvirt_host import LibvirtRefused
from vm_babysitter.domain.errors import (
    BabysitterError,
    Cancelled,
    NotEnoughSpace,
    SpaceRunningOut,
    StoreFailed,
)
from vm_babysitter.engine.backup import BackedUp
from vm_babysitter.engine.cancel import Cancel

NO_SPACE = (NotEnoughSpace, SpaceRunningOut, StoreFailed)
_OK = (0, 3)
STEPS = (
    *("look", "plan", "adopted", "mark", "probe", "begin", "begun", "copy", "copied vda"),
    *("save", "confirm", "commit", "committed", "ended", "tidy", "done"),
)
COMMITTED = frozenset({"committed", "ended", "tidy", "done"})
_CALLS = ("LibvirtHypervisor.*", "virDomain.*", "LocalStore.*", "Reconciler.*", "Workspace.*")


@dataclass
class Options:
    """How a backup is asked for."""

    full: bool = False
    compress: bool = False
    track_snapshots: bool = False
    reread_runs: int = 30

    @classmethod
    def some(cls, chance: Random) -> "Options":
        return cls(
            full=chance.random() < 0.06,
            compress=chance.random() < 0.3,
            track_snapshots=chance.random() < 0.1,
            reread_runs=chance.choice((0, 1, 2, 5, 30)),
        )

    @property
    def arguments(self) -> list[str]:
        flags = {
            "--full": self.full,
            "--compress": self.compress,
            "--track-internal-snapshots": self.track_snapshots,
        }
        return [*(f for f, on in flags.items() if on), "--reread-runs", str(self.reread_runs)]

    def __str__(self) -> str:
        return " ".join(self.arguments)


@dataclass
class Acting:
    """An observer that does something once, when a step or some progress is reached."""

    moment: str
    """Name of a step, or ``progress``."""
    nth: int
    do: Callable[[], None]
    happened: bool = field(default=False)

    def step(self, name: str) -> None:
        self._reached(name)

    def progress(self, done: int, total: int) -> None:
        self._reached("progress")

    def note(self, text: str) -> None:
        """Ignore it."""

    def _reached(self, name: str) -> None:
        if name == self.moment and not self.happened:
            self.nth -= 1
            if self.nth <= 0:
                self.happened = True
                self.do()


def backup(oracle: Oracle, chance: Random) -> str:
    """Make a backup, which must succeed unless there is no space."""
    machine, options = some(oracle.house, chance), Options.some(chance)
    return plain_backup(oracle, machine, options)


def plain_backup(oracle: Oracle, machine: Machine, options: Options) -> str:
    """Make a backup, which must succeed unless there is no space."""
    before = oracle.house.copies(machine)
    words = f"backup of {machine.vm.name} ({machine.power}, {options})"
    try:
        made = _run(oracle, machine, options)
    except BabysitterError as error:
        return words + _without_space(oracle, machine, before, error)
    return words + _succeeded(oracle, machine, made, before)


def _without_space(oracle: Oracle, machine: Machine, before: Disks, error: BabysitterError) -> str:
    if not (oracle.house.backups.full and isinstance(error, NO_SPACE)):
        raise Broken("next backup", f"{type(error).__name__}: {error}") from error
    made = oracle.house.learn(machine, before, "a backup without space")
    oracle.house.stats["backups without space"] += 1
    return f" fails: {error}" + (f" after {made[0].name}" if made else "")


def _run(
    oracle: Oracle,
    machine: Machine,
    options: Options,
    observer: Acting | None = None,
    cancel: Cancel | None = None,
) -> BackedUp:
    oracle.house.stats["backups begun"] += 1
    with oracle.house.app(observer, cancel).backup(compress=options.compress) as work:
        return work.run(
            machine.uuid,
            force_full=options.full,
            reread_runs=options.reread_runs,
            track_snapshots=options.track_snapshots,
        )


def _succeeded(oracle: Oracle, machine: Machine, made: BackedUp, copies: Disks) -> str:
    """Note what a backup made, and look for leftovers."""
    house = oracle.house
    house.stats["backups succeeded"] += 1
    if made.left and not house.backups.full:
        raise Broken("left to do", made.left)
    key = (machine.uuid, made.chain, made.point.seq, made.point.nonce)
    if made.unchanged:
        _is_current(oracle, house.references[key], copies)
        if house.learn(machine, copies, "a backup that found nothing to do"):
            raise Broken("new point", "a backup that found nothing to do made one")
        house.stats["unchanged"] += 1
        return f": unchanged since {made.chain}/{made.point.seq:06d}"
    how = ", ".join(f"{d.target} {d.method}" for d in made.point.disks)
    for disk in made.point.disks:
        house.stats[f"disks by {disk.method}"] += 1
    (reference,) = house.learn(machine, copies, how) or (None,)
    if reference is None or reference.key != key:
        raise Broken("new point", f"{key} was said to be made, but {reference}")
    if not house.backups.full:
        oracle.tidy(machine)
    parent = "-" if made.point.parent is None else f"{made.point.parent:06d}"
    warned = f"; {made.point.warnings}" if made.point.warnings else ""
    return f": {reference.name} on {parent} by {how}{warned}"


def _is_current(oracle: Oracle, reference: Reference, copies: Disks) -> None:
    """A VM that is called unchanged has what the point holds."""
    for target, copy in copies.items():
        oracle.house.stats["comparisons"] += 1
        if not filecmp.cmp(copy, reference.disks[target], shallow=False):
            raise Broken("unchanged", f"{target} is not what it was at {reference.name}")


def backup_while_written(oracle: Oracle, chance: Random) -> str:
    """Make a backup while the guest writes: it is of the moment of its beginning."""
    machine, options = some(oracle.house, chance, on=True), Options.some(chance)
    before = oracle.house.copies(machine)
    moment = chance.choice(("begun", "copy", "progress", "progress", "copied vda", "save"))
    written: list[str] = []
    acting = Acting(
        moment, chance.randrange(1, 4), lambda: written.append(write_some(machine, chance))
    )
    words = f"backup of {machine.vm.name} ({options}), written to at {moment}"
    try:
        made = _run(oracle, machine, options, acting)
    except BabysitterError as error:
        return words + _without_space(oracle, machine, before, error)
    oracle.house.stats["written meanwhile"] += acting.happened
    return words + f" {written}" + _succeeded(oracle, machine, made, before)


def backup_disturbed(oracle: Oracle, chance: Random) -> str:
    """Make a backup while its VM or libvirt goes away or comes up; it may fail."""
    machine, options = some(oracle.house, chance), Options.some(chance)
    before = oracle.house.copies(machine)
    name, disturb = chance.choice(_DISTURBANCES)
    moment = chance.choice((*STEPS[:-2], "progress", "progress"))
    acting = Acting(moment, chance.randrange(1, 4), lambda: disturb(machine))
    words = f"backup of {machine.vm.name} ({machine.power}, {options}) while {name} at {moment}"
    try:
        made = _run(oracle, machine, options, acting)
    except BabysitterError as error:
        oracle.house.stats["backups disturbed"] += acting.happened
        if not acting.happened and not oracle.house.backups.full:
            raise Broken("next backup", f"{type(error).__name__}: {error}") from error
        _settle(machine)
        new = oracle.house.learn(machine, before, f"a backup while {name}")
        return f"{words} fails: {error}" + (f" after {new[0].name}" if new else "")
    oracle.house.stats["backups disturbed"] += acting.happened
    _settle(machine)
    after = oracle.house.copies(machine) if acting.happened and made.point.off else before
    if made.left:
        new = oracle.house.learn(machine, after, f"a backup while {name}")
        return f"{words}, {made.left} is left" + (f" after {new[0].name}" if new else "")
    return words + _succeeded(oracle, machine, made, after)


def _settle(machine: Machine) -> None:
    """Have libvirtd again, whatever was done."""
    try:
        machine.host.call("ping")
    except (RuntimeError, LibvirtRefused):
        machine.host.restart()


def _kill_qemu(machine: Machine) -> None:
    if machine.on:
        machine.power = OFF
        machine.vm.kill()


def _stop(machine: Machine) -> None:
    if machine.on:
        machine.power = OFF
        machine.vm.stop()


def _start(machine: Machine) -> None:
    if not machine.on:
        machine.start(running=False)


def _restart_libvirtd(machine: Machine) -> None:
    machine.host.restart()


def _kill_libvirtd(machine: Machine) -> None:
    machine.host.kill()


_DISTURBANCES: tuple[tuple[str, Callable[[Machine], None]], ...] = (
    ("its QEMU is killed", _kill_qemu),
    ("it is switched off", _stop),
    ("it is started", _start),
    ("it is started", _start),
    ("libvirtd is restarted", _restart_libvirtd),
    ("libvirtd is killed", _kill_libvirtd),
)


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


def backup_stopped(oracle: Oracle, chance: Random) -> str:
    """Ask a backup to stop."""
    machine, options = some(oracle.house, chance), Options.some(chance)
    before = oracle.house.copies(machine)
    cancel = Cancel()
    moment = chance.choice((*STEPS, "progress"))
    acting = Acting(moment, 1, cancel.request)
    words = f"backup of {machine.vm.name} ({machine.power}, {options}) is asked to stop at {moment}"
    try:
        made = _run(oracle, machine, options, acting, cancel)
    except Cancelled:
        oracle.house.stats["backups stopped"] += 1
        if oracle.house.learn(machine, before, words):
            raise Broken("stopped", f"{words}, but made a point") from None
        oracle.tidy(machine)
        return f"{words} and does"
    except BabysitterError as error:
        return words + _without_space(oracle, machine, before, error)
    return words + _succeeded(oracle, machine, made, before)


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


def verify(oracle: Oracle, chance: Random) -> str:
    """Verify all points of a VM: the good ones are good."""
    machine = some(oracle.house, chance)
    points = [r for r in oracle.house.present() if r.key[0] == machine.uuid]
    if not points:
        raise Skip
    structure = chance.random() < 0.3
    try:
        results = oracle.house.app().verify().all(machine.uuid, structure_only=structure)
    except BabysitterError as error:
        if any(not oracle.house.touched(point) for point in points):
            raise Broken("verify", str(error)) from error
        return f"verify of {machine.vm.name} fails: {error}"
    found = {result.point: result for result in results}
    bad = 0
    for point in points:
        result = found.get(point.name)
        bad += result is None or not result.good
        if oracle.house.touched(point):
            continue
        if result is None or not result.good:
            raise Broken("good point called bad", f"{point.name}: {result}")
    return f"verify of {machine.vm.name}: {bad} of {len(points)} are bad"


def status(oracle: Oracle, chance: Random) -> str:
    """Have a VM diagnosed."""
    machine = some(oracle.house, chance)
    if not oracle.house.present():
        raise Skip
    return f"{machine.vm.name} is diagnosed: {oracle.diagnosed(machine).diagnosis.health}"


def backup_as_planned(oracle: Oracle, chance: Random) -> str:
    """Ask for the plan, then make the backup, which does just that."""
    machine = some(oracle.house, chance)
    if not oracle.house.present() or oracle.house.backups.full:
        raise Skip
    found = oracle.diagnosed(machine)
    if found.error is not None:
        raise Broken("plan", f"{machine.vm.name}: {found.error}")
    words = plain_backup(oracle, machine, Options())
    if (found.current is not None) != (": unchanged since" in words):
        if found.planned is None or not found.planned.plan.parent or machine.on:
            raise Broken("plan", f"unchanged: {found.current is not None}, but {words}")
        return words  # planned to be read, and nothing new was found
    if found.planned is not None:
        plan = found.planned.plan
        parent = "-" if plan.parent is None else f"{plan.parent.seq:06d}"
        how = ", ".join(f"{disk.target} {disk.method}" for disk in plan.disks)
        if f" on {parent} by {how}" not in words:
            raise Broken("plan", f"on {parent} by {how}, but {words}")
    return f"as planned: {words}"


def repair(oracle: Oracle, chance: Random) -> str:
    """Have the backups of a VM repaired without a new one."""
    machine = some(oracle.house, chance)
    if not oracle.house.present():
        raise Skip
    try:
        with oracle.house.app().repair() as work:
            done = work.run(machine.uuid)
    except BabysitterError as error:
        if oracle.house.backups.full and isinstance(error, NO_SPACE):
            return f"repair of {machine.vm.name} fails: {error}"
        raise Broken("repair", f"{type(error).__name__}: {error}") from error
    if not oracle.house.backups.full:
        oracle.tidy(machine)
    steps = [step.kind for step in done.done]
    oracle.house.stats["repairs"] += bool(steps)
    return f"repair of {machine.vm.name}: {steps}, left {[s.kind for s in done.left]}"
