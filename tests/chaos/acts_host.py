"""What happens to the host: power, reboots, its clock, its space."""

from datetime import timedelta
from random import Random

from tests.chaos import acts_killed
from tests.chaos.acts_vm import some
from tests.chaos.machine import KIB, MIB
from tests.chaos.oracle import Oracle
from tests.chaos.words import Skip


def cut_power(oracle: Oracle, _chance: Random) -> str:
    """Lose everything that was not on a disk."""
    oracle.house.stats["power cuts"] += 1
    oracle.house.power_cut()
    oracle.forget()
    return "the power fails"


def cut_power_in_backup(oracle: Oracle, chance: Random) -> str:
    """Lose power while a backup is made."""
    machine = some(oracle.house, chance)
    copies = oracle.house.copies(machine)
    told = acts_killed.run_to_death(oracle, machine, chance)
    oracle.house.stats["power cuts"] += 1
    oracle.house.power_cut()
    oracle.forget()
    made = oracle.house.learn(machine, copies, f"{told}, and the power failed")
    acts_killed.must_have(told, made)
    return f"{told}, and the power fails ({len(made)} point)"


def reboot(oracle: Oracle, chance: Random) -> str:
    """Shut the host down and start it again; VMs are switched off before, or not."""
    for machine in oracle.house.machines:
        if machine.on and chance.random() < 0.5:
            machine.vm.stop()
    oracle.house.reboot()
    oracle.forget()
    return "the host reboots"


def restart_libvirtd(oracle: Oracle, _chance: Random) -> str:
    """Kill libvirtd and start it again; VMs go on."""
    oracle.house.host.restart()
    return "libvirtd is restarted"


def set_clock(oracle: Oracle, chance: Random) -> str:
    """Have our clock jump."""
    hours = chance.choice((-3, -1, 1, 24, 72, 240, -30))
    oracle.house.shift += timedelta(hours=hours)
    return f"the clock jumps by {hours} hours"


def fill_store(oracle: Oracle, chance: Random) -> str:
    """Leave next to no space where the backups are."""
    if oracle.house.backups.full:
        raise Skip
    left = chance.choice((0, 64 * KIB, 600 * KIB, 2 * MIB))
    oracle.house.backups.fill(left)
    oracle.house.sync()
    return f"the disk of the backups fills up, {left} bytes are left"


def free_store(oracle: Oracle, _chance: Random) -> str:
    """Give the space back."""
    if not oracle.house.backups.full:
        raise Skip
    oracle.house.backups.free()
    return "the disk of the backups has space again"
