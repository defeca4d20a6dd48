"""Our program looks at backups, says what it would do, and repairs them."""

from random import Random

from tests.chaos.acts_ours import NO_SPACE, Options, plain_backup
from tests.chaos.acts_vm import some
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken, Skip
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.repair_plan import RepairPolicy


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
    policy = RepairPolicy(remove_lost=chance.random() < 0.3)
    try:
        with oracle.house.app().repair() as work:
            done = work.run(machine.uuid, policy)
    except BabysitterError as error:
        if oracle.house.backups.full and isinstance(error, NO_SPACE):
            return f"repair of {machine.vm.name} fails: {error}"
        raise Broken("repair", f"{type(error).__name__}: {error}") from error
    removed = _removed(oracle) if policy.remove_lost else 0
    if not oracle.house.backups.full:
        oracle.tidy(machine, backed_up=False)
    steps = [step.kind for step in done.done]
    oracle.house.stats["repairs"] += bool(steps)
    left = [step.kind for step in done.left]
    return f"repair of {machine.vm.name}: {steps}, left {left}, {removed} points removed"


def _removed(oracle: Oracle) -> int:
    """Note points that were removed by consent: only such as were touched may be."""
    house, removed = oracle.house, 0
    for reference in house.present():
        home = house.store / reference.directory
        away = house.renamed.get(reference.directory, reference.directory)
        if home.is_dir() or (house.store / away).is_dir():
            continue
        if not house.touched(reference):
            raise Broken("lost point", f"{reference.name} was removed")
        house.gone.add(reference.key)
        removed += 1
    house.stats["points removed by consent"] += removed
    return removed
