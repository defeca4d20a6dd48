"""What is done to images beneath a VM: snapshots, copies put back, conversions."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.sax.saxutils import quoteattr

from tests.chaos.acts_vm import some
from tests.chaos.machine import Machine, qemu_img
from tests.chaos.oracle import Oracle
from tests.chaos.words import Broken, Skip
from tests.support.libvirt_host import LibvirtRefused
from tests.support.qemu_img import named, run
from vm_babysitter.domain.errors import NotConverted

_DISK_ONLY_NO_METADATA = 16 | 4
_MOST_LAYERS = 3


def snapshot(oracle: Oracle, chance: Random) -> str:
    """Put an overlay on a disk, live or off."""
    machine = some(oracle.house, chance)
    machine.need_no_job()
    target = machine.any_disk(chance)
    below = machine.below.setdefault(target, [])
    if len(below) >= _MOST_LAYERS - 1 or machine.kept.get(target):
        raise Skip
    base, spec = machine.vm.paths[target], machine.vm.disks[target]
    machine.layers_made += 1
    overlay = machine.folder / f"{target}.S{machine.layers_made}qcow2"
    if machine.on:
        disks = "".join(_snapshot_of(t, target, overlay) for t in machine.vm.disks)
        text = f"<domainsnapshot><disks>{disks}</disks></domainsnapshot>"
        machine.host.call("snapshot", machine.vm.name, text, _DISK_ONLY_NO_METADATA)
    else:
        qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", spec.format, str(overlay))
    below.append((base, spec))
    machine.use(target, overlay, replace(spec, format="qcow2"))
    if not machine.on:
        machine.vm.define_again()
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} gets a snapshot layer {_state(machine)}"


def _snapshot_of(target: str, wanted: str, overlay: Path) -> str:
    if target != wanted:
        return f"<disk name='{target}' snapshot='no'/>"
    return (
        f"<disk name='{target}' snapshot='external'><driver type='qcow2'/>"
        f"<source file={quoteattr(str(overlay))}/></disk>"
    )


def commit(oracle: Oracle, chance: Random) -> str:
    """Merge the layers of a disk downwards: all of them live, the top one while off."""
    machine, target = _layered(oracle, chance)
    below, top = machine.below[target], machine.vm.paths[target]
    lowest = 0 if machine.on else len(below) - 1
    if machine.on:
        try:
            machine.host.call("commit", machine.vm.name, target)
            machine.host.call("pivot", machine.vm.name, target)
        except LibvirtRefused as error:
            raise Skip from error
    else:
        qemu_img("commit", "-q", "-d", "-f", "qcow2", str(top))
    (base, spec), merged = below[lowest], [top, *(path for path, _ in below[lowest + 1 :])]
    del below[lowest:]
    machine.use(target, base, replace(spec, target=target))
    if not machine.on:
        machine.vm.define_again()
    for path in merged:
        path.unlink()
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} is merged into {base.name} {_state(machine)}"


def pull(oracle: Oracle, chance: Random) -> str:
    """Copy all lower layers of a disk into the top one, live."""
    machine, target = _layered(oracle, chance)
    machine.need(on=True)
    try:
        machine.host.call("begin_pull", machine.vm.name, target, 0)
    except LibvirtRefused as error:
        raise Skip from error
    deadline = time.monotonic() + 30
    while machine.host.call("block_job", machine.vm.name, target):
        if time.monotonic() > deadline:
            raise Broken("world", "a block pull does not end")
        time.sleep(0.02)
    for path, _ in machine.below.pop(target):
        path.unlink()
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} is pulled into its top layer"


def revert(oracle: Oracle, chance: Random) -> str:
    """Throw the top layer of a disk away, while off."""
    machine, target = _layered(oracle, chance)
    machine.need(on=False)
    top = machine.vm.paths[target]
    base, spec = machine.below[target].pop()
    machine.use(target, base, replace(spec, target=target))
    machine.vm.define_again()
    top.unlink()
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} is reverted to {base.name}"


def _layered(oracle: Oracle, chance: Random) -> tuple[Machine, str]:
    found = [(m, t) for m in oracle.house.machines for t, below in m.below.items() if below]
    if not found:
        raise Skip
    machine, target = chance.choice(sorted(found, key=lambda pair: (pair[0].vm.name, pair[1])))
    machine.need_no_job()
    return machine, target


def keep_inside(oracle: Oracle, chance: Random) -> str:
    """Make an internal snapshot of an image of a VM that is off."""
    machine = some(oracle.house, chance, on=False)
    target = machine.any_disk(chance, format="qcow2")
    machine.plain(target)
    kept = machine.kept.setdefault(target, [])
    name = f"moment {len(kept)}"
    qemu_img("snapshot", "-c", name, str(machine.vm.paths[target]))
    kept.append(name)
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} gets an internal snapshot"


def go_back_inside(oracle: Oracle, chance: Random) -> str:
    """Go back to an internal snapshot; bitmaps may forbid it, before the next backup."""
    machine, target = _with_snapshots(oracle, chance)
    name = chance.choice(machine.kept[target])
    qemu_img("snapshot", "-a", name, str(machine.vm.paths[target]))
    machine.measure(target)
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} goes back to its internal snapshot {name!r}"


def drop_inside(oracle: Oracle, chance: Random) -> str:
    """Remove all internal snapshots of an image."""
    machine, target = _with_snapshots(oracle, chance)
    for name in machine.kept.pop(target):
        qemu_img("snapshot", "-d", name, str(machine.vm.paths[target]))
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} loses its internal snapshots"


def _with_snapshots(oracle: Oracle, chance: Random) -> tuple[Machine, str]:
    machine = some(oracle.house, chance, on=False)
    targets = sorted(target for target, kept in machine.kept.items() if kept)
    if not targets:
        raise Skip
    return machine, chance.choice(targets)


def copy(oracle: Oracle, chance: Random) -> str:
    """Keep a copy of an image of a VM that is off, as people and storage snapshots do."""
    machine = some(oracle.house, chance, on=False)
    target = machine.any_disk(chance)
    machine.plain(target)
    path = machine.vm.paths[target]
    spare = oracle.house.spares / f"{machine.uuid} {target}"
    _copy(path, spare)
    machine.earlier[target] = (machine.vm.disks[target], path, spare)
    return f"{machine.vm.name}'s {target} is copied aside"


def put_back(oracle: Oracle, chance: Random) -> str:
    """Put an earlier copy back: over the file, as a new file, or by renaming."""
    machine = some(oracle.house, chance, on=False)
    targets = sorted(t for t in machine.earlier if t in machine.vm.disks)
    if not targets:
        raise Skip
    target = chance.choice(targets)
    machine.plain(target)
    spec, path, spare = machine.earlier[target]
    how = chance.choice(("over it", "as a new file", "by renaming"))
    if how == "as a new file":
        path.unlink(missing_ok=True)
    if how == "by renaming":
        _copy(spare, path.with_name(f"{path.name}.new"))
        path.with_name(f"{path.name}.new").rename(path)
    else:
        _copy(spare, path)
    machine.use(target, path, spec)
    machine.kept.pop(target, None)
    machine.vm.define_again()
    oracle.house.disks.sync()
    return f"{machine.vm.name}'s {target} is what it was, put back {how}"


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


def convert(oracle: Oracle, chance: Random) -> str:
    """Turn a raw disk into qcow2 by our command."""
    machine = some(oracle.house, chance, on=False)
    target = machine.any_disk(chance, format="raw")
    machine.plain(target)
    old, spec = machine.vm.paths[target], machine.vm.disks[target]
    try:
        with oracle.house.app().convert() as (there, _):
            there.run(machine.uuid, target)
    except NotConverted as error:
        raise Skip from error
    path, format = machine.defined_source(target)
    run("qemu-img", "compare", named(path, format), named(old, "raw"))
    machine.use(target, path, replace(spec, format=format))
    oracle.house.stats["conversions"] += 1
    return f"{machine.vm.name}'s {target} is converted to {format}"


def convert_back(oracle: Oracle, chance: Random) -> str:
    """Give a disk its raw image back by our command, or delete that image."""
    machine = some(oracle.house, chance, on=False)
    target = machine.any_disk(chance, format="qcow2")
    machine.plain(target)
    spec = machine.vm.disks[target]
    try:
        with oracle.house.app().convert() as (_, back):
            back.run(machine.uuid, target, lose_changes=True)
    except NotConverted as error:
        raise Skip from error
    path, format = machine.defined_source(target)
    machine.use(target, path, replace(spec, format=format))
    machine.kept.pop(target, None)
    oracle.house.stats["conversions"] += 1
    return f"{machine.vm.name}'s {target} is {format} again"


def _state(machine: Machine) -> str:
    return "live" if machine.on else "while off"
