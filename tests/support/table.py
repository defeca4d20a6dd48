"""One VM that the cases of the tables of conditions and disasters use one after the other.

A case begins with a VM that is on, a chain with two points at least, and change tracking in good
order; what it leaves behind is put right before the next one. Cases have QEMU alone read the
points; every few cases the newest one is also verified and restored by the product.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec, TestVm
from tests.support.world import World
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.findings import Weight
from vm_babysitter.domain.point import Point

NAME = "- the 'VM' of & the table"
_MOST_POINTS = 6
"""Points after which a new store is begun: more only take longer."""
DISKS = (DiskSpec("vda", size=8 * MIB), DiskSpec("vdb", size=6 * MIB))


@dataclass
class Table:
    """The VM, made anew where a case has failed."""

    host: PrivateLibvirtd
    folder: Path
    world: World | None = None
    count: int = 0
    failed: bool = field(default=False)

    @contextmanager
    def case(self, session: pytest.Session) -> Iterator[World]:
        """The world for one test; if that fails, the next one gets another."""
        failed = session.testsfailed
        yield self.enter()
        self.failed = session.testsfailed > failed

    def enter(self) -> World:
        """Return the world, fit for the next case."""
        if self.world is None or self.failed:
            self.close()
            self.count += 1
            place = self.folder / f"table {self.count}"
            self.world = World(self.host, place, NAME, disks=DISKS)
        self.failed = True
        if self.world.vm.state == "shutoff":
            self.world.boot()
        chains = self.world.chains()
        spoilt = any(chain.broken or chain.unreadable for chain, _ in chains)
        if spoilt or sum(len(names) for _, names in chains) > _MOST_POINTS:
            self.world.assert_restores(newest(self.world))
            shutil.rmtree(self.world.store)
            self.world.store.mkdir()
            self.world.references.clear()
        self._remove_strange_bitmaps(self.world)
        if not self.world.references:
            self.world.backup_here()
        self.world.change()
        self.world.backup_here()
        self.world.change()
        self.world.references = dict(list(self.world.references.items())[-2:])
        return self.world

    def close(self) -> None:
        if self.world is not None:
            self.world.close()
            self.world = None

    def _remove_strange_bitmaps(self, world: World) -> None:
        """Remove what chains that are no more, or other programs, have left in the images."""
        known = {f"vmb-{chain.id[:8]}-" for chain, _ in world.chains()}
        for target, names in world.bitmaps().items():
            for name in names:
                if not name.startswith(tuple(known)):
                    remove_bitmap(world, target, name)


def remove_bitmap(world: World, target: str, name: str) -> None:
    """Remove a bitmap from a disk by hand, on or off."""
    if world.vm.state == "shutoff":
        run("qemu-img", "bitmap", "--remove", named(world.vm.paths[target]), name)
        return
    with world.vm.monitor() as qmp:
        nodes = cast(list[dict[str, Any]], qmp.execute("query-named-block-nodes"))
        for node in nodes:
            ours = node["drv"] == "qcow2" and str(world.vm.paths[target]) in node["file"]
            if ours and name in {b["name"] for b in node.get("dirty-bitmaps", [])}:
                qmp.execute("block-dirty-bitmap-remove", node=node["node-name"], name=name)


def goes_on(world: World, *expected: str, parent: str = "", finds: str = "") -> Point:
    """The next backup is an increment by these methods, exact, and harms nothing.

    It builds on the newest point, or on ``parent``; QEMU reads from it and from those before
    what the disks held; the VM is in the state that it was in, in the same QEMU. A diagnosis
    beforehand foretells the methods, and finds what ``finds`` names and nothing else.
    """
    parent = parent or newest(world)
    before = machine(world)
    assert_foretold(world, expected, finds)
    made = world.backup_here()
    assert machine(world) == before
    assert (made.level, made.parent) == ("inc", int(parent.split("/")[1]))
    assert methods(made) == expected, [disk.reason for disk in made.disks]
    assert newest(world).startswith(parent.split("/")[0])  # in the same series
    for point in list(world.references)[-2:]:
        world.assert_holds(point)
    return made


def assert_foretold(world: World, expected: tuple[str, ...], finds: str) -> None:
    """The diagnosis names the methods of the next backup, and what is wrong; nobody is needed."""
    found = world.diagnosed()
    codes = [str(f.code) for f in found.diagnosis.findings if f.weight is not Weight.NOTE]
    assert codes == finds.split(), found.diagnosis.findings
    assert found.diagnosis.health is (Health.REPAIRABLE if finds else Health.GOOD)
    assert all(f.weight is not Weight.PERSON for f in found.diagnosis.findings)
    assert found.planned is not None, found.error
    assert tuple(str(disk.method) for disk in found.planned.plan.disks) == expected


def methods(made: Point) -> tuple[str, ...]:
    """By what method each disk came into a point."""
    return tuple(str(disk.method) for disk in made.disks)


def machine(world: World) -> tuple[str, int]:
    """The state of the VM, and the process id of its QEMU."""
    with suppress(FileNotFoundError, ConnectionRefusedError):
        return world.vm.state, world.vm.pid
    return world.vm.state, 0


def reboot(world: World) -> None:
    """The host is switched off in good order, its VMs before it, and on again."""
    if world.vm.state != "shutoff":
        world.vm.stop()
    world.host.power_cut()
    world.host.start()


def power_cut(world: World) -> None:
    """The power fails and comes back; the VMs stay off."""
    world.host.power_cut()
    world.host.start()


def checkpoint_of_somebody(vm: TestVm, name: str) -> None:
    """Another program makes a checkpoint of disk vda."""
    others = "".join(f"<disk name='{t}' checkpoint='no'/>" for t in vm.disks if t != "vda")
    disks = f"<disks><disk name='vda' checkpoint='bitmap'/>{others}</disks>"
    text = f"<domaincheckpoint><name>{name}</name>{disks}</domaincheckpoint>"
    vm.host.call("make_checkpoint", vm.name, text)


def point_directory(world: World, point: str) -> Path:
    """The folder of a point."""
    chain, seq = point.split("/")
    (path,) = world.store.glob(f"*/{chain}/{seq}-*/")
    return path


def chain_directory(world: World) -> Path:
    """The folder of the chain that grows."""
    return point_directory(world, newest(world)).parent
