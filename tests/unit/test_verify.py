"""Verifying: whatever is wrong with a point is found, named, and told of what builds on it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.images import FakeImageTool
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.errors import (
    Cancelled,
    Damaged,
    ImageUnreadable,
    PointNotFound,
    TransferFailed,
    VmNotFound,
)
from vm_babysitter.engine.verify import Verified, Verify
from vm_babysitter.ports import FileCheck, ImageInfo, Passed

BLOCK = 65536


class OddTool(FakeImageTool):
    """Describes one image otherwise than it is."""

    def __init__(self, point: str, **change: object) -> None:
        super().__init__()
        self._point = point
        self._change = change

    def info(self, path: Path) -> ImageInfo:
        found = super().info(path)
        return replace(found, **self._change) if path.parent.name == self._point else found  # type: ignore[arg-type]


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    return two_disks(ram_path)


def two_disks(path: Path) -> EngineWorld:
    """Return a VM of two disks with a full and two increments."""
    world = EngineWorld(path)
    other = FakeDisk("vdb", size=2 * BLOCK, path="/vms/b.raw", format="raw")
    other.layers[0].path = other.path
    world.vm.disks["vdb"] = other
    for n in range(3):
        world.disk.write(n * BLOCK, bytes([n + 1]) * 1000)
        other.write(0, bytes([n + 1]) * 512)
        world.backup()
    return world


def verify(world: EngineWorld, tool: FakeImageTool | None = None) -> Verify:
    images = FakeImageTool() if tool is None else tool
    return Verify(world.store, world.read_tools(images), world.clock)


def results(
    world: EngineWorld, tool: FakeImageTool | None = None, *, structure_only: bool = False
) -> dict[int, Verified]:
    """Verify all points; what came of them by number."""
    found = verify(world, tool).all(world.name, structure_only=structure_only)
    assert [r.point for r in found] == sorted(r.point for r in found)
    return {int(r.point.split("/")[1]): r for r in found}


def file_of(world: EngineWorld, seq: int, name: str) -> Path:
    (path,) = world.path.glob(f"*/*/{seq:06d}-*/{name}")
    return path


def flip(path: Path, place: int = -1) -> None:
    """Change one byte and nothing else."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_whole_points_are_good_by_structure_and_by_content(world: EngineWorld) -> None:
    for structure_only in (False, True):
        found = results(world, structure_only=structure_only)
        assert found.keys() == {0, 1, 2}
        assert all(r.good and r.content is not structure_only for r in found.values())


def test_verifying_writes_nothing(world: EngineWorld) -> None:
    before = {p: p.stat() for p in world.path.rglob("*")}
    results(world)
    after = {p: p.stat() for p in world.path.rglob("*")}
    assert before.keys() == after.keys()
    assert all(before[p].st_mtime_ns == after[p].st_mtime_ns for p in before)


@pytest.mark.parametrize("name", ["vda.qcow2", "vdb.qcow2", "vda.index", "vdb.index", "domain.xml"])
@pytest.mark.parametrize("structure_only", [False, True])
@pytest.mark.parametrize("seq", [0, 1, 2])
def test_one_changed_byte_of_any_file_is_found_and_spreads_to_what_builds_on_it(
    world: EngineWorld, name: str, seq: int, structure_only: bool
) -> None:
    flip(file_of(world, seq, name), 100 if name.endswith("qcow2") else -1)
    found = results(world, structure_only=structure_only)
    spreads = name != "domain.xml"  # that is read for its own point only
    assert {n for n, r in found.items() if not r.good} == set(range(seq, 3) if spreads else [seq])
    assert [p.split(":")[0] for p in found[seq].problems] == [name]
    for later in range(seq + 1, 3 if spreads else 0):
        assert found[later].problems == tuple(
            f"it builds on {seq:06d}: {problem}" for problem in found[seq].problems
        )
    for number, result in found.items():
        assert result.content == (result.good and not structure_only), number


def test_missing_file_is_told_without_reading_anything(world: EngineWorld) -> None:
    file_of(world, 1, "vda.qcow2").unlink()
    tool = FakeImageTool()
    found = results(world, tool)
    assert [found[n].good for n in range(3)] == [True, False, False]
    assert "vda.qcow2" in found[1].problems[0]
    assert tool.calls.count("open_for_reading") == 2  # the disks of the full


def test_unreadable_manifest_is_in_the_list_and_what_builds_on_it_is_bad(
    world: EngineWorld,
) -> None:
    flip(file_of(world, 1, "point.json"), 200)
    found = results(world)
    assert [found[n].good for n in range(3)] == [True, False, False]
    assert "point.json" in found[1].problems[0]
    with pytest.raises(Damaged):
        verify(world).one(world.name, next(iter(found.values())).point[:-1] + "1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "raw"}, "it is raw"),
        ({"virtual_size": 512}, "it is qcow2 of 512 bytes"),
        ({"backing_file": None}, "it builds on None"),
        ({"backing_file": "/somewhere/else"}, "it builds on '/somewhere/else'"),
    ],
)
def test_image_that_is_another_than_the_manifest_says_is_found(
    world: EngineWorld, change: dict[str, object], words: str
) -> None:
    found = results(world, OddTool("000001-inc", **change))
    assert [found[n].good for n in range(3)] == [True, False, False]
    assert all(words in problem for problem in found[1].problems)


def test_full_that_has_a_backing_file_is_found(world: EngineWorld) -> None:
    found = results(world, OddTool("000000-full", backing_file="../x"))
    assert not any(r.good for r in found.values())


def test_what_qemu_finds_wrong_with_an_image_is_told_in_its_words(world: EngineWorld) -> None:
    tool = FakeImageTool()
    tool.wrong["000001-inc"] = "ERROR cluster 3 refcount=0"
    found = results(world, tool)
    assert found[0].good
    assert "vda.qcow2: ERROR cluster 3 refcount=0" in found[1].problems


def test_image_that_qemu_cannot_open_is_a_problem_and_no_failure(world: EngineWorld) -> None:
    tool = FakeImageTool()
    tool.fail["check"] = ImageUnreadable("/x", "Permission denied")
    assert "vda.qcow2: Permission denied" in results(world, tool)[2].problems


@pytest.mark.parametrize("place", [0, BLOCK - 1, 3 * BLOCK + 5])
def test_content_that_is_not_what_was_backed_up_is_found_though_all_digests_are_right(
    world: EngineWorld, place: int
) -> None:
    tool = FakeImageTool()
    tool.lies[place] = 0x77
    block = place // BLOCK * BLOCK
    world.vm.disks.pop("vdb")
    world.backup()  # a point of one disk
    found = verify(world, tool).one(world.name, "latest")
    assert found.content
    assert f"the content at byte {block} is not" in found.problems[0]
    assert verify(world, tool).one(world.name, "latest", structure_only=True).good


def test_hole_where_there_was_data_is_found(world: EngineWorld) -> None:
    world.vm.disks.pop("vdb")
    world.backup()
    tool = FakeImageTool()
    tool.lies = dict.fromkeys(range(2 * BLOCK, 3 * BLOCK), 0)  # and its zero map says so
    (problem,) = verify(world, tool).one(world.name, "latest").problems
    assert f"the content at byte {2 * BLOCK} is not" in problem


def test_error_while_reading_is_a_problem_of_that_disk(world: EngineWorld) -> None:
    tool = FakeImageTool()
    tool.fail["open_for_reading"] = TransferFailed("Reading", 512, "Input/output error")
    found = results(world, tool)
    for result in found.values():
        assert [p.split(":")[0] for p in result.problems] == ["disk vda", "disk vdb"]
        assert all("Input/output error" in problem for problem in result.problems)


class CountingStore(LocalStore):
    """Counts how often each file's digest is computed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "id", Qcow2Writer, digest_file)
        self.checked: list[Path] = []

    def check_file(
        self, path: Path, digest: str, *, image: bool, passed: Passed = lambda _: None
    ) -> FileCheck:
        self.checked.append(path)
        return super().check_file(path, digest, image=image, passed=passed)


def test_each_file_is_read_once_for_its_digest(world: EngineWorld) -> None:
    store = world.store = CountingStore(world.path)
    results(world)
    assert len(store.checked) == len(set(store.checked)) == 3 * (2 + 2 + 1)


@pytest.mark.parametrize(
    "act", [lambda v: v.all("it's a VM"), lambda v: v.one("it's a VM", "latest")]
)
def test_stopping_stops(world: EngineWorld, act: Callable[[Verify], object]) -> None:
    world.cancel.request()
    with pytest.raises(Cancelled):
        act(verify(world))


def test_stopping_while_content_is_read_is_no_problem_of_the_disk(world: EngineWorld) -> None:
    tool = FakeImageTool()
    tool.fail["open_for_reading"] = Cancelled()
    with pytest.raises(Cancelled):
        verify(world, tool).one(world.name, "latest")


def test_unknown_vm_and_point_are_not_found(world: EngineWorld) -> None:
    for name in ("other", "", "it's"):
        with pytest.raises(VmNotFound):
            verify(world).all(name)
    (chain,) = world.chains()
    for point in (f"{chain.directory}/000009", "20200101T000000Z/000000"):
        with pytest.raises(PointNotFound, match=re.escape(point)):
            verify(world).one(world.name, point)
