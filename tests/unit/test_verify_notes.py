"""What a verify finds is noted, so that no backup builds on it, and forgotten when it is mended."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.images import FakeImageTool
from tests.unit.test_verify import BLOCK, OddTool, file_of, flip, results, two_disks, verify
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store import documents
from vm_babysitter.adapters.store.local import LocalStore
from vm_babysitter.domain.chain import Chain
from vm_babysitter.domain.errors import (
    BabysitterError,
    Cancelled,
    ConnectionLost,
    ImageUnreadable,
    ProgramMissing,
    StoreFailed,
    TransferFailed,
)
from vm_babysitter.ports import Passed


@pytest.fixture
def world(ram_path: Path) -> EngineWorld:
    return two_disks(ram_path)


def only(world: EngineWorld) -> Chain:
    (chain,) = world.chains()
    return chain


def notes(world: EngineWorld) -> list[str]:
    return sorted(path.name for path in world.path.rglob("*.damage.json"))


def flaws(world: EngineWorld) -> dict[int, list[str]]:
    """The files of each point that are known to be damaged."""
    return {s.point.seq: [f.file for f in s.flaws] for s in only(world).points if s.flaws}


class Failing(LocalStore):
    """Gives an error of the host instead of the digest of one file."""

    def __init__(self, world: EngineWorld, path: Path, number: int) -> None:
        def digest(image: Path, passed: Passed) -> str:
            if image == path:
                raise StoreFailed(str(path), "the host says so") from OSError(number, "so")
            return digest_file(image, passed)

        super().__init__(world.path, "id", Qcow2Writer, digest)


def test_damage_beside_the_disks_is_noted_and_the_next_backup_goes_on(world: EngineWorld) -> None:
    flip(file_of(world, 1, "domain.xml"), -1)
    results(world, structure_only=True)
    assert flaws(world) == {1: ["domain.xml"]}
    assert set(only(world).broken) == {1}
    made = world.backup().point
    assert (made.parent, made.warnings) == (2, ())


@pytest.mark.parametrize("name", ["vda.qcow2", "vdb.index"])
@pytest.mark.parametrize("structure_only", [False, True])
def test_damage_is_noted_at_its_own_point_and_the_next_backup_builds_on_an_older_one(
    world: EngineWorld, name: str, structure_only: bool
) -> None:
    flip(file_of(world, 1, name), BLOCK + 100 if name.endswith("qcow2") else -1)
    assert only(world).broken == {}
    results(world, structure_only=structure_only)
    assert notes(world) == ["000001-inc.damage.json"]
    assert flaws(world) == {1: [name]}
    assert set(only(world).broken) == {1, 2}
    assert "not what was written (found by verify, 2026-11-24)" in only(world).broken[1]
    newest = only(world).newest_intact
    assert newest is not None
    assert newest.seq == 0
    assert world.backup().point.parent == 0


def test_a_verify_does_not_believe_its_own_notes(world: EngineWorld) -> None:
    path = file_of(world, 1, "vda.qcow2")
    flip(path, 100)
    first = results(world)
    assert results(world) == first
    flip(path, 100)
    again = results(world, structure_only=True)
    assert all(result.good for result in again.values())
    assert notes(world) == []
    assert only(world).broken == {}


def test_a_note_stays_as_long_as_the_point_is_not_looked_at_again(world: EngineWorld) -> None:
    path = file_of(world, 1, "vda.qcow2")
    flip(path, 100)
    (chain,) = world.chains()
    verify(world).one(world.name, f"{chain.directory}/2")  # reads what it builds on, too
    assert notes(world) == ["000001-inc.damage.json"]
    flip(path, 100)
    verify(world).one(world.name, f"{chain.directory}/0")
    assert notes(world) == ["000001-inc.damage.json"]
    verify(world).one(world.name, f"{chain.directory}/2")
    assert notes(world) == []


def test_wrong_content_is_noted_at_the_point_whose_image_has_the_block(world: EngineWorld) -> None:
    (chain,) = world.chains()
    world.vm.disks.pop("vdb")
    world.backup()
    tool = FakeImageTool()
    tool.lies[BLOCK + 5] = 0x77  # the second block is that of point 1
    verify(world, tool).one(world.name, "latest")
    assert flaws(world) == {1: ["vda.qcow2"]}
    verify(world).one(world.name, "latest", structure_only=True)
    assert flaws(world) == {1: ["vda.qcow2"]}  # its digest was right all the time
    verify(world).one(world.name, f"{chain.directory}/1")
    assert flaws(world) == {}


def test_wrong_content_that_no_index_knows_of_is_noted_at_the_point_that_was_read(
    world: EngineWorld,
) -> None:
    world.vm.disks.pop("vdb")
    world.backup()
    tool = FakeImageTool()
    tool.lies[4 * BLOCK + 5] = 0x77
    verify(world, tool).one(world.name, "latest")
    assert flaws(world) == {3: ["vda.qcow2"]}


def test_what_qemu_finds_wrong_and_a_wrong_header_are_noted(world: EngineWorld) -> None:
    tool = FakeImageTool()
    tool.wrong["000001-inc"] = "ERROR cluster 3 refcount=0"
    results(world, tool)
    assert flaws(world) == {1: ["vda.qcow2", "vdb.qcow2"]}
    results(world)
    assert flaws(world) == {}
    results(world, OddTool("000002-inc", backing_file="/elsewhere"))
    assert flaws(world) == {2: ["vda.qcow2", "vdb.qcow2"]}


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EIO]
)
def test_of_what_the_host_says_only_a_file_that_cannot_be_read_is_evidence(
    world: EngineWorld, number: int
) -> None:
    path = file_of(world, 1, "vda.qcow2")
    world.store = Failing(world, path, number)
    assert not results(world)[1].good
    evidence = number == errno.EIO
    assert flaws(world) == ({1: ["vda.qcow2"]} if evidence else {})


def test_a_flaw_stays_noted_while_its_file_is_out_of_reach(world: EngineWorld) -> None:
    path = file_of(world, 1, "vda.qcow2")
    flip(path, 100)
    results(world)
    world.store = Failing(world, path, errno.ENOTCONN)
    results(world)
    assert flaws(world) == {1: ["vda.qcow2"]}


@pytest.mark.parametrize(
    ("call", "error"),
    [("check", Cancelled()), ("open_for_reading", Cancelled()), ("info", ProgramMissing("x"))],
)
def test_a_verify_that_ends_early_notes_nothing(
    world: EngineWorld, call: str, error: BabysitterError
) -> None:
    tool = FakeImageTool()
    tool.fail[call] = error
    with pytest.raises(type(error)):
        results(world, tool)
    assert notes(world) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("check", ImageUnreadable("/x", "Permission denied")),
        ("open_for_reading", ConnectionLost("/x", "it fell silent")),
        ("open_for_reading", TransferFailed("Reading", 512, "Input/output error")),
    ],
)
def test_what_qemu_could_not_read_is_told_and_not_noted(
    world: EngineWorld, call: str, error: BabysitterError
) -> None:
    tool = FakeImageTool()
    tool.fail[call] = error
    assert not any(result.good for result in results(world, tool).values())
    assert notes(world) == []


def test_a_store_that_takes_no_notes_is_verified_all_the_same(world: EngineWorld) -> None:
    flip(file_of(world, 1, "vda.qcow2"), 100)
    blocked = file_of(world, 1, "vda.qcow2").parents[1] / ".000001-inc.damage.json.tmp"
    (blocked / "x").mkdir(parents=True)
    assert [result.good for result in results(world).values()] == [True, False, False]
    assert notes(world) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"vda", b"vdb")),
        lambda path: path.rename(path.with_name("000002-inc.damage.json")),
    ],
    ids=["cut", "empty", "changed", "of another point"],
)
def test_a_note_that_is_not_whole_or_of_another_point_does_not_count(
    world: EngineWorld, change: Callable[[Path], object]
) -> None:
    flip(file_of(world, 1, "vda.qcow2"), 100)
    results(world)
    (path,) = world.path.rglob("*.damage.json")
    change(path)
    assert only(world).broken == {}
    results(world)
    assert set(only(world).broken) == {1, 2}


def test_a_note_of_a_point_that_had_this_number_before_does_not_count(world: EngineWorld) -> None:
    flip(file_of(world, 2, "vda.qcow2"), 100)
    results(world)
    stored = only(world).find(2)
    assert stored is not None
    manifest = file_of(world, 2, "point.json")
    documents.write(manifest, "point", replace(stored.point, nonce="ffffff"))
    assert only(world).broken == {}


def test_files_that_are_there_are_checked_although_another_one_is_missing(
    world: EngineWorld,
) -> None:
    file_of(world, 1, "vdb.qcow2").unlink()
    flip(file_of(world, 1, "vda.qcow2"), 100)
    problems = results(world)[1].problems
    assert problems == (
        "vda.qcow2: its content is not what was written",
        "vdb.qcow2: it is missing",
    )
    assert only(world).disk_problem(2, "vda")
