"""What is asked of our program, and what happens to it meanwhile."""

import filecmp
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.chaos.acts_vm import some, write_some
from tests.chaos.house import Disks, Reference
from tests.chaos.machine import OFF, Machine
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken
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
STEPS = (
    *("look", "plan", "adopted", "mark", "probe", "begin", "begun", "copy", "copied vda"),
    *("save", "confirm", "commit", "committed", "ended", "tidy", "done"),
)


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
    after: str = ""
    """Name of a step before which nothing counts."""
    happened: bool = field(default=False)

    def step(self, name: str) -> None:
        self._reached(name)

    def progress(self, done: int, total: int) -> None:
        self._reached("progress")

    def note(self, text: str) -> None:
        """Ignore it."""

    def _reached(self, name: str) -> None:
        if name == self.after:
            self.after = ""
        if name == self.moment and not self.happened and not self.after:
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
        oracle.tidy(machine, backed_up=not made.point.off)
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
    nth = chance.randrange(1, 4) if moment == "progress" else 1
    # What is read before the job begins, as after a crash, tells of its progress as well.
    acting = Acting(moment, nth, lambda: written.append(write_some(machine, chance)), "begun")
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
        oracle.tidy(machine, backed_up=False)
        return f"{words} and does"
    except BabysitterError as error:
        return words + _without_space(oracle, machine, before, error)
    return words + _succeeded(oracle, machine, made, before)
