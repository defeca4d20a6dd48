"""The command line as its user meets it: what it says, how it ends, and what it leaves alone."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk, read_only
from tests.support.qemu_img import named, run
from tests.support.stage import newest
from tests.support.vm import MIB, VmFactory
from tests.support.world import World, environment, unchanged

TRANSIENT = (
    "<domain type='qemu'><name>passing</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64'>hvm</type></os></domain>"
)
ODD_NAMES = ['My "VM" & co {name}', "-rf %s", "ü:ñ, 日本 it's $(touch x);|"]


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A VM with a full and an increment, for commands that change nothing."""
    with closing(World(libvirtd, tmp_path_factory.mktemp("cli") / "w", "house")) as world:
        world.backup()
        world.change()
        world.backup()
        yield world


@pytest.fixture
def world(house: World) -> Iterator[World]:
    """The same, every command of the test changing neither store nor disks' folder."""
    store = house.store
    with unchanged(store, house.disks):
        yield house
    house.store, house.allow_ram = store, True


def complains(world: World, *arguments: str, code: int, says: list[str]) -> None:
    """A command fails with this exit code; its message has all of these words."""
    done = world.call(*arguments, expect=code)
    for words in says:
        assert words in done.stderr, done.stderr
    assert done.stdout == ""
    if "--json" not in arguments and code not in {2, 20}:
        assert done.stderr.startswith("Error: ")


# -- what each command says -----------------------------------------------------------------


def test_vms_lists_the_vm_and_its_disks(world: World) -> None:
    text = world.call("vms").stdout
    assert "house" in text
    assert "32 MiB" in text
    assert "tracked: qcow2: change tracking tells what to read" in text
    (vm,) = [vm for vm in json.loads(world.call("vms", "--json").stdout) if vm["name"] == "house"]
    assert vm["uuid"] == world.vm.uuid
    assert [(d["target"], d["verdict"]) for d in vm["disks"]] == [
        ("vda", "tracked"),
        ("vdb", "tracked"),
    ]


def test_plan_says_what_the_next_backup_does_and_why(world: World) -> None:
    text = world.call("plan", "house").stdout
    assert "is an increment" in text
    assert "changes were tracked since restore point 000001" in text
    plan = json.loads(world.call("plan", "house", "--json").stdout)
    assert (plan["level"], plan["parent"], plan["new_chain"]) == ("inc", 1, False)
    full = json.loads(world.call("plan", "house", "--full", "--json").stdout)
    assert (full["level"], full["parent"], full["new_chain"]) == ("full", None, True)
    assert full["reasons"] == ["a full backup was asked for"]


def test_a_plan_of_an_empty_folder_makes_no_backup_folder_of_it(
    world: World, tmp_path: Path
) -> None:
    world.store = tmp_path / "empty"
    world.store.mkdir()
    with unchanged(world.store):
        assert "a full backup, in a new backup series" in world.call("plan", "house").stdout


def test_points_lists_the_points(world: World) -> None:
    first, second = world.references
    lines = world.call("points", "house").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["POINT", first, second]
    assert world.call("points").stdout.splitlines() == lines
    assert world.call("points", world.vm.uuid).stdout.splitlines() == lines
    points = json.loads(world.call("points", "house", "--json").stdout)
    assert [(p["point"], p["problem"]) for p in points] == [(first, ""), (second, "")]
    assert points[0]["manifest"]["vm_uuid"] == world.vm.uuid


def test_verify_proves_the_points(world: World) -> None:
    first, second = world.references
    both = [f"{first}  good: data correct", f"{second}  good: data correct"]
    assert world.call("verify", "house").stdout.splitlines() == both
    files = world.call("verify", "house", first, "--structure").stdout
    assert files == f"{first}  good: files complete\n"
    found = json.loads(world.call("verify", "house", "latest", "--json").stdout)
    assert found == [{"point": second, "problems": [], "content": True}]


def test_restore_brings_disks_back_in_the_format_asked_for(world: World, tmp_path: Path) -> None:
    first = next(iter(world.references))
    target = tmp_path / "to, here"
    done = world.call("restore", "house", first, "--to", str(target), "--disk", "vdb")
    assert f"Restored {first}" in done.stdout
    assert str(target / "vdb.qcow2") in done.stdout
    assert {path.name for path in target.iterdir()} == {"vdb.qcow2", "domain.xml"}
    raw = tmp_path / "raw"
    arguments = ["restore", "house", first, "--to", str(raw), "--format", "raw", "--json"]
    found = json.loads(world.call(*arguments).stdout)
    assert found["point"] == first
    assert sorted(found["files"]) == sorted(str(path) for path in raw.iterdir())
    assert raw.joinpath("vda.raw").read_bytes() == world.references[first]["vda"].read_bytes()
    assert raw.joinpath("vdb.raw").read_bytes() == world.references[first]["vdb"].read_bytes()
    assert all(path.stat().st_mode & 0o077 == 0 for path in raw.iterdir())


def test_backup_says_what_it_did(libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    with closing(World(libvirtd, tmp_path / "w", running=True)) as world:
        text = world.call("backup", "--", world.vm.name).stdout
        assert "/000000 of" in text
        assert "is complete: full backup" in text
        assert "Not paused cleanly for the backup: the VM has no guest agent." in text
        made = json.loads(world.call("backup", "--json", "--", world.vm.name).stdout)
        assert made["point"].endswith("/000001")
        (disk, _) = made["manifest"]["disks"]
    assert disk["written_bytes"] == 0  # nothing was written since
    assert 0 < disk["read_bytes"] <= MIB  # a thirtieth of what did not change


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_and_any_path_will_do(
    libvirtd: PrivateLibvirtd, tmp_path: Path, name: str
) -> None:
    with closing(World(libvirtd, tmp_path / name, name)) as world:
        world.backup()
        assert name in world.call("points", "--", name).stdout
        assert name in world.call("plan", "--", name).stdout
        world.assert_restores(next(iter(world.references)))
        world.assert_tidy()
        assert not (world.folder / "x").exists()


def test_relative_paths_are_those_of_the_caller(libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    with closing(World(libvirtd, tmp_path / "w")) as world:
        world.store = Path(world.store.name)
        name = world.vm.name
        world.call("backup", "--", name)
        world.call("verify", "--", name)
        world.call("restore", "--to", "-back, here", "--", name, "latest")
        assert (world.folder / "-back, here" / "vda.qcow2").is_file()


def test_a_renamed_vm_goes_on_and_is_found_by_either_name(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    with closing(World(libvirtd, tmp_path / "w", "before")) as world:
        world.backup()
        world.vm.stop()
        world.host.call("rename", "before", "after")
        world.vm.name = "after"
        world.boot()
        world.change()
        assert world.backup()["level"] == "inc"
        listed = world.call("points", "after").stdout
        assert world.call("points", "before").stdout == listed
        assert listed.count("after") == 2


# -- what it refuses ------------------------------------------------------------------------


def test_what_is_there_without_any_vm() -> None:
    for arguments, code in ((["--help"], 0), (["--version"], 0), (["nonsense"], 2), ([], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "vm_babysitter", *arguments],
            capture_output=True,
            check=False,
            env=environment(),
            text=True,
        )
        assert (arguments, done.returncode) == (arguments, code)
    for command in ("vms", "points", "backup x", "plan x", "verify x", "restore x latest --to y"):
        done = subprocess.run(
            [sys.executable, "-m", "vm_babysitter", *command.split()],
            capture_output=True,
            check=False,
            env=environment(),
            text=True,
        )
        assert done.returncode == 20, done.stderr
        assert "--standalone" in done.stderr


@pytest.mark.parametrize("command", ["plan", "backup"])
def test_an_unknown_vm(world: World, command: str) -> None:
    says = ["no persistent VM named 'nobody'", f"--store {shlex.quote(str(world.store))} "]
    says.append(" vms` lists the VMs")
    complains(world, command, "nobody", code=10, says=says)


@pytest.mark.parametrize("command", ["points nobody", "verify nobody", "restore nobody latest"])
def test_a_vm_without_backups(world: World, tmp_path: Path, command: str) -> None:
    to = ["--to", str(tmp_path / "x")] if command.startswith("restore") else []
    with unchanged(tmp_path):
        complains(world, *command.split(), *to, code=10, says=["'nobody'"])


def test_an_error_as_json_has_code_message_hint_and_fields(world: World) -> None:
    done = world.call("backup", "nobody", "--json", expect=10)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "vm-not-found"
    assert error["fields"] == {"name": "nobody"}
    assert error["message"]
    assert error["hint"]


def test_a_transient_vm_is_not_ours(world: World) -> None:
    world.host.call("create_transient", TRANSIENT)
    try:
        complains(world, "backup", "passing", code=10, says=["'passing'"])
        assert "passing" not in world.call("vms").stdout
    finally:
        world.host.call("destroy", "passing")


def test_vms_that_cannot_be_backed_up(world: World, vm: VmFactory) -> None:
    off = vm("off")
    bare = vm("bare", disks=[])
    bare.start()
    complains(world, "backup", "bare", code=1, says=["no disk that can be backed up"])
    off.paths["vda"].unlink()
    complains(world, "backup", "off", code=1, says=["disk vda", "its image cannot be read"])
    assert "refused: its image cannot be read" in world.call("vms").stdout


def test_a_libvirt_that_is_not_there(world: World) -> None:
    done = world.call("--uri", "qemu+unix:///system?socket=/nowhere", "vms", expect=1)
    assert "libvirt cannot be reached" in done.stderr


def test_places_that_cannot_be_a_backup_folder(world: World, tmp_path: Path) -> None:
    file, foreign = tmp_path / "file", tmp_path / "foreign"
    file.write_text("theirs")
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("theirs")
    cases: list[tuple[Path, list[str]]] = [
        (tmp_path / "missing", ["does not exist", "Create it"]),
        (file, ["not a folder"]),
        (foreign, ["photo.jpg", "Name an empty folder"]),
        (tmp_path / ("x" * 300), ["File name too long"]),
    ]
    for path, says in cases:
        world.store = path
        with unchanged(tmp_path):
            complains(world, "backup", "house", code=1, says=[*says, str(path)])
    with read_only(foreign), unchanged(tmp_path):
        world.store = foreign
        complains(world, "backup", "house", code=1, says=["cannot be written", "mounted"])


def test_a_backup_folder_in_ram_is_refused(world: World, tmp_path: Path) -> None:
    world.allow_ram = False
    with ram_disk(tmp_path / "ram", MIB) as world.store, unchanged(world.store):
        complains(world, "backup", "house", code=1, says=["RAM (tmpfs)", "after a reboot"])


def test_a_folder_without_backups_is_not_made_one_by_reading(world: World, tmp_path: Path) -> None:
    world.store = tmp_path
    to = ["restore", "house", "latest", "--to", str(tmp_path / "x")]
    for command in (["points"], ["verify", "house"], to):
        with unchanged(tmp_path):
            complains(world, *command, code=1, says=["no backups yet"])
    done = world.call("--store", "", "points", expect=2)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", [["points"], ["verify", "house"], ["plan", "house"], ["backup", "house"], ["status"]]
)
def test_no_backup_folder_named(world: World, command: list[str]) -> None:
    arguments = [a for a in world.arguments(*command) if a not in {"--store", str(world.store)}]
    done = subprocess.run(arguments, capture_output=True, check=False, env=environment(), text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: No backup folder is given.\nName it with --store, before the command.\n"
    )
    assert ("house" in done.stdout) is (command == ["status"])


def test_status_without_backups_lists_the_vms_and_fails(world: World, tmp_path: Path) -> None:
    empty, foreign, missing = (tmp_path / name for name in ("empty", "foreign", "missing"))
    empty.mkdir()
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("theirs")
    cases = [
        (empty, "it is empty, there are no backups yet", "Is its disk mounted?"),
        (foreign, "it holds no backups yet", "Make a backup first"),
        (missing, "it does not exist", "Create it"),
    ]
    for world.store, reason, hint in cases:
        with unchanged(tmp_path):
            done = world.call("status", expect=1)
            assert "no backup folder" in done.stdout
            assert "house" in done.stdout
            assert f"{str(world.store)!r} cannot be used: {reason}" in done.stderr
            assert hint in done.stderr
            data = json.loads(world.call("status", "house", "--json", expect=1).stdout)
            assert data["error"]["code"] == "store-refused"
            assert [vm["vm"] for vm in data["vms"]] == ["house"]


def test_a_read_only_backup_folder_is_good_for_reading(world: World, tmp_path: Path) -> None:
    with read_only(world.store):
        world.call("points")
        world.call("verify", "house")
        world.call("restore", "house", "latest", "--to", str(tmp_path / "back"))
        complains(world, "backup", "house", code=1, says=["cannot be written to"])


@pytest.mark.parametrize(
    ("point", "code"),
    [
        ("", 2),
        ("0", 2),
        ("latest ", 2),
        ("LATEST", 2),
        ("{chain}", 2),
        ("{chain}/", 2),
        ("{chain}/-1", 2),
        ("{chain}/0/0", 2),
        ("{chain}/0x1", 2),
        ("{chain}/7", 10),
        ("{chain}/" + "9" * 5000, 2),
        ("{chain}/٣", 2),
        ("20200101T000000Z/0", 10),
        ("../0", 10),
        ("/0", 10),
    ],
)
def test_bad_points(world: World, tmp_path: Path, point: str, code: int) -> None:
    wanted = point.replace("{chain}", next(iter(world.references)).split("/")[0])
    with unchanged(tmp_path):
        for command in (["verify"], ["restore", "--to", str(tmp_path / "x")]):
            done = world.call(*command, "--", "house", wanted, expect=code)
            assert repr(wanted)[1:-1] in done.stderr
            assert ("<series>/<number>" if code == 2 else " points` lists") in done.stderr


def test_places_that_a_restore_cannot_fill(world: World, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "vda.qcow2").write_text("theirs")
    cases: list[tuple[Path, list[str]]] = [
        (full, ["--to", "not empty", "nothing is overwritten"]),
        (full / "vda.qcow2", ["--to", "not a folder"]),
        (full / "a" / "b", ["--to", "folder that does not exist", "Create that folder"]),
        (tmp_path / ("x" * 300), ["File name too long"]),
    ]
    for path, says in cases:
        code = 1 if "too long" in says[0] else 2
        with unchanged(tmp_path):
            complains(world, "restore", "house", "latest", "--to", str(path), code=code, says=says)
    shutil.rmtree(full)
    with read_only(tmp_path):
        says = ["--to", "cannot be written"]
        complains(world, "restore", "house", "latest", "--to", str(full), code=2, says=says)


def test_an_unknown_disk(world: World, tmp_path: Path) -> None:
    arguments = ["restore", "house", "latest", "--to", str(tmp_path / "x"), "--disk", "vdz"]
    with unchanged(tmp_path):
        complains(world, *arguments, code=2, says=["--disk", "'vdz'", "It has vda, vdb."])
        world.call(*arguments[:-2], "--format", "vmdk", expect=2)


def test_too_little_space_for_a_restore(world: World, tmp_path: Path) -> None:
    with ram_disk(tmp_path / "ram", 2 * MIB) as place:
        for size in (0, MIB):  # too small to begin; full only while it is written
            to = place / f"to {size}"
            arguments = ["restore", "house", "latest", "--to", str(to)]
            with unchanged(place):
                complains(world, *arguments, code=1, says=[str(to), "2 MiB free"])


def test_space_that_runs_out_while_restoring(world: World, tmp_path: Path) -> None:
    done = world.call("restore", "house", "latest", "--to", str(tmp_path / "x"), "--json")
    content = json.loads(done.stdout)["content_bytes"]
    # Enough for the content, not for the metadata of the images.
    with ram_disk(tmp_path / "ram", content + 8192) as place:
        failed = world.call("restore", "house", "latest", "--to", str(place / "x"), expect=1)
        assert "No space left" in failed.stderr
        assert list(place.iterdir()) == []


def test_a_restore_needs_no_qemu(world: World, tmp_path: Path) -> None:
    to = tmp_path / "to"
    command = world.arguments("restore", "--to", str(to), "--", world.vm.name, "latest")
    nowhere = {**environment(), "PATH": str(tmp_path)}
    subprocess.run(command, env=nowhere, cwd=world.folder, check=True)
    for target, copy in world.references[newest(world)].items():
        run("qemu-img", "compare", named(to / f"{target}.qcow2"), named(copy, "raw"))
