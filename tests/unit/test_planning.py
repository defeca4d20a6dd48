"""What is found out before a backup is planned."""

from pathlib import Path

import pytest

from tests.support.engine_world import FOREIGN, EngineWorld, lived_in
from vm_babysitter.domain.errors import Busy
from vm_babysitter.engine.planning import Planner, check_idle
from vm_babysitter.ports import ActiveJob, JobKind


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    return lived_in(ram_path)


def foreign(world: EngineWorld) -> tuple[str, ...]:
    vm = world.hypervisor.vm(world.name)
    return Planner(world.tools().sight, world.store).plan(vm).plan.foreign


def test_what_other_programs_have_is_told_and_is_not_kept_in_a_point(world: EngineWorld) -> None:
    (said,) = foreign(world)
    assert FOREIGN in said
    made = world.backup().point
    assert not any(FOREIGN in text for text in made.warnings)
    assert foreign(world) == (said,)


def test_a_job_of_an_attempt_of_ours_is_not_foreign(world: EngineWorld) -> None:
    world.backup_killed_at("copied vda")
    assert len(foreign(world)) == 1
    world.vm.job = None
    world.vm.foreign_job = ActiveJob(JobKind.BLOCK, "on disk vda")
    assert "a block job" in foreign(world)[-1]


def test_while_the_memory_is_saved_or_moved_qemu_cannot_be_asked(world: EngineWorld) -> None:
    world.vm.foreign_job = ActiveJob(JobKind.MIGRATION, "x")
    vm = world.hypervisor.vm(world.name)
    with pytest.raises(Busy, match="a migration, save or dump is running"):
        Planner(world.tools().sight, world.store).plan(vm)
    with pytest.raises(Busy, match="a migration, save or dump is running"):
        check_idle(world.hypervisor, vm)
