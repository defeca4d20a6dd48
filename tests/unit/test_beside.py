"""NVRAM, TPM state and autostart: read around the moment, kept, verified, restored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld, exact, lived_in
from tests.support.fakes.images import FakeImageTool
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.restore_place import EmptyDirectory
from vm_babysitter.adapters.side_files import LocalSideFiles
from vm_babysitter.domain.errors import Cancelled, PointDamaged
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.restore import Restore, Restored
from vm_babysitter.engine.verify import Verify
from vm_babysitter.ports import SideContent

READINGS = 5
"""Before the moment, after it, and three more."""


@dataclass
class Watched(LocalSideFiles):
    """Reads files; before each reading of the NVRAM something happens."""

    nvram: Path
    events: Iterator[Callable[[], object]] = field(default_factory=lambda: repeat(int))
    readings: int = 0

    def read(self, path: str, limit: int, *, folder: bool) -> SideContent:
        if Path(path) == self.nvram:
            self.readings += 1
            next(self.events)()
        return super().read(path, limit, folder=folder)


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    """A VM with an NVRAM and a TPM."""
    return lived_in(ram_path)


@pytest.fixture
def nvram(world: EngineWorld) -> Path:
    return Path(world.vm.belongings.nvram)


@pytest.fixture
def tpm(world: EngineWorld) -> Path:
    return Path(world.vm.belongings.tpm)


@pytest.fixture
def watched(world: EngineWorld, nvram: Path) -> Watched:
    world.side_files = watched = Watched(nvram)
    return watched


def saved(world: EngineWorld, point: Point) -> dict[str, bytes]:
    """What a point holds beside the disks and the definition."""
    (found,) = world.chains()
    names = [file.name for file in point.files if file.name != "domain.xml"]
    paths = [world.store.file_path(world.vm.uuid, found, point, name) for name in names]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    return {path.name: path.read_bytes() for path in paths}


def restore(world: EngineWorld, to: Path, *targets: str) -> Restored:
    tools = world.read_tools(FakeImageTool())
    work = Restore(world.store, tools, FileImages(), EmptyDirectory(to))
    return work.run(world.name, "latest", targets)


ALL = {"nvram.fd": b"variables", "tpm-tpm2-00.permall": b"sealed"}


def test_all_of_it_is_in_the_point_with_where_it_lay(
    world: EngineWorld, nvram: Path, tpm: Path
) -> None:
    result = world.backup()
    exact(world, result)
    assert saved(world, result.point) == ALL
    assert [(f.name, f.size, f.origin, f.format) for f in result.point.files] == [
        ("domain.xml", len("<domain/>"), "", ""),
        ("nvram.fd", 9, str(nvram), "raw"),
        ("tpm-tpm2-00.permall", 6, str(tpm / "tpm2-00.permall"), ""),
    ]
    assert result.point.autostart is True
    assert result.point.warnings == ()


def test_each_point_has_its_own(world: EngineWorld, nvram: Path) -> None:
    first = world.backup().point
    nvram.write_bytes(b"changed since")
    world.vm.belongings = replace(world.vm.belongings, autostart=False)
    second = world.backup().point
    assert saved(world, first)["nvram.fd"] == b"variables"
    assert saved(world, second)["nvram.fd"] == b"changed since"
    assert (first.autostart, second.autostart) == (True, False)


def test_a_vm_without_any_has_none_and_no_warning(world: EngineWorld) -> None:
    world.vm.belongings = replace(world.vm.belongings, nvram="", tpm="")
    point = world.backup().point
    assert [file.name for file in point.files] == ["domain.xml"]
    assert point.warnings == ()


def test_a_qcow2_nvram_is_named_so(world: EngineWorld) -> None:
    world.vm.belongings = replace(world.vm.belongings, nvram_format="qcow2")
    file = world.backup().point.files[1]
    assert (file.name, file.format) == ("nvram.qcow2", "qcow2")


def test_a_tpm_state_in_one_file_is_kept(world: EngineWorld, tpm: Path) -> None:
    file = tpm / "tpm2-00.permall"
    world.vm.belongings = replace(world.vm.belongings, tpm=str(file), tpm_in_one_file=True)
    point = world.backup().point
    assert saved(world, point)["tpm-state"] == b"sealed"
    assert point.files[-1].origin == str(file)


# --- readings


def test_what_stays_the_same_is_read_before_and_after_the_moment(
    world: EngineWorld, watched: Watched
) -> None:
    seen: list[bool] = []
    watched.events = repeat(lambda: seen.append(world.vm.job is not None))
    world.backup()
    assert seen == [False, True]


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_what_changes_is_read_until_two_readings_agree(
    world: EngineWorld, watched: Watched, nvram: Path, changes: int
) -> None:
    writes = [lambda n=n: nvram.write_bytes(b"state %d" % n) for n in range(changes + 1)]
    watched.events = chain(writes, repeat(int))
    point = world.backup().point
    assert watched.readings == changes + 2
    assert saved(world, point)["nvram.fd"] == b"state %d" % changes
    assert point.warnings == ()


def test_what_never_rests_is_kept_with_a_warning(
    world: EngineWorld, watched: Watched, nvram: Path
) -> None:
    watched.events = repeat(lambda: nvram.write_bytes(b"state %d" % watched.readings))
    result = world.backup()
    exact(world, result)
    assert watched.readings == READINGS
    assert saved(world, result.point)["nvram.fd"] == b"state %d" % READINGS
    (warning,) = result.point.warnings
    assert "the NVRAM kept changing while it was read" in warning


def test_a_file_that_comes_while_it_is_read_is_kept(
    world: EngineWorld, watched: Watched, tpm: Path
) -> None:
    watched.events = chain([int, (tpm / "tpm2-00.volatilestate").touch], repeat(int))
    assert saved(world, world.backup().point) == {**ALL, "tpm-tpm2-00.volatilestate": b""}


def test_stopping_while_it_never_rests_stops(
    world: EngineWorld, watched: Watched, nvram: Path
) -> None:
    def change_and_stop() -> None:
        nvram.write_bytes(b"other")
        world.cancel.request()

    watched.events = chain([int, change_and_stop], repeat(int))
    with pytest.raises(Cancelled):
        world.backup()
    assert watched.readings == 2
    assert world.leftovers() == []


# --- what cannot be kept


def test_a_missing_file_is_a_warning_and_the_rest_is_kept(world: EngineWorld, nvram: Path) -> None:
    nvram.unlink()
    result = world.backup()
    exact(world, result)
    assert list(saved(world, result.point)) == ["tpm-tpm2-00.permall"]
    expected = f"the NVRAM is not included: {str(nvram)!r}: No such file or directory"
    assert result.point.warnings == (expected,)


def test_a_missing_tpm_folder_is_a_warning(world: EngineWorld) -> None:
    world.vm.belongings = replace(world.vm.belongings, tpm="/nowhere/tpm2")
    (warning,) = world.backup().point.warnings
    assert warning == "the TPM state is not included: '/nowhere/tpm2': No such file or directory"


def test_a_tpm_file_that_is_a_link_is_left_out_with_a_warning(
    world: EngineWorld, tpm: Path
) -> None:
    (tpm / "evil").symlink_to("/etc/hostname")
    point = world.backup().point
    assert saved(world, point) == ALL
    (warning,) = point.warnings
    assert "the TPM state is not complete" in warning
    assert "is a link" in warning


def test_what_libvirt_keeps_elsewhere_is_a_warning_once_in_a_chain(world: EngineWorld) -> None:
    world.vm.belongings = replace(world.vm.belongings, out_of_reach=("far away",))
    assert world.backup().point.warnings == ("far away",)
    assert world.backup().point.warnings == ()
    assert world.backup(force_full=True).point.warnings == ("far away",)


def test_a_saved_memory_state_is_a_warning(world: EngineWorld) -> None:
    world.vm.belongings = replace(world.vm.belongings, managed_save=True)
    (warning,) = world.backup().point.warnings
    assert warning.startswith("memory state not included")


# --- verify and restore


@pytest.mark.parametrize("name", list(ALL))
def test_damage_is_found_and_such_a_point_is_not_restored(world: EngineWorld, name: str) -> None:
    world.backup()
    (path,) = world.path.glob(f"*/*/*/{name}")
    path.write_bytes(b"X" + path.read_bytes()[1:])
    work = Verify(world.store, world.read_tools(FakeImageTool()), world.clock)
    (found,) = work.all(world.name, structure_only=True)
    assert found.problems == (f"{name}: its content is not what was written",)
    with pytest.raises(PointDamaged, match=name):
        restore(world, world.path.parent / "to")
    path.unlink()
    assert name in world.chains()[0].broken[0]


def test_restoring_brings_it_back_and_says_where_it_belongs(
    world: EngineWorld, nvram: Path, tpm: Path
) -> None:
    world.backup()
    to = world.path.parent / "to"
    result = restore(world, to)
    assert {name: (to / name).read_bytes() for name in ALL} == ALL
    assert set(result.files) == {to / name for name in ["vda.qcow2", "domain.xml", *ALL]}
    assert result.notes == (
        f"nvram.fd belongs at {str(nvram)!r}",
        f"tpm-tpm2-00.permall belongs at {str(tpm / 'tpm2-00.permall')!r}",
        "the VM was set to start with the host",
    )


def test_restoring_says_that_a_disk_was_encrypted(world: EngineWorld) -> None:
    world.disk.encrypted = True
    (warning,) = world.backup().point.warnings
    assert "not in the backup" in warning
    assert world.backup().point.warnings == ()
    note = restore(world, world.path.parent / "to").notes[-1]
    assert "disk vda was encrypted" in note


def test_restoring_some_disks_brings_back_those_and_the_definition(world: EngineWorld) -> None:
    world.backup()
    to = world.path.parent / "to"
    result = restore(world, to, "vda")
    assert {path.name for path in to.iterdir()} == {"vda.qcow2", "domain.xml"}
    assert result.notes == ()
