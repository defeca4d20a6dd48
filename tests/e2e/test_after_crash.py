"""A host that went down hard in a backup: what was written last is read before it is built on."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import newest
from tests.support.world import World
from vm_babysitter.ports import ThisHost

TOWER = ThisHost("t" * 32, "tower", "the 1st boot")


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM backed up twice; in its third backup the power was cut."""
    with closing(World(libvirtd, tmp_path)) as world:
        world.machine = TOWER
        world.backup()
        world.change()
        world.backup()
        world.change()
        world.die(Fault("die", "progress", "", 3))
        world.machine = replace(TOWER, boot_id="the 2nd boot")
        yield world


def image_of(world: World, point: str) -> Path:
    chain, seq = point.split("/")
    (path,) = world.store.glob(f"*/{chain}/{seq}-*/vda.qcow2")
    return path


def test_a_spoilt_point_is_passed_over_and_a_whole_one_built_on(world: World) -> None:
    whole, spoilt = world.references
    assert world.backup()["parent"] == int(spoilt.split("/")[1])  # nothing was wrong with it
    world.change()
    spoilt = newest(world)
    world.die(Fault("die", "progress", "", 3))
    image = image_of(world, spoilt)
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    world.machine = replace(TOWER, boot_id="the 3rd boot")
    done = world.call("backup", "--", world.vm.name, expect=3)
    assert "The host went down hard" in done.stderr
    assert f"Restore point {spoilt} is damaged and is passed over: vda.qcow2: " in done.stderr
    assert f"restore point {spoilt} cannot be restored as a whole any more" in done.stdout
    del world.references[spoilt]
    world.change()
    made = world.backup()
    (chain,) = world.chains()
    (before,) = (p.point for p in chain[0].points if p.point.seq == made["parent"])
    assert before.parent == int(spoilt.split("/")[1]) - 1
    world.assert_restores(newest(world))
    world.assert_restores(whole)
