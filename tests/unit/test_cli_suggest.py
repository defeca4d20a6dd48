"""Commands that are suggested to the user: pasted into a shell they do what they say."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import FakeApp
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.errors import StoreTaken, VmNotFound
from vm_babysitter.engine.app import Place

NAMES = ["Windows 11", "-rf", "--", "--json", "it's $(x)", 'a "b" `c` \\', "ü 猫", "*", "~"]
PLACES = [
    Place("qemu:///system", None),
    Place("test:///x?y=1&z", Path("/a b/it's {c}")),
    Place("qemu:///system", Path("-store"), allow_ram_store=True),
]


def pasted(command: str) -> list[str]:
    """What a shell makes of a command."""
    script = f"set -- {command}\nprintf '%s\\0' \"$@\""
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def called(ram_path: Path, name: str, place: Place, *arguments: str) -> tuple[FakeApp, str]:
    """Call a command with the options of a place; return what it says."""
    app = FakeApp(EngineWorld(ram_path, name=name))
    options = ["--uri", place.uri] if place.uri != "qemu:///system" else []
    options += ["--store", str(place.store)] if place.store else []
    options += ["--allow-ram-store"] if place.allow_ram_store else []
    app.world.backup()
    app.world.disk.write(0, b"x")
    app.world.backup()
    for path in app.world.path.glob("*/*/000001-inc/vda.qcow2"):
        path.unlink()
    result = app.call(*options, *arguments, "--", name)
    return app, result.stdout + result.stderr


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["status", "plan", "repair"])
def test_the_removal_of_lost_points_is_suggested_where_they_are(
    ram_path: Path, name: str, place: Place, verb: str
) -> None:
    app, text = called(ram_path, name, place, verb)
    _, _, command = text.partition("Only if you say so: ")
    program, standalone, *words = pasted(command.splitlines()[0])
    assert (program, standalone) == ("vm-babysitter", "--standalone")
    result = app.call(*words)
    assert "Done: remove what is left of" in result.stdout, result.output
    assert app.places == [place, place]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_from_a_conversion_is_suggested_where_the_disk_is(
    ram_path: Path, name: str, place: Place
) -> None:
    app = FakeApp(EngineWorld(ram_path, name=name))
    suggest = Suggest(place)
    for word in (suggest.command("convert", name, "vda", options=["--undo"]),):
        app.call(*pasted(word)[2:])
    assert app.converting.asked == [(name, "vda", False)]
    assert app.places == [place]


def test_a_hint_is_completed_wherever_it_names_a_command(ram_path: Path) -> None:
    app = FakeApp(EngineWorld(ram_path))
    options = ["--uri", "test:///", "--store", "/a b"]
    told = "`vm-babysitter --standalone --uri test:/// --store '/a b' "
    app.error = VmNotFound("x")
    assert f"{told}vms` lists" in app.call(*options, "plan", "x").stderr
    assert f"{told}vms` lists" in app.json(*options, "plan", "x", code=10)["error"]["hint"]
    command = f"`vm-babysitter --standalone {shlex.join(['check-store', '--', 'x'])}`"
    app.error = StoreTaken("x", "another", "then", command)
    assert f"{told}check-store -- x`" in app.call(*options, "backup", "x").stderr


def test_what_hinders_a_backup_names_a_command_that_works(ram_path: Path) -> None:
    app = FakeApp(EngineWorld(ram_path, name="bare"))
    app.world.vm.disks.clear()
    text = app.call("--store", "/a b", "status").stdout
    assert "`vm-babysitter --standalone --store '/a b' vms` says why." in text
