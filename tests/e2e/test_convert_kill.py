"""kill -9 at every step of a conversion and of going back: the VM always has all its data."""

import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.converting import RawWorld
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.stage import soak
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel


def die(kind: str, name: str = "", nth: int = 1) -> Fault:
    return Fault("die", kind, name, nth)


BEFORE = [
    die("progress", "", 2),
    die("os.rename", "*.vmb-convert.json", 2),  # complete, and not yet noted
    die("os.remove", "*.vmb-partial-*"),  # it has both names
    die("os.rename", "*.vmb-convert.json", 3),  # it has its name, and that is not yet noted
    die("call", "virDomain.updateDeviceFlags"),
]
RARELY_BEFORE = [
    die("step", "look"),
    die("os.rename", "*.vmb-convert.json"),
    die("step", "copy"),
    die("open", "*.vmb-partial-*"),
    die("fsync", "*.vmb-partial-*"),
    die("step", "compare"),
    die("step", "name"),
    die("os.link", "*.qcow2"),
    die("fsync", "*/disks: a, b", 2),
    die("step", "switch"),
]
AFTER = [
    die("return", "virDomain.updateDeviceFlags"),
    die("os.rename", "*.vmb-convert.json", 4),
]
RARELY_AFTER = [die("step", "look again"), die("call", "Switch.settle")]
DONE = [die("step", "done")]
IN_CLEANUP = [
    die("os.remove", "*.qcow2"),
    die("os.remove", "*.vmb-convert.json"),
]
RARELY_IN_CLEANUP = [die("step", "clean up"), die("os.remove", "*.vmb-partial-*")]
UNDO_BEFORE = [die("step", "compare"), die("call", "virDomain.updateDeviceFlags")]
RARELY_UNDO_BEFORE = [die("step", "look"), die("step", "switch")]
UNDO_AFTER = [die("return", "virDomain.updateDeviceFlags")]
RARELY_UNDO_AFTER = [
    die("step", "look again"),
    die("os.rename", "*.vmb-convert.json"),
    die("step", "done"),
]


class Steps:
    """An observer that remembers the steps."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def step(self, name: str) -> None:
        self.names.add(name)

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


@pytest.fixture(scope="module")
def house(
    libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RawWorld]:
    with closing(RawWorld(libvirtd, tmp_path_factory.mktemp("convert") / "w")) as world:
        yield world


@pytest.fixture
def world(house: RawWorld) -> Iterator[RawWorld]:
    yield house
    house.reset()


def killed(world: RawWorld, *options: str, fault: Fault) -> None:
    arguments = ("convert", *options, "--", world.vm.name, "vda")
    world.call(*arguments, faults=[fault], expect=-signal.SIGKILL)


@pytest.mark.parametrize("fault", [*BEFORE, *soak(*RARELY_BEFORE)], ids=str)
def test_killed_before_the_switch_the_vm_has_its_raw_image_and_the_next_run_converts_it(
    world: RawWorld, fault: Fault
) -> None:
    killed(world, fault=fault)
    assert world.definition() == world.original
    world.assert_data()
    world.convert()
    world.assert_converted()


@pytest.mark.parametrize("fault", [*AFTER, *soak(*RARELY_AFTER)], ids=str)
def test_killed_after_the_switch_the_vm_has_the_new_image_and_the_next_run_says_so(
    world: RawWorld, fault: Fault
) -> None:
    killed(world, fault=fault)
    assert world.source() == (world.new, "qcow2")
    world.assert_data()
    assert "is now qcow2" in world.convert()
    world.assert_converted()
    assert "is qcow2 already" in world.convert(expect=1)


def test_killed_after_the_switch_and_the_raw_image_deleted_the_only_image_is_kept(
    world: RawWorld,
) -> None:
    killed(world, fault=die("return", "virDomain.updateDeviceFlags"))
    world.raw.unlink()
    assert "is now qcow2" in world.convert()
    assert world.source() == (world.new, "qcow2")
    world.assert_data()
    assert "is not there" in world.undo("--lose-changes", expect=1)
    world.assert_data()


@pytest.mark.parametrize("fault", DONE, ids=str)
def test_killed_when_all_is_done_all_is_done(world: RawWorld, fault: Fault) -> None:
    killed(world, fault=fault)
    world.assert_converted()


@pytest.mark.parametrize("fault", [*IN_CLEANUP, *soak(*RARELY_IN_CLEANUP)], ids=str)
def test_killed_again_while_the_first_death_is_cleaned_up(world: RawWorld, fault: Fault) -> None:
    killed(world, fault=die("step", "switch"))
    killed(world, fault=fault)
    assert world.definition() == world.original
    world.assert_data()
    world.convert()
    world.assert_converted()


@pytest.mark.parametrize("fault", [*UNDO_BEFORE, *soak(*RARELY_UNDO_BEFORE)], ids=str)
def test_going_back_killed_before_the_switch_changes_nothing(world: RawWorld, fault: Fault) -> None:
    world.convert()
    world.assert_converted()  # starting the VM has touched the image: it has to be compared
    killed(world, "--undo", fault=fault)
    world.assert_converted()
    world.undo()
    assert world.definition() == world.original
    world.assert_data()


@pytest.mark.parametrize("fault", [*UNDO_AFTER, *soak(*RARELY_UNDO_AFTER)], ids=str)
def test_going_back_killed_after_the_switch_is_done(world: RawWorld, fault: Fault) -> None:
    world.convert()
    killed(world, "--undo", fault=fault)
    assert world.definition() == world.original
    world.assert_data()
    assert "is what an earlier conversion of this disk made" in world.convert(expect=1)
    assert "has its raw image" in world.undo()
    world.assert_data()


def test_every_step_is_among_those_that_are_killed(world: RawWorld) -> None:
    steps, steps_back = Steps(), Steps()
    place = Place(world.host.uri, None, runtime=world.runtime)
    with Standalone(place, steps, Cancel()).convert() as (convert, _):
        convert.run(world.vm.name, "vda")
    world.vm.start()
    world.vm.stop()
    with Standalone(place, steps_back, Cancel()).convert() as (_, convert_back):
        convert_back.run(world.vm.name, "vda")
    assert len(steps.names) > 6
    ways = [*BEFORE, *RARELY_BEFORE, *AFTER, *RARELY_AFTER, *DONE, *RARELY_IN_CLEANUP]
    back = [*UNDO_BEFORE, *RARELY_UNDO_BEFORE, *UNDO_AFTER, *RARELY_UNDO_AFTER]
    for names, faults in ((steps.names, ways), (steps_back.names, back)):
        assert names <= {fault.name for fault in faults if fault.kind == "step"}
