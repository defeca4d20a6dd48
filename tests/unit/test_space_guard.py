"""The guard gives a backup up, never the guest."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.support.engine_world import EngineWorld, exact, lived_in
from vm_babysitter.domain.errors import (
    BabysitterError,
    HypervisorUnreachable,
    NotEnoughSpace,
    SpaceRunningOut,
    VmStuck,
)
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine import space_guard
from vm_babysitter.engine.space_guard import INTERVAL
from vm_babysitter.ports import Store

GIB, TIB = 1 << 30, 1 << 40
PLENTY, FULL = Room(TIB, TIB, 1), Room(0, TIB, 1)


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with a full backup and a change since."""
    world = lived_in(ram_path)
    world.backup()
    world.disk.write(0, b"changed")
    return world


def wait(world: EngineWorld) -> None:
    """Take a while, as copying does, until asked to stop."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        world.cancel.check()
        time.sleep(0.01)


def given_up(
    world: EngineWorld,
    happen: Callable[[], None],
    error: type[BabysitterError] = SpaceRunningOut,
) -> BabysitterError:
    """Have something happen while a disk is copied; the backup must end by it and be undone."""

    def meanwhile() -> None:
        happen()
        wait(world)

    world.observer.at["copied vda"] = meanwhile
    with pytest.raises(error) as caught:
        world.backup()
    del world.observer.at["copied vda"]
    assert world.leftovers() == []
    assert world.vm.state is PowerState.RUNNING
    world.cancel = type(world.cancel)()
    world.places.rooms = [PLENTY]
    world.places.grown = 0
    exact(world, world.backup())
    return caught.value


def test_little_space_beside_the_disk_ends_the_backup(world: EngineWorld) -> None:
    world.places.rooms = [PLENTY]

    def fill() -> None:
        world.places.rooms = [Room(GIB, TIB, 1)]

    error = given_up(world, fill)
    assert error.fields["free"] == GIB
    assert error.fields["path"] == "/vms/it's a VM"
    assert "1 GiB are left" in error.message


def test_fast_growth_ends_the_backup_while_there_still_is_space(world: EngineWorld) -> None:
    looks = iter(range(1000))

    class Growing(type(world.places)):  # type: ignore[misc]
        def used(self, path: str) -> int:
            return next(looks) * GIB

    world.places = Growing(world.places.files)
    world.places.rooms = [Room(15 * GIB, TIB, 1)]
    error = given_up(world, lambda: None)
    assert error.fields["free"] == 15 * GIB


def test_a_vm_that_qemu_paused_goes_on_and_the_user_is_told(world: EngineWorld) -> None:
    def pause() -> None:
        world.vm.state = PowerState.STUCK

    given_up(world, pause, VmStuck)
    assert any("QEMU had paused the VM" in note for note in world.observer.notes)


def test_a_vm_that_was_paused_for_want_of_space_is_told_as_that(world: EngineWorld) -> None:
    def fill() -> None:
        world.places.rooms = [FULL]
        world.vm.state = PowerState.STUCK

    given_up(world, fill)


class Folder:
    """The backup folder on a file system that hangs when it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.hangs = threading.Event()
        self.answers = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def room(self) -> Room:
        if self.hangs.is_set():
            self.answers.wait(20)
        return self._store.room()


def test_a_backup_folder_that_hangs_does_not_blind_the_guard(world: EngineWorld) -> None:
    folder = Folder(world.store)
    world.store = cast(Store, folder)

    def hang_and_fill() -> None:
        folder.hangs.set()
        time.sleep(2 * INTERVAL)
        world.places.rooms = [Room(GIB, TIB, 1)]

    began = time.monotonic()
    world.observer.at["roll back"] = folder.hangs.clear
    try:
        given_up(world, hang_and_fill)
    finally:
        folder.answers.set()
    assert time.monotonic() - began < 10


def test_where_the_copying_is_stuck_the_guard_ends_the_job_itself(
    world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_guard, "PATIENCE", 0.2)
    gone = []

    def stuck() -> None:
        """Write to a folder that does not answer: nothing hears that the job was cancelled."""
        world.places.rooms = [FULL]
        world.vm.state = PowerState.STUCK
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not over():
            time.sleep(0.01)
        gone.append((world.vm.job, world.vm.state))

    def over() -> bool:
        return world.vm.job is None and world.vm.state is PowerState.RUNNING

    given_up(world, stuck)
    assert gone == [(None, PowerState.RUNNING)]


def test_a_vm_found_paused_after_we_were_killed_goes_on_with_the_next_backup(
    world: EngineWorld,
) -> None:
    world.backup_killed_at("copied vda")
    world.vm.state = PowerState.STUCK
    result = world.backup()
    exact(world, result)
    assert world.vm.state is PowerState.RUNNING
    assert any("QEMU had paused the VM" in note for note in world.observer.notes)


@pytest.mark.parametrize("state", [PowerState.PAUSED, PowerState.STUCK])
def test_a_vm_that_did_not_run_is_backed_up_and_left_as_it_was(
    world: EngineWorld, state: PowerState
) -> None:
    world.vm.state = state
    world.backup_killed_at("copied vda")
    world.observer.at["copied vda"] = lambda: time.sleep(3 * INTERVAL)
    exact(world, world.backup())
    assert world.vm.state is state
    assert "resume" not in world.hypervisor.calls


@pytest.mark.parametrize("state", [PowerState.PAUSED, PowerState.OFF])
def test_a_vm_that_the_user_paused_meanwhile_stays_so(
    world: EngineWorld, state: PowerState
) -> None:
    world.backup_killed_at("copied vda")
    world.vm.start(PowerState.PAUSED)
    world.backup()
    assert world.vm.state is PowerState.PAUSED
    assert "resume" not in world.hypervisor.calls


def test_too_little_working_space_is_found_before_anything_begins(world: EngineWorld) -> None:
    world.places.rooms = [Room(GIB, TIB, 1)]
    with pytest.raises(NotEnoughSpace) as caught:
        world.backup()
    assert (caught.value.free, world.leftovers()) == (GIB, [])
    assert world.hypervisor.calls.count("begin_backup") == 1  # the full


def test_a_look_that_fails_is_no_reason_to_give_up(world: EngineWorld) -> None:
    world.hypervisor.fail["power"] = HypervisorUnreachable("x", "gone")

    def soon() -> None:
        time.sleep(1.2)
        del world.hypervisor.fail["power"]

    world.observer.at["copied vda"] = soon
    exact(world, world.backup())
