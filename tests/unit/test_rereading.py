"""Change tracking that lies is found out: unchanged blocks are read again in turn."""

from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld, exact, lived_in
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.reread import Reread
from vm_babysitter.domain.vm import PowerState

BLOCK = 65536
FILLED = 4
"""Blocks of the disk that are not zero: 0, 1, 2 and the short last one, 5."""


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with a full backup."""
    world = lived_in(ram_path)
    world.backup()
    return world


def change_untracked(world: EngineWorld, offset: int, data: bytes) -> None:
    """Change the disk without any bitmap knowing."""
    world.disk.content[offset : offset + len(data)] = data


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 30])
def test_what_tracking_missed_is_found_within_the_turn(world: EngineWorld, runs: int) -> None:
    world.reread_runs = runs
    change_untracked(world, 5 * BLOCK + 100, b"!")
    for _ in range(runs):
        result = world.backup()
        if result.point.warnings:
            break
        (disk,) = result.point.disks
        assert disk.method is Method.BITMAP
    (warning,) = result.point.warnings
    assert f"vda: change tracking missed a change at byte {5 * BLOCK}" in warning
    exact(world, result)
    (disk,) = result.point.disks
    assert (disk.method, disk.reason) == (Method.SCAN, "change tracking proved wrong")
    assert disk.written_bytes == 512
    assert world.observer.notes == [warning]


def test_each_filled_block_is_read_once_in_a_turn(world: EngineWorld) -> None:
    world.reread_runs = 3
    read, states = [], []
    for _ in range(3):
        (disk,) = world.backup().point.disks
        read.append(disk.read_bytes)
        states.append(disk.reread)
        assert disk.written_bytes == 0
    assert sum(read) == (FILLED - 1) * BLOCK + 512
    assert states == [Reread(2, 2), Reread(3, 1), None]


def test_a_failed_backup_does_not_count_in_the_turn(world: EngineWorld) -> None:
    world.reread_runs = 4
    world.backup_killed_at("commit")
    (disk,) = world.backup().point.disks
    assert (disk.reread, disk.read_bytes) == (Reread(1, 3), BLOCK)


def test_after_everything_was_read_a_new_turn_begins(world: EngineWorld) -> None:
    world.reread_runs = 4
    (disk,) = world.backup().point.disks
    assert disk.reread == Reread(1, 3)
    world.vm.kill()  # the bitmaps are broken: a scan
    world.vm.start(PowerState.RUNNING)
    (disk,) = world.backup().point.disks
    assert (disk.method, disk.reread) == (Method.SCAN, None)
    (disk,) = world.backup().point.disks
    assert disk.reread == Reread(1, 3)


def test_switched_off_nothing_is_read_again_and_the_turn_stays_where_it_is(
    world: EngineWorld,
) -> None:
    world.reread_runs = 4
    world.backup()
    world.reread_runs = 0
    (disk,) = world.backup().point.disks
    assert (disk.read_bytes, disk.reread) == (0, Reread(1, 3))


def test_a_changed_block_is_read_for_its_change_and_counts_for_nothing_else(
    world: EngineWorld,
) -> None:
    world.reread_runs = 1
    world.disk.write(0, b"new")
    result = world.backup()
    exact(world, result)
    (disk,) = result.point.disks
    assert disk.method is Method.BITMAP
    assert (disk.read_bytes, disk.written_bytes) == ((FILLED - 1) * BLOCK + 512, BLOCK)
