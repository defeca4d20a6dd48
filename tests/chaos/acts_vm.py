"""What guests and their owners do."""

from dataclasses import replace
from random import Random

from tests.chaos.house import House
from tests.chaos.machine import KIB, MIB, OFF, PAUSED, RUNNING, Machine, qemu_img, refusing
from tests.chaos.oracle import Oracle
from tests.chaos.words import Skip
from tests.support.libvirt_host import LibvirtRefused
from tests.support.qemu_img import named
from tests.support.vm import DiskSpec

_LARGEST, _SMALLEST = 32 * MIB, 2 * MIB
_MOST_DISKS = 3


def some(house: House, chance: Random, *, on: bool | None = None) -> Machine:
    """Choose a VM, or skip the action if none is in this state."""
    fitting = [machine for machine in house.machines if on is None or machine.on is on]
    if not fitting:
        raise Skip
    return chance.choice(fitting)


def write(oracle: Oracle, chance: Random) -> str:
    """Let a guest write."""
    machine = some(oracle.house, chance, on=True)
    return f"{machine.vm.name} writes: {write_some(machine, chance)}"


def write_some(machine: Machine, chance: Random) -> str:
    """Write, zero and discard at random places; every one must work."""
    done = []
    for _ in range(chance.randrange(1, 6)):
        target = machine.any_disk(chance)
        size = machine.vm.disks[target].size // 512 * 512
        length = min(size, chance.choice((512, 4 * KIB, 64 * KIB, 200 * KIB, MIB)))
        step = chance.choice((512, 4 * KIB, 64 * KIB))
        offset = chance.randrange(0, size - length + 1, step)
        kind = chance.choice(("pattern", "bytes", "bytes", "zero", "discard", "flush"))
        if kind == "pattern":
            machine.vm.write(target, offset, length, chance.randrange(1, 256))
        elif kind == "bytes":
            machine.vm.write_bytes(target, offset, chance.randbytes(length))
        elif kind == "zero":
            machine.vm.zero(target, offset, length)
        elif kind == "discard":
            machine.vm.discard(target, offset, length)
        else:
            machine.vm.flush(target)
        done.append(f"{kind} {target} {offset}+{length}")
    return ", ".join(done)


def start(oracle: Oracle, chance: Random) -> str:
    """Start a VM that is off."""
    machine = some(oracle.house, chance, on=False)
    machine.start(running=chance.random() < 0.15)
    return f"{machine.vm.name} is started, {machine.power}"


def stop(oracle: Oracle, chance: Random) -> str:
    """Switch a VM off; its QEMU ends in good order."""
    machine = some(oracle.house, chance, on=True)
    machine.vm.stop()
    machine.power = OFF
    return f"{machine.vm.name} is switched off"


def kill_qemu(oracle: Oracle, chance: Random) -> str:
    """Kill a QEMU."""
    machine = some(oracle.house, chance, on=True)
    machine.vm.kill()
    machine.power = OFF
    return f"the QEMU of {machine.vm.name} is killed"


def pause(oracle: Oracle, chance: Random) -> str:
    """Pause a VM that runs."""
    machine = some(oracle.house, chance, on=True)
    if machine.power != RUNNING:
        raise Skip
    machine.vm.suspend()
    machine.power = PAUSED
    return f"{machine.vm.name} is paused"


def resume(oracle: Oracle, chance: Random) -> str:
    """Let a VM run that is paused."""
    machine = some(oracle.house, chance, on=True)
    if machine.power != PAUSED or chance.random() < 0.5:  # a processor is dear
        raise Skip
    machine.vm.resume()
    machine.power = RUNNING
    return f"{machine.vm.name} runs"


def rename(oracle: Oracle, chance: Random) -> str:
    """Give a VM another name."""
    machine = some(oracle.house, chance, on=False)
    machine.renamed += 1
    old, new = machine.vm.name, f"{machine.vm.name.split(' #')[0]} #{machine.renamed}"
    machine.host.call("rename", old, new)
    machine.vm.name = new
    return f"{old} is called {new}"


def add_disk(oracle: Oracle, chance: Random) -> str:
    """Give a VM another disk."""
    machine = some(oracle.house, chance, on=False)
    free = [t for t in ("vda", "vdb", "vdc", "vdd") if t not in machine.vm.disks]
    if len(machine.vm.disks) >= _MOST_DISKS:
        raise Skip
    clusters = chance.choice((None, 4 * KIB))
    size = chance.randrange(4, 16) * MIB + chance.choice((0, 512, 4 * KIB))
    spec = DiskSpec(free[0], size=size, cluster_size=clusters)
    if chance.random() < 0.3:
        spec = replace(spec, format="raw", cluster_size=None)
    path = machine.new_image(free[0], spec)
    machine.use(free[0], path, spec)
    machine.vm.define_again()
    oracle.house.disks.sync()
    return f"{machine.vm.name} gets a disk {free[0]} ({spec.format}, {size})"


def remove_disk(oracle: Oracle, chance: Random) -> str:
    """Take a disk from a VM; its image stays or is deleted."""
    machine = some(oracle.house, chance, on=False)
    if len(machine.vm.disks) == 1:
        raise Skip
    target = machine.any_disk(chance)
    path = machine.vm.paths.pop(target)
    del machine.vm.disks[target]
    machine.below.pop(target, None)
    machine.kept.pop(target, None)
    machine.vm.define_again()
    if chance.random() < 0.5:
        path.unlink()
        oracle.house.disks.sync()
    return f"{machine.vm.name} loses its disk {target}"


def grow(oracle: Oracle, chance: Random) -> str:
    """Make a disk larger, live or off."""
    return _resize(oracle.house, chance, larger=True)


def shrink(oracle: Oracle, chance: Random) -> str:
    """Make a disk smaller, live or off."""
    return _resize(oracle.house, chance, larger=False)


def _resize(house: House, chance: Random, *, larger: bool) -> str:
    machine = some(house, chance)
    machine.need_no_job()
    target = machine.any_disk(chance)
    spec = machine.vm.disks[target]
    low, high = (spec.size + 512, _LARGEST) if larger else (_SMALLEST, spec.size)
    if high - low < MIB:
        raise Skip
    size = chance.randrange(low // 512 * 512, high, chance.choice((512, 64 * KIB)))
    if machine.on:
        with refusing():
            try:
                machine.host.call("resize", machine.vm.name, target, size)
            except LibvirtRefused as error:
                raise Skip from error
    else:
        how = () if larger else ("--shrink",)
        image = named(machine.vm.paths[target], spec.format)
        qemu_img("resize", "-q", *how, image, str(size))
        house.disks.sync()
    machine.measure(target)
    state = "live" if machine.on else "while off"
    return f"{machine.vm.name}'s {target} is resized {state} from {spec.size} to {size}"
