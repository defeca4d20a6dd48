"""Restoring: exactly what the disk held, or nothing at all."""

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.images import FakeImageTool
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.restore_place import EmptyDirectory
from vm_babysitter.adapters.store.files import NewFile
from vm_babysitter.domain.errors import (
    BabysitterError,
    Cancelled,
    ImageUnreadable,
    InvalidInput,
    NotEnoughSpace,
    PointDamaged,
    StoreFailed,
)
from vm_babysitter.engine.restore import FORMATS, Restore, Restored
from vm_babysitter.engine.verify import Verify
from vm_babysitter.ports import DiskReader

BLOCK = 65536


@pytest.fixture
def held() -> list[dict[str, bytes]]:
    """What each point holds of each disk."""
    return []


@pytest.fixture
def world(ram_path: Path, held: list[dict[str, bytes]]) -> EngineWorld:
    """A VM of two disks with a full and two increments."""
    (ram_path / "store").mkdir()
    world = EngineWorld(ram_path / "store")
    other = FakeDisk("vdb", size=2 * BLOCK, path="/vms/b.raw", format="raw")
    other.layers[0].path = other.path
    world.vm.disks["vdb"] = other
    for n in range(3):
        world.disk.write(n * BLOCK, bytes([n + 1]) * 1000)
        world.disk.zero(((n + 2) % 5) * BLOCK, BLOCK)
        world.disk.write(5 * BLOCK, bytes([n + 7]) * 512)
        other.write(0, bytes([n + 1]) * 512)
        world.vm.definition = f"<domain>{n}</domain>"
        world.backup()
        held.append({target: bytes(d.content) for target, d in world.vm.disks.items()})
    world.observer.amounts.clear()
    return world


@pytest.fixture
def to(ram_path: Path) -> Path:
    """Where to restore to; not there yet."""
    return ram_path / "restored: 'here'"


@pytest.fixture
def tool() -> FakeImageTool:
    return FakeImageTool()


class Images(FileImages):
    """Reads what an image tool reads, with all its lies and failures."""

    def __init__(self, tool: FakeImageTool) -> None:
        self._tool = tool

    def open_for_reading(self, layers: Sequence[Path]) -> AbstractContextManager[DiskReader]:
        return self._tool.open_for_reading([(path, "qcow2") for path in layers])


def restore(
    world: EngineWorld,
    to: Path,
    tool: FakeImageTool,
    point: str = "latest",
    targets: Sequence[str] = (),
    format: str | None = None,
) -> Restored:
    place = EmptyDirectory(to)
    work = Restore(world.store, world.read_tools(tool), Images(tool), place)
    return work.run(world.name, point, targets, format)


def content(path: Path) -> bytes:
    return read_layers([path]) if path.suffix == ".qcow2" else path.read_bytes()


def refused(
    world: EngineWorld,
    to: Path,
    tool: FakeImageTool,
    error: type[BabysitterError],
    targets: Sequence[str] = (),
) -> BabysitterError:
    """Make sure that a restore fails, and leaves nothing behind."""
    with pytest.raises(error) as caught:
        restore(world, to, tool, targets=targets)
    assert not to.exists()
    return caught.value


@pytest.mark.parametrize("format", [None, "qcow2", "raw"])
@pytest.mark.parametrize("seq", [0, 1, 2])
def test_every_point_comes_back_as_it_was(
    world: EngineWorld,
    to: Path,
    tool: FakeImageTool,
    held: list[dict[str, bytes]],
    seq: int,
    format: str | None,
) -> None:
    (chain,) = world.chains()
    result = restore(world, to, tool, f"{chain.directory}/{seq}", format=format)
    names = [f"vda.{format or 'qcow2'}", f"vdb.{format or 'raw'}", "domain.xml"]
    assert result.files == tuple(to / name for name in names)
    assert {p.name for p in to.iterdir()} == set(names)
    for name in names[:2]:
        assert content(to / name) == held[seq][name[:3]]
    assert (to / "domain.xml").read_text() == f"<domain>{seq}</domain>"


def test_disks_that_are_named_come_back_each_once(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    restore(world, to, tool, targets=["vdb", "vdb"])
    assert {p.name for p in to.iterdir()} == {"vdb.raw", "domain.xml"}
    assert content(to / "vdb.raw") == held[2]["vdb"]


def test_unknown_disk_is_refused_with_those_there_are(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    with pytest.raises(InvalidInput, match=r"It has vda, vdb\."):
        restore(world, to, tool, targets=["vda", "vdz"])
    assert not to.exists()


def test_progress_ends_with_everything_and_zeros_are_not_written(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    result = restore(world, to, tool)
    blocks = [
        disk[start : start + BLOCK]
        for disk in held[2].values()
        for start in range(0, len(disk), BLOCK)
    ]
    assert result.content_bytes == sum(BLOCK for block in blocks if any(block))
    done, total = world.observer.amounts[-1]
    assert done == sum(len(block) for block in blocks if any(block))
    assert total - BLOCK < done <= total


@pytest.mark.parametrize("place", [0, 3 * BLOCK + 7, 5 * BLOCK + 511])
def test_content_that_is_not_what_was_backed_up_is_not_restored(
    world: EngineWorld, to: Path, tool: FakeImageTool, place: int
) -> None:
    world.vm.disks.pop("vdb")
    world.backup()
    tool.lies[place] = 0x77
    error = refused(world, to, tool, PointDamaged)
    assert f"disk vda: the content at byte {place // BLOCK * BLOCK}" in error.message


def test_hole_where_there_was_data_is_not_restored(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    world.vm.disks.pop("vdb")
    world.backup()
    tool.lies = dict.fromkeys(range(2 * BLOCK, 3 * BLOCK), 0)  # and its zero map says so
    error = refused(world, to, tool, PointDamaged)
    assert f"disk vda: the content at byte {2 * BLOCK}" in error.message


def test_image_of_another_size_is_not_restored(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    tool.missing = 512
    error = refused(world, to, tool, PointDamaged)
    assert f"disk vda has {5 * BLOCK} bytes, not {5 * BLOCK + 512}" in error.message


def damage(world: EngineWorld, seq: int, name: str) -> None:
    (path,) = world.path.glob(f"*/*/{seq:06d}-*/{name}")
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored)


@pytest.mark.parametrize(("seq", "name"), [(2, "vda.index"), (0, "vdb.index"), (2, "domain.xml")])
def test_damaged_side_file_is_found_before_anything_is_kept(
    world: EngineWorld, to: Path, tool: FakeImageTool, seq: int, name: str
) -> None:
    damage(world, seq, name)
    assert name in refused(world, to, tool, PointDamaged).message


def test_broken_point_is_refused_and_those_before_it_come_back(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    (image,) = world.path.glob("*/*/000001-inc/vda.qcow2")
    image.unlink()
    error = refused(world, to, tool, PointDamaged)
    assert "it builds on 000001: vda.qcow2" in error.message
    assert tool.calls == []
    (chain,) = world.chains()
    restore(world, to, tool, f"{chain.directory}/0")
    assert content(to / "vda.qcow2") == held[0]["vda"]


def file_of(world: EngineWorld, seq: int, name: str) -> Path:
    (path,) = world.path.glob(f"*/*/{seq:06d}-*/{name}")
    return path


@pytest.mark.parametrize("seq", [0, 1, 2])
@pytest.mark.parametrize("name", ["vdb.qcow2", "vdb.index"])
def test_a_disk_comes_back_though_another_one_is_lost(
    world: EngineWorld,
    to: Path,
    tool: FakeImageTool,
    held: list[dict[str, bytes]],
    seq: int,
    name: str,
) -> None:
    path = file_of(world, seq, name)
    path.unlink()
    if seq != 1:
        path.write_bytes(b"short")
    for targets in ((), ("vdb",), ("vda", "vdb")):
        error = refused(world, to, tool, PointDamaged, targets)
        assert name in error.message
        assert "--disk vda. Other" in error.hint
    restore(world, to, tool, targets=["vda"])
    assert content(to / "vda.qcow2") == held[2]["vda"]


def test_disks_come_back_though_what_lies_beside_them_is_lost(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    file_of(world, 1, "domain.xml").unlink()  # nobody needs that of an older point
    damage(world, 2, "domain.xml")
    error = refused(world, to, tool, PointDamaged)
    assert "domain.xml: its content" in error.message
    assert "--disk vda --disk vdb" in error.hint
    result = restore(world, to, tool, targets=["vda"])
    assert content(to / "vda.qcow2") == held[2]["vda"]
    assert {p.name for p in to.iterdir()} == {"vda.qcow2"}
    assert "domain.xml is damaged and was not restored" in result.notes[0]


def test_a_file_beside_the_disks_that_is_lost_is_told_before_anything_is_read(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    file_of(world, 2, "domain.xml").unlink()
    error = refused(world, to, tool, PointDamaged)
    assert "domain.xml: it is missing" in error.message
    assert "--disk vda --disk vdb" in error.hint
    assert tool.calls == []


@pytest.mark.parametrize("manifest", ["lost", "unreadable"])
def test_a_disk_that_is_stored_in_full_restores_without_what_is_older(
    world: EngineWorld, to: Path, tool: FakeImageTool, manifest: str
) -> None:
    late = FakeDisk("vdc", size=2 * BLOCK, path="/vms/c.qcow2")
    late.layers[0].path = late.path
    world.vm.disks["vdc"] = late
    late.write(0, b"late")
    world.backup()
    late.write(BLOCK, b"later")
    made = world.backup().point
    old = file_of(world, 0, "point.json")
    old.write_bytes(b"{") if manifest == "unreadable" else shutil.rmtree(old.parent)
    (chain,) = world.chains()
    assert chain.disk_problem(made.seq, "vdc") == ""
    assert "--disk vdc" in refused(world, to, tool, PointDamaged).hint
    restore(world, to, tool, targets=["vdc"])
    assert content(to / "vdc.qcow2") == bytes(late.content)


def test_what_turns_out_damaged_on_the_way_is_told_with_what_may_be_had(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    damage(world, 1, "vdb.index")
    error = refused(world, to, tool, PointDamaged)
    assert "disk vdb: it builds on 000001: vdb.index" in error.message
    assert "--disk vda." in error.hint
    restore(world, to, tool, targets=["vda"])
    assert content(to / "vda.qcow2") == held[2]["vda"]


def test_a_disk_that_is_noted_as_damaged_is_tried_all_the_same(
    world: EngineWorld, to: Path, tool: FakeImageTool, held: list[dict[str, bytes]]
) -> None:
    damage(world, 1, "vdb.index")
    Verify(world.store, world.read_tools(tool), world.clock).all(world.name)
    assert world.chains()[0].broken
    assert "--disk vda." in refused(world, to, tool, PointDamaged, ["vdb"]).hint
    restore(world, to, tool, targets=["vda"])
    assert content(to / "vda.qcow2") == held[2]["vda"]
    damage(world, 1, "vdb.index")  # mended
    world.observer.notes.clear()
    again = to.with_name("again")
    restore(world, again, tool)
    assert content(again / "vdb.raw") == held[2]["vdb"]
    (note,) = world.observer.notes
    assert note.startswith("Disk vdb may not come back: it builds on 000001: vdb.index:")


def test_nothing_is_promised_where_nothing_can_be_had(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    for name in ("vda.qcow2", "vdb.qcow2"):
        file_of(world, 0, name).unlink()
    assert "--disk" not in refused(world, to, tool, PointDamaged).hint


def test_image_that_cannot_be_opened_means_a_damaged_point(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    tool.fail["open_for_reading"] = ImageUnreadable("/x", "Image is not in qcow2 format")
    error = refused(world, to, tool, PointDamaged)
    assert "disk vda: Image is not in qcow2 format" in error.message


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("call", ["write", "sync_and_close"])
def test_place_that_fails_while_it_is_written_to_is_no_damage(
    world: EngineWorld,
    to: Path,
    tool: FakeImageTool,
    call: str,
    format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_file: NewFile, *_arguments: object) -> None:
        raise StoreFailed(str(to), "No space left on device")

    monkeypatch.setattr(NewFile, call, fail)
    with pytest.raises(StoreFailed, match="No space left"):
        restore(world, to, tool, format=format)
    assert not to.exists()


def test_point_that_needs_more_space_than_there_is_is_refused_first(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    asked = []

    class Full(EmptyDirectory):
        def _check(self, needed: int) -> None:
            asked.append(needed)
            raise NotEnoughSpace(str(to), needed - 1, needed)

    work = Restore(world.store, world.read_tools(tool), Images(tool), Full(to))
    with pytest.raises(NotEnoughSpace):
        work.run(world.name, "latest")
    assert asked
    assert not to.exists()
    assert tool.calls == []


@pytest.mark.parametrize("step", ["restore vda", "restore vdb", "restore domain.xml", "finish"])
def test_failure_at_any_step_leaves_nothing(
    world: EngineWorld, to: Path, tool: FakeImageTool, step: str
) -> None:
    def fail() -> None:
        raise StoreFailed("/x", "gone")

    world.observer.at[step] = fail
    refused(world, to, tool, StoreFailed)


@pytest.mark.parametrize("step", ["restore vda", "restore vdb"])
def test_stopping_leaves_nothing(
    world: EngineWorld, to: Path, tool: FakeImageTool, step: str
) -> None:
    world.observer.at[step] = world.cancel.request
    refused(world, to, tool, Cancelled)


def test_restoring_leaves_the_backup_folder_as_it_is(
    world: EngineWorld, to: Path, tool: FakeImageTool
) -> None:
    before = {p: p.read_bytes() for p in world.path.rglob("*") if p.is_file()}
    restore(world, to, tool)
    assert {p: p.read_bytes() for p in world.path.rglob("*") if p.is_file()} == before
