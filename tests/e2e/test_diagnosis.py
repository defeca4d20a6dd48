"""What `plan` says of a VM on a real QEMU is what the next backup then does, whatever was wrong."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import run
from tests.support.stage import newest, three_points, with_store_copied
from tests.support.world import World, unchanged
from vm_babysitter.domain.diagnosis import Health
from vm_babysitter.domain.findings import Code
from vm_babysitter.domain.point import Method
from vm_babysitter.domain.repair_plan import StepKind, plan_repair

COMPARED = (Method.SCAN, Method.SCAN)
TRACKED = (Method.BITMAP, Method.BITMAP)
FULL = (Method.FULL, Method.FULL)


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and two increments."""
    with three_points(libvirtd, tmp_path_factory.mktemp("diagnosis") / "w") as world:
        yield world


@pytest.fixture
def world(house: World, tmp_path: Path) -> Iterator[World]:
    """The same with a copy of its store, whose change tracking is that of the newest points."""
    with with_store_copied(house, tmp_path / "store") as world:
        for _ in range(2):
            world.backup_here()
        yield world


def file_of(world: World, point: str, name: str) -> Path:
    (path,) = world.store.glob("*/{}/{}-*/{}".format(*point.split("/"), name))
    return path


def nothing(_world: World) -> None:
    pass


def killed(world: World) -> None:
    world.die(Fault("die", "step", "copy", 1))


def killed_when_committed(world: World) -> None:
    copies = world.die(Fault("die", "step", "committed", 1))
    (name,) = {name for _, names in world.chains() for name in names} - set(world.references)
    world.references[name] = copies


def power_cut(world: World) -> None:
    world.vm.stop()
    world.boot()  # QEMU marks the change tracking as in use
    world.vm.kill()
    world.boot()


def killed_in_a_power_cut(world: World) -> None:
    killed(world)
    power_cut(world)


def newest_lost(world: World) -> None:
    file_of(world, newest(world), "vda.qcow2").unlink()


def one_flips(world: World) -> None:
    path = file_of(world, newest(world), "vdb.qcow2")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    world.call("verify", world.vm.name, expect=12)


def middle_removed(world: World) -> None:
    shutil.rmtree(file_of(world, list(world.references)[1], "").parent / "000001-inc")


def full_lost(world: World) -> None:
    file_of(world, next(iter(world.references)), "vdb.index").unlink()


def relinked(world: World) -> None:
    image = file_of(world, newest(world), "vda.qcow2")
    run("qemu-img", "rebase", "-u", "-b", "../000000-full/vda.qcow2", "-F", "qcow2", str(image))


def renamed(world: World) -> None:
    folder = file_of(world, list(world.references)[2], "vda.qcow2").parent
    folder.rename(folder.with_name("000099-inc"))


def folder_copied(world: World) -> None:
    (folder,) = (path.parent for path in world.store.glob("*/vm.json"))
    copy = shutil.copytree(folder, folder.with_name("000 copy"))
    (chain,) = copy.glob("20*Z")
    chain.rename(copy / "series")  # so that judges who know its name find the original


@dataclass(frozen=True)
class Case:
    """What happens, what is found and planned, what the next backup does."""

    happens: Callable[[World], None]
    health: Health = Health.REPAIRABLE
    codes: tuple[Code, ...] = ()
    steps: tuple[StepKind, ...] = ()
    methods: tuple[Method, ...] = TRACKED
    lost: int = 0


CASES = [
    Case(nothing, Health.GOOD),
    Case(killed, codes=(Code.INTERRUPTED,), steps=(StepKind.UNDO,)),
    Case(killed_when_committed, codes=(Code.UNFINISHED,), steps=(StepKind.FINISH,)),
    Case(
        power_cut,
        codes=(Code.TRACKING_DAMAGED,),
        steps=(StepKind.COMPARE, StepKind.UNTRACK),
        methods=COMPARED,
    ),
    Case(
        killed_in_a_power_cut,
        codes=(Code.INTERRUPTED, Code.TRACKING_DAMAGED),
        steps=(StepKind.UNDO, StepKind.COMPARE, StepKind.UNTRACK),
        methods=COMPARED,
    ),
    Case(newest_lost, codes=(Code.DAMAGED,), steps=(), lost=1),
    Case(one_flips, codes=(Code.DAMAGED,), steps=(), lost=1),
    Case(
        middle_removed,
        codes=(Code.MISSING, Code.TRACKING_LOST),
        steps=(StepKind.COMPARE, StepKind.REMOVE_LOST),
        methods=COMPARED,
        lost=3,
    ),
    Case(full_lost, Health.LOST, (Code.DAMAGED,), methods=FULL, lost=5),
    Case(relinked, codes=(Code.RELINK,), steps=(StepKind.RELINK,)),
    Case(renamed, codes=(Code.RENAMED,), steps=(StepKind.RENAME,)),
    Case(folder_copied, Health.GOOD, (Code.ODD,)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.happens.__name__)
def test_the_plan_is_what_is_done(world: World, case: Case) -> None:
    case.happens(world)
    with unchanged(world.store):
        found = world.diagnosed()
    diagnosis, planned = found.diagnosis, found.planned
    assert diagnosis.health is case.health
    assert tuple(finding.code for finding in diagnosis.findings) == case.codes
    assert len(diagnosis.lost) == case.lost
    steps = [step.kind for step in plan_repair(diagnosis).steps]
    assert tuple(steps) == (*case.steps, StepKind.BACKUP)
    for point in diagnosis.points:
        if not point.problem and not point.waits:
            world.assert_holds(point.name)
    assert planned is not None
    assert tuple(disk.method for disk in planned.plan.disks) == case.methods
    made = world.backup(expect=3 if case.lost else 0)
    parent = planned.plan.parent
    assert made["parent"] == (None if parent is None else parent.seq)
    assert tuple(disk["method"] for disk in made["disks"]) == case.methods
    world.assert_restores(newest(world))
    after = world.diagnosed().diagnosis
    assert after.health is Health.GOOD
    assert len(after.lost) == case.lost
    world.assert_vm_unharmed()
