"""The daemon killed at random moments of its jobs: nothing that was there is lost, all goes on."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, DaemonProcess, in_care_of
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.world import World

_KILLS = 200 if os.environ.get("VMB_SOAK") == "1" else 10
_LONGEST = 1.5
"""Seconds after the order; a backup takes about as long."""
_VERIFIED_EVERY = 5


@pytest.fixture
def daemon(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[DaemonProcess]:
    with closing(DaemonProcess(libvirtd, tmp_path / "d")) as daemon:
        daemon.write_settings()
        yield daemon


@pytest.mark.timeout(60 + 30 * _KILLS)
def test_killed_at_any_moment_it_loses_nothing_and_goes_on(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    chance = random.Random(61)
    with closing(World(libvirtd, tmp_path / "w")) as world:
        in_care_of(daemon, world)
        daemon.start()
        for number in range(_KILLS):
            _one_kill(daemon, world, chance)
            points = [name for _, names in world.chains() for name in names]
            if number % _VERIFIED_EVERY == 0 or number == _KILLS - 1:
                world.assert_lists(points)
                world.assert_restores(points[-1])
        for point in world.references:
            world.assert_holds(point)
        states = {job["state"] for job in daemon.api.jobs()}
        assert states <= {"done", "interrupted"}, daemon.api.jobs()
        assert "interrupted" in states
        world.assert_tidy()


def _one_kill(daemon: DaemonProcess, world: World, chance: random.Random) -> None:
    world.change()
    copies = world.copies()
    before = set(world.references)
    daemon.api.submit("backup", world.vm.uuid, full=chance.random() < 0.2)
    if chance.random() < 0.3:
        daemon.api.submit("verify", world.vm.uuid)
    time.sleep(chance.uniform(0.0, _LONGEST))
    daemon.kill()

    world.assert_vm_unharmed()
    kept = {name for _, names in world.chains() for name in names}
    assert before <= kept, before - kept
    daemon.start()
    daemon.api.idle(PATIENCE + 5 * len(before))  # all of them may be verified
    assert daemon.api.jobs("running") == []
    job = daemon.api.done("backup", world.vm.uuid)
    # Nobody has written meanwhile: all of these hold the same.
    after = {name for _, names in world.chains() for name in names}
    assert kept <= after
    assert job["point"] in after
    world.references |= dict.fromkeys(after - before, copies)
    world.assert_vm_unharmed()
    world.assert_tidy()
