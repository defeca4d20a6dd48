"""kill -9 at every step of verify and restore: nothing changes, nothing looks whole that is not."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.nbd_server import wait_until
from tests.support.qemu_img import named, run
from tests.support.stage import soak
from tests.support.world import World, listing, unchanged
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel

README = Path(__file__).parents[2] / "README.md"
PARTIAL = "unfinished.partial"
"""All that a killed restore leaves while nothing is whole yet; README names it."""


def die(kind: str, name: str = "", nth: int = 1) -> Fault:
    return Fault("die", kind, name, nth)


VERIFY = [
    die("step", "verify *", 1),
    die("step", "verify *", 2),
    die("call", "CheckedReading.run"),
    die("return", "CheckedReading.run"),
    *soak(
        die("call", "QemuImageTool.check"),
        die("return", "QemuImageTool.check"),
        die("progress", "", 3),
        die("return", "Verify._read_disk", 2),
        die("return", "Verify.all"),
    ),
]
NOTHING_WHOLE = [
    die("os.mkdir", f"*/{PARTIAL}"),
    die("step", "restore vda"),
    die("progress", "", 2),
    die("step", "restore vdb"),
    die("step", "restore domain.xml"),
    die("step", "finish"),
    die("fsync", "*/vdb.qcow2"),
    die("os.link", "*/vda.qcow2"),
    *soak(
        die("return", "FileImages.qcow2"),
        die("progress", "", 5),
        die("return", "CheckedReading.run"),
        die("return", "CheckedReading.run", 2),
        die("return", "Restore._restore_file"),
        die("fsync", "*/vda.qcow2"),
        die("fsync", "*/domain.xml", 2),
    ),
]
SOME_WHOLE = [
    die("os.remove", "*/vda.qcow2"),
    die("os.link", "*/vdb.qcow2"),
    die("os.rmdir", f"*/{PARTIAL}"),
    *soak(
        die("os.link", "*/domain.xml"),
        die("fsync", "*/target"),
    ),
]
BEFORE_ANYTHING = [die("step", "measure"), die("os.mkdir", "*/target")]


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
def world(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and an increment."""
    with closing(World(libvirtd, tmp_path_factory.mktemp("readers") / "w", "house")) as world:
        world.backup()
        world.change()
        world.backup()
        yield world


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def to(target: Path) -> list[str]:
    return ["restore", "house", "latest", "--to", str(target)]


def helpers(*folders: Path) -> list[int]:
    """The processes that have a file in one of these folders open or on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            words = os.fsdecode((process / "cmdline").read_bytes())
            words += "".join(f"\0{file.readlink()}" for file in (process / "fd").iterdir())
        except OSError:  # it has just ended
            continue
        if any(str(folder) in words for folder in folders):
            found.append(int(process.name))
    return found


def die_in_restore(world: World, target: Path, fault: Fault) -> None:
    """Kill a restore; neither its helpers nor a change of the store are left."""
    with unchanged(world.store):
        world.call(*to(target), faults=[fault], expect=-signal.SIGKILL)
        wait_until(lambda: not helpers(world.store, target))


def restores(world: World, target: Path) -> None:
    """A restore into this folder brings everything back."""
    world.call(*to(target))
    names = {"vda.qcow2", "vdb.qcow2", "domain.xml"}
    assert {path.name for path in target.iterdir()} == names
    for disk in world.vm.disks:
        assert_whole(world, target / f"{disk}.qcow2")


def assert_whole(world: World, image: Path) -> None:
    """An image of the newest point holds what its disk held, to the last byte."""
    raw = world.references[list(world.references)[-1]][image.stem]
    run("qemu-img", "compare", named(image), named(raw, "raw"))


def test_every_step_of_verify_and_restore_is_among_those_that_are_killed(
    world: World, target: Path
) -> None:
    steps = Steps()
    place = Place(world.host.uri, world.store, allow_ram_store=True, runtime=world.runtime)
    app = Standalone(place, steps, Cancel())
    app.verify().all("house")
    app.restore(target).run("house", "latest")
    killed = {f.name for f in [*BEFORE_ANYTHING, *NOTHING_WHOLE, *VERIFY] if f.kind == "step"}
    assert {re.sub("^verify .*", "verify *", name) for name in steps.names} == killed


@pytest.mark.parametrize("fault", VERIFY, ids=str)
def test_a_killed_verify_changes_nothing(world: World, fault: Fault) -> None:
    with unchanged(world.store):
        world.call("verify", "house", faults=[fault], expect=-signal.SIGKILL)
        wait_until(lambda: not helpers(world.store))
        world.call("verify", "house")


@pytest.mark.parametrize("fault", BEFORE_ANYTHING, ids=str)
def test_a_restore_killed_before_it_writes_leaves_nothing(
    world: World, target: Path, fault: Fault
) -> None:
    die_in_restore(world, target, fault)
    assert not target.exists()
    restores(world, target)


@pytest.mark.parametrize("fault", NOTHING_WHOLE, ids=str)
def test_a_restore_killed_while_it_writes_leaves_one_folder_of_a_telling_name(
    world: World, target: Path, fault: Fault
) -> None:
    die_in_restore(world, target, fault)
    assert {path.name for path in target.iterdir()} <= {PARTIAL}
    refused_and_repeated(world, target)


@pytest.mark.parametrize("fault", SOME_WHOLE, ids=str)
def test_a_restore_killed_at_its_end_leaves_only_whole_files_under_their_names(
    world: World, target: Path, fault: Fault
) -> None:
    die_in_restore(world, target, fault)
    images = list(target.glob("*.qcow2"))
    assert images
    for image in images:
        assert_whole(world, image)
    refused_and_repeated(world, target)


def refused_and_repeated(world: World, target: Path) -> None:
    """What is left is kept until somebody removes it; a fresh folder works, and so does this."""
    if any(target.iterdir()):
        left = listing(target)
        refused = world.call(*to(target), expect=2)
        assert "is not empty" in refused.stderr
        assert listing(target) == left
    restores(world, target.with_name("fresh"))
    shutil.rmtree(target)
    restores(world, target)


def test_the_documentation_names_what_is_left() -> None:
    assert f"`{PARTIAL}`" in README.read_text()
